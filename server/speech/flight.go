package speech

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
)

// mostAhead bounds the audio that a flight keeps, in bytes: some six minutes. Up to that it keeps all, so that others
// may join; beyond it what all its listeners have heard is dropped, and the work waits for the slowest of them.
const mostAhead = 32 << 20

const wordBytes = 4 // of a sample, and of a token

// flight is one generation and those who listen to it. A goroutine speaks; it stops when the last listener leaves.
type flight struct {
	ended chan struct{} // closed when the goroutine has ended

	mu        sync.Mutex
	changed   chan struct{} // closed by the next change
	cancel    context.CancelFunc
	listeners map[*listening]struct{}
	start     *Start
	parts     [][]float32 // from part number dropped on
	dropped   int
	bytes     int64 // of parts
	progress  *Progress
	over      bool
	result    Result
	err       error
}

// listening is one request's place in a flight.
type listening struct {
	next  int // part
	first bool
}

func newFlight() *flight {
	return &flight{ended: make(chan struct{}), changed: make(chan struct{}), listeners: make(map[*listening]struct{})}
}

// joinLocked adds a listener, nil if it would not hear all. The caller holds f.mu.
func (f *flight) joinLocked() *listening {
	if f.over || f.dropped > 0 || len(f.listeners) == 0 {
		return nil
	}
	l := &listening{}
	f.listeners[l] = struct{}{}
	return l
}

// leave removes a listener; the last one stops the work and waits for its end.
func (f *flight) leave(l *listening) {
	f.mu.Lock()
	delete(f.listeners, l)
	last := len(f.listeners) == 0
	f.tellLocked()
	f.mu.Unlock()
	if last {
		f.cancel()
		<-f.ended
	}
}

// tellLocked wakes those who wait for a change.
func (f *flight) tellLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// land ends the flight.
func (f *flight) land(result Result, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over, f.result, f.err = true, result, err
	f.tellLocked()
}

// made returns the whole audio, nil if it is not whole any more or of another model than the content's.
func (f *flight) made(content Content, result Result) *spoken {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dropped > 0 || result.Version != content.Version {
		return nil
	}
	result.From, result.Need = Kept, nil
	bytes := f.bytes + wordBytes*int64(len(result.Spoken.Semantic))
	for _, row := range slices.Concat(result.Spoken.Coarse, result.Spoken.Fine) {
		bytes += wordBytes * int64(len(row))
	}
	return &spoken{content: content, parts: f.parts, result: result, bytes: bytes}
}

// speak does the work; a panic is an error.
func (f *flight) speak(ctx context.Context, service *Service, req Request) (_ Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return service.Speak(ctx, req, Sink{
		Start: func(start Start) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.start = &start
			f.tellLocked()
			return nil
		},
		Audio: func(pcm []float32) error { return f.add(ctx, pcm) },
		Progress: func(at Progress) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.progress = &at
			f.tellLocked()
			return nil
		},
	})
}

// add keeps audio for the listeners; it waits while they are too far behind.
func (f *flight) add(ctx context.Context, pcm []float32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts = append(f.parts, slices.Clone(pcm))
	f.bytes += int64(len(pcm)) * wordBytes
	f.tellLocked()
	for f.bytes > mostAhead && ctx.Err() == nil {
		if f.dropLocked(); f.bytes <= mostAhead {
			break
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	return ctx.Err()
}

// dropLocked drops what every listener has heard.
func (f *flight) dropLocked() {
	heard := f.dropped + len(f.parts)
	for l := range f.listeners {
		heard = min(heard, l.next)
	}
	for ; f.dropped < heard; f.dropped++ {
		f.bytes -= int64(len(f.parts[0])) * wordBytes
		f.parts = f.parts[1:]
	}
}

// follow hands a flight's output to a sink, on the caller's goroutine, until it is over or ctx ends.
func (f *flight) follow(ctx context.Context, l *listening, sink Sink) (Result, error) {
	defer f.leave(l)
	started, reported := false, (*Progress)(nil)
	for {
		f.mu.Lock()
		start, progress, over, changed := f.start, f.progress, f.over, f.changed
		parts := slices.Clone(f.parts[l.next-f.dropped:])
		f.mu.Unlock()
		if start != nil && !started {
			started = true
			if err := tell(sink.Start, from(*start, l)); err != nil {
				return Result{}, err
			}
		}
		for _, part := range parts {
			if err := tell(sink.Audio, part); err != nil {
				return Result{}, err
			}
			f.heard(l)
		}
		if progress != reported {
			reported = progress
			if err := tell(sink.Progress, *progress); err != nil {
				return Result{}, err
			}
		}
		if over {
			result := f.result // it does not change any more
			result.Start = from(result.Start, l)
			return result, f.err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
}

// heard counts a part that a listener has had.
func (f *flight) heard(l *listening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.next++
	if f.bytes > mostAhead {
		f.tellLocked()
	}
}

func from(start Start, l *listening) Start {
	if start.From = Joined; l.first {
		start.From = Made
	}
	return start
}

func tell[T any](sink func(T) error, what T) error {
	if sink == nil {
		return nil
	}
	return sink(what)
}
