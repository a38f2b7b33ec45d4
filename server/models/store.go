// Package models knows which models there are on this machine and how they get here: a model's id is the
// path of its GGUF file under the store's folder, without the suffix.
package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"barkd/cgo"
	"barkd/server/models/hub"
)

// DefaultID is the model that lies in the program itself and needs no file.
const DefaultID = "barkd/tiny"

const (
	suffix     = ".gguf"
	maxIDBytes = 200
)

// ErrBadID is wrapped, beside cgo.ErrInvalidArgument, by the error about a text that cannot be a model's id.
var ErrBadID = errors.New("not a model id")

// Store is a folder of model files. Its methods may be called from any goroutine, and several programs may use one
// folder: files appear in it complete or not at all.
type Store struct {
	dir string

	mu    sync.Mutex // guards known
	known map[string]knownEntry
}

// DefaultDir is where models are kept unless someone says otherwise: BARKD_MODELS, else $XDG_CACHE_HOME/barkd/models,
// else ~/.cache/barkd/models.
func DefaultDir(getenv func(string) string) (string, error) {
	if dir := getenv("BARKD_MODELS"); dir != "" {
		return dir, nil
	}
	if dir := getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "barkd", "models"), nil
	}
	if dir := getenv("HOME"); dir != "" {
		return filepath.Join(dir, ".cache", "barkd", "models"), nil
	}
	return "", errors.New("no place for models: set BARKD_MODELS, XDG_CACHE_HOME or HOME")
}

// Open returns the store in dir, or in DefaultDir of the environment if dir is empty. The folder need not exist yet:
// a server may run on the embedded model alone, on a disk that cannot be written.
func Open(dir string) (*Store, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultDir(os.Getenv); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("models folder: %w", err)
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		return nil, fmt.Errorf("models folder: %s is a file", dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("models folder: %w", err)
	}
	return &Store{dir: dir, known: map[string]knownEntry{}}, nil
}

// Dir returns the store's folder.
func (s *Store) Dir() string { return s.dir }

// One part of an id: no hidden file, no "..", nothing a file system or a URL reads in its own way.
var idPart = regexp.MustCompile(`^[0-9A-Za-z_](?:[0-9A-Za-z._+-]{0,98}[0-9A-Za-z_+-])?$`)

// CheckID says why id cannot be a model's. Ids come from requests: whatever passes stays inside the store.
func CheckID(id string) error {
	parts := strings.Split(id, "/")
	ok := len(id) <= maxIDBytes && len(parts) <= 4 && !strings.Contains(id, "..") && !strings.HasSuffix(id, suffix)
	for _, p := range parts {
		ok = ok && idPart.MatchString(p)
	}
	if !ok {
		if len(id) > maxIDBytes {
			id = strings.ToValidUTF8(id[:maxIDBytes], "") + "…"
		}
		return fmt.Errorf("%w: %w: %q; an id looks like suno/bark-small", cgo.ErrInvalidArgument, ErrBadID, id)
	}
	return nil
}

// Path returns where the model's file is, or would be.
func (s *Store) Path(id string) (string, error) {
	if err := CheckID(id); err != nil {
		return "", err
	}
	if id == DefaultID {
		return "", fmt.Errorf("%w: %s is part of the program and has no file", cgo.ErrInvalidArgument, id)
	}
	return filepath.Join(s.dir, filepath.FromSlash(id)+suffix), nil
}

// Resolve returns the source of the model with that id. It opens nothing outside the store, so an id may come from
// anyone. The error for a model that is not there wraps cgo.ErrNotFound and names the command that brings it.
func (s *Store) Resolve(id string) (cgo.Source, error) {
	if id == DefaultID {
		return cgo.Source{Name: id, Embedded: true, Version: "embedded"}, nil
	}
	path, err := s.Path(id)
	if err != nil {
		return cgo.Source{}, err
	}
	version, err := checkFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return cgo.Source{}, notHere(id)
		}
		return cgo.Source{}, fmt.Errorf("model %q: %w", id, err)
	}
	return cgo.Source{Name: id, Path: path, Version: version}, nil
}

func notHere(id string) error {
	how := ""
	if hub.CheckID(id) == nil {
		how = fmt.Sprintf("; `barkd pull %s` brings it", id)
	}
	return fmt.Errorf("%w: model %q is not on this machine%s", cgo.ErrNotFound, id, how)
}

// ResolveArgument is Resolve for the person at the command line, who may also name a file: anything that ends in
// .gguf. It is not for requests.
func (s *Store) ResolveArgument(arg string) (cgo.Source, error) {
	if !strings.HasSuffix(arg, suffix) {
		return s.Resolve(arg)
	}
	version, err := checkFile(arg)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return cgo.Source{}, fmt.Errorf("%w: there is no file %s", cgo.ErrNotFound, arg)
		}
		return cgo.Source{}, err
	}
	return cgo.Source{Name: arg, Path: arg, Version: version}, nil
}

// checkFile makes sure that path is a regular file; a directory or a pipe of that name would only fail later. The
// version is its size and time.
func checkFile(path string) (version string, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%w: %s is not a file", cgo.ErrBadModel, path)
	}
	return fmt.Sprintf("%d-%d", st.Size(), st.ModTime().UnixNano()), nil
}

// Remove deletes the model's file. A server that has it loaded keeps it until it unloads it.
func (s *Store) Remove(id string) error {
	path, err := s.Path(id)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return notHere(id)
		}
		return fmt.Errorf("remove model %q: %w", id, err)
	}
	_ = os.Remove(s.hidden(id, ".json"))
	// The organisation's folder goes with its last model; that it still holds others is no error.
	for dir := filepath.Dir(path); dir != s.dir && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
		continue
	}
	return nil
}
