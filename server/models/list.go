package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"barkd/cgo"
	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

// Entry is one model of the store, as its file's metadata tells it.
type Entry struct {
	ID       string
	Path     string
	Bytes    int64
	Modified time.Time
	Trained  bool   // false: random weights, it makes noise
	Type     string // of the matrices: f32, bf16, f16, q8 or q4
	Voices   []string
	Embedded bool  // the default in the program: only ID is set, the runtime knows the rest
	Err      error // why the file cannot be read; then what the metadata tells is unset
}

// knownEntry is what was read of a file, kept while its size and time stay: a vocabulary has 120 000 entries to pass.
type knownEntry struct {
	bytes    int64
	modified time.Time
	entry    Entry
}

// List returns the embedded default and every model file, sorted by id. A file that cannot be read is listed with its
// error: it must not hide the others.
func (s *Store) List() ([]Entry, error) {
	entries := []Entry{{ID: DefaultID, Embedded: true}}
	err := fs.WalkDir(os.DirFS(s.dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if name == "." {
				return err
			}
			return nil // one closed folder
		}
		if d.IsDir() {
			if name != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		id, ok := strings.CutSuffix(name, suffix)
		if !ok || id == DefaultID || CheckID(id) != nil {
			return nil
		}
		if entry, ok := s.entry(id); ok {
			entries = append(entries, entry)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list models: %w", err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	return entries, nil
}

// Find returns one model. The error wraps cgo.ErrNotFound where there is none, as Resolve's does; a file that cannot be
// read is an error here.
func (s *Store) Find(id string) (Entry, error) {
	src, err := s.Resolve(id)
	if err != nil {
		return Entry{}, err
	}
	if src.Embedded {
		return Entry{ID: id, Embedded: true}, nil
	}
	entry, ok := s.entry(id)
	if !ok {
		return Entry{}, notHere(id)
	}
	return entry, entry.Err
}

// entry reads one file's metadata, or remembers it; false if the file went away meanwhile.
func (s *Store) entry(id string) (Entry, bool) {
	path := filepath.Join(s.dir, filepath.FromSlash(id)+suffix)
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return Entry{}, false
	}
	s.mu.Lock()
	known, ok := s.known[id]
	s.mu.Unlock()
	if ok && known.bytes == st.Size() && known.modified.Equal(st.ModTime()) {
		known.entry.Voices = slices.Clone(known.entry.Voices)
		return known.entry, true
	}
	e := Entry{ID: id, Path: path, Bytes: st.Size(), Modified: st.ModTime()}
	e.Err = e.read()
	s.mu.Lock()
	s.known[id] = knownEntry{bytes: st.Size(), modified: st.ModTime(), entry: e}
	s.mu.Unlock()
	e.Voices = slices.Clone(e.Voices)
	return e, true
}

// read fills in what the file's metadata tells.
func (e *Entry) read() error {
	f, err := gguf.Open(e.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", cgo.ErrBadModel, err)
	}
	defer f.Close()
	if a := f.Metadata.String("general.architecture"); a != "bark" {
		return fmt.Errorf("%w: %s is a model of architecture %q, not bark", cgo.ErrBadModel, e.Path, a)
	}
	e.Trained = f.Metadata.Bool("bark.trained")
	e.Voices = f.Metadata.Strings("bark.voices")
	e.Type = matrixType(f)
	return nil
}

// matrixType names the type of the matrices, which one of the semantic stage stands for: in a small model the codec,
// always f32, is the larger part.
func matrixType(f *gguf.File) string {
	const matrix = "semantic.h.0.mlp.c_proj.weight" // the first one that 4-bit tiles fit
	t, ok := f.Find(matrix)
	switch {
	case !ok:
		return ""
	case t.Type != gguf.I8:
		return t.Type.String()
	}
	if _, scaled := f.Find(schema.ScaleName(matrix)); scaled {
		return string(schema.Q8)
	}
	return string(schema.Q4)
}
