package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/server/models/atomicfile"
)

// maxDemandBytes bounds the file that is read: it holds at most as many models as the cache remembers.
const maxDemandBytes = 1 << 20

// readDemand reads the access pattern that an earlier run left. Without one the server starts as if it were new.
func readDemand(path string, log zerolog.Logger) []cache.Demand {
	if path == "" {
		return nil
	}
	st, err := os.Stat(path)
	if err == nil && st.Size() > maxDemandBytes {
		err = fmt.Errorf("it has %d bytes, more than any access pattern", st.Size())
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	var demand []cache.Demand
	if err == nil {
		err = json.Unmarshal(text, &demand)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn().Str("file", path).Err(err).Msg("the access pattern of earlier runs cannot be read; it begins anew")
	}
	return cache.ValidDemand(demand)
}

// writeDemand keeps the access pattern for the next start. A disk that does not take it is no reason to stop.
func writeDemand(path string, demand []cache.Demand, log zerolog.Logger) {
	if path == "" || len(demand) == 0 {
		return
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = atomicfile.Write(path, func(f *os.File) error { return json.NewEncoder(f).Encode(demand) })
	}
	if err != nil {
		log.Debug().Str("file", path).Err(err).Msg("the access pattern is not kept")
	}
}

// traceFile records the cache's requests.
type traceFile struct {
	file   *os.File
	writer *cgo.TraceWriter
}

// openTrace appends to a trace file; no path is no trace.
func openTrace(path string) (*traceFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("CACHE_TRACE: %w", err)
	}
	return &traceFile{file: f, writer: cgo.NewTraceWriter(f)}, nil
}

// add is what the pool calls; nil for no trace.
func (t *traceFile) add() func(cache.TraceEvent) {
	if t == nil {
		return nil
	}
	return t.writer.Add
}

func (t *traceFile) close() error {
	if t == nil {
		return nil
	}
	return errors.Join(t.writer.Close(), t.file.Close())
}
