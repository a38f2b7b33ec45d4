package cgo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barkd/cgo/cache"
)

// traceLine is a cache.TraceEvent in a trace file: one JSON object a line.
type traceLine struct {
	T       float64      `json:"t"` // unix seconds
	Key     string       `json:"model"`
	WaitS   float64      `json:"wait_s,omitempty"`
	HeldS   float64      `json:"held_s,omitempty"`
	LoadS   float64      `json:"load_s,omitempty"`
	Own     []int64      `json:"own,omitempty"` // bytes by pool; only a load has it
	Session []int64      `json:"session,omitempty"`
	Shared  []sharedLine `json:"shared,omitempty"`
}

type sharedLine struct {
	ID    string  `json:"id"`
	Bytes []int64 `json:"bytes"`
}

// TraceWriter writes what a pool does to a trace file, for Pool's Trace option and ReadTrace. It never makes the pool
// wait: what the file cannot take in time is dropped and counted.
type TraceWriter struct {
	lines   chan cache.TraceEvent
	dropped atomic.Uint64
	err     error
	done    sync.WaitGroup
}

// traceBacklog is how many lines may wait for the file.
const traceBacklog = 4096

// NewTraceWriter writes to w until Close.
func NewTraceWriter(w io.Writer) *TraceWriter {
	t := &TraceWriter{lines: make(chan cache.TraceEvent, traceBacklog)}
	t.done.Go(func() {
		out := bufio.NewWriter(w)
		encoder := json.NewEncoder(out)
		for e := range t.lines {
			err := encoder.Encode(toLine(e))
			if len(t.lines) == 0 && err == nil {
				err = out.Flush()
			}
			if err != nil && t.err == nil {
				t.err = fmt.Errorf("write the cache's trace: %w", err)
			}
		}
	})
	return t
}

// Add takes one event; it never waits.
func (t *TraceWriter) Add(e cache.TraceEvent) {
	select {
	case t.lines <- e:
	default:
		t.dropped.Add(1)
	}
}

// Close writes what is left. Add must not be called any more.
func (t *TraceWriter) Close() error {
	close(t.lines)
	t.done.Wait()
	if n := t.dropped.Load(); n > 0 && t.err == nil {
		return fmt.Errorf("the cache's trace lacks %d lines: the file was too slow", n)
	}
	return t.err
}

func toLine(e cache.TraceEvent) traceLine {
	line := traceLine{T: float64(e.At.UnixNano()) / 1e9, Key: e.Key, WaitS: e.Waited.Seconds(), HeldS: e.Held.Seconds(),
		LoadS: e.Load.Seconds()}
	if f := e.Footprint; f != nil {
		line.Own, line.Session = short(f.Own), short(f.Session)
		for _, c := range f.Shared {
			line.Shared = append(line.Shared, sharedLine{ID: c.ID, Bytes: short(c.Bytes)})
		}
	}
	return line
}

// short leaves out the pools at the end that have nothing; it keeps the first, so that it is never empty.
func short(b cache.Bytes) []int64 {
	n := len(b)
	for n > 1 && b[n-1] == 0 {
		n--
	}
	return slices.Clone(b[:n])
}

// ReadTrace reads a trace file. The error names the line that is wrong.
func ReadTrace(r io.Reader) ([]cache.TraceEvent, error) {
	var out []cache.TraceEvent
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		e, err := fromLine(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	return out, nil
}

const maxTraceSeconds = 1 << 33 // the year 2242, and any duration

func fromLine(text []byte) (cache.TraceEvent, error) {
	var line traceLine
	if err := json.Unmarshal(text, &line); err != nil {
		return cache.TraceEvent{}, err
	}
	if line.Key == "" {
		return cache.TraceEvent{}, fmt.Errorf(`it has no "model"`)
	}
	for _, s := range []float64{line.T, line.WaitS, line.HeldS, line.LoadS} {
		if !(s >= 0 && s <= maxTraceSeconds) {
			return cache.TraceEvent{}, fmt.Errorf("the time %v is out of range", s)
		}
	}
	e := cache.TraceEvent{At: time.Unix(0, int64(line.T*1e9)), Key: line.Key, Waited: seconds(line.WaitS),
		Held: seconds(line.HeldS), Load: seconds(line.LoadS)}
	if line.Own == nil {
		return e, nil
	}
	var f cache.Footprint
	var err error
	if f.Own, err = long(line.Own); err != nil {
		return e, err
	}
	if f.Session, err = long(line.Session); err != nil {
		return e, err
	}
	for _, c := range line.Shared {
		b, err := long(c.Bytes)
		if err != nil {
			return e, err
		}
		f.Shared = append(f.Shared, cache.Component{ID: c.ID, Bytes: b})
	}
	e.Footprint = &f
	return e, nil
}

func seconds(s float64) time.Duration { return time.Duration(min(s, 9e9) * float64(time.Second)) }

func long(b []int64) (cache.Bytes, error) {
	var out cache.Bytes
	if len(b) > len(out) {
		return out, fmt.Errorf("bytes of %d pools; there are at most %d", len(b), len(out))
	}
	for i, n := range b {
		if n < 0 || n > 1<<50 {
			return out, fmt.Errorf("%d bytes is out of range", n)
		}
		out[i] = n
	}
	return out, nil
}
