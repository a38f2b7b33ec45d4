package voices

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"barkd/cgo"
	"barkd/server/models/atomicfile"
	"barkd/server/models/voicefile"
)

// Store is a folder of voices. Its methods may be called from any goroutine, and several programs may use one folder:
// files appear in it complete or not at all, and who holds a voice's arrays keeps them when it is removed.
type Store struct {
	dir    string
	limits Limits

	mu    sync.Mutex // guards known
	known map[string]knownVoice
}

// knownVoice is what was read of a file, kept while its size and time stay.
type knownVoice struct {
	modified time.Time
	voice    Voice
}

// Open returns the store in dir, which need not exist yet.
func Open(dir string, limits Limits) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("voices folder: %w", err)
	}
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("voices folder: %s is a file", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("voices folder: %w", err)
	}
	return &Store{dir: dir, limits: limits, known: map[string]knownVoice{}}, nil
}

// List returns the voices, the oldest first. A file that is no voice is left out: it must not hide the others.
func (s *Store) List() ([]Voice, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list voices: %w", err)
	}
	var all []Voice
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), voicefile.Suffix)
		if !ok || !idForm.MatchString(id) {
			continue
		}
		if v, err := s.describe(id); err == nil {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b Voice) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID)) })
	return all, nil
}

// Find returns what is known of the voice with that id or, if there is none, that name. The error wraps
// cgo.ErrNotFound when there is neither.
func (s *Store) Find(idOrName string) (Voice, error) {
	if v, err := s.Get(idOrName); !errors.Is(err, cgo.ErrNotFound) {
		return v, err
	}
	all, err := s.List()
	if err != nil {
		return Voice{}, err
	}
	if i := slices.IndexFunc(all, func(v Voice) bool { return v.Name == idOrName }); i >= 0 {
		return all[i], nil
	}
	return Voice{}, notFound(idOrName)
}

// Lookup finds a voice as Find does and returns its id and its arrays.
func (s *Store) Lookup(idOrName string) (id string, arrays cgo.VoiceArrays, err error) {
	v, err := s.Find(idOrName)
	if err != nil {
		return "", cgo.VoiceArrays{}, err
	}
	arrays, err = s.Arrays(v.ID)
	return v.ID, arrays, err
}

// Get returns what is known of the voice with that id; the error wraps cgo.ErrNotFound when there is none.
func (s *Store) Get(id string) (Voice, error) {
	if !idForm.MatchString(id) {
		return Voice{}, notFound(id)
	}
	return s.describe(id)
}

// Arrays reads a voice.
func (s *Store) Arrays(id string) (cgo.VoiceArrays, error) {
	if !idForm.MatchString(id) {
		return cgo.VoiceArrays{}, notFound(id)
	}
	content, err := s.read(id)
	if err != nil {
		return cgo.VoiceArrays{}, err
	}
	arrays, err := voicefile.ReadNPZ(bytes.NewReader(content), int64(len(content)))
	if err == nil {
		err = CheckShape(arrays)
	}
	if err != nil {
		return cgo.VoiceArrays{}, fmt.Errorf("%w: the stored voice %q: %w", cgo.ErrInvalidArgument, id, err)
	}
	return arrays, nil
}

// stat looks at a voice's file.
func (s *Store) stat(id string) (fs.FileInfo, error) {
	st, err := os.Stat(filepath.Join(s.dir, fileName(id)))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound(id)
	case err != nil:
		return nil, fmt.Errorf("voice %q: %w", id, err)
	case !st.Mode().IsRegular() || st.Size() > MaxBytes:
		return nil, fmt.Errorf("%w: voice %q is no file of at most %d bytes", cgo.ErrInvalidArgument, id, MaxBytes)
	}
	return st, nil
}

// read reads a voice's file whole.
func (s *Store) read(id string) ([]byte, error) {
	if _, err := s.stat(id); err != nil { // before a pipe can hold it up
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(s.dir, fileName(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(id)
	}
	return content, err
}

// note is the archive's comment. A file from elsewhere has none: its id is its name.
type note struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Origin  Origin    `json:"origin"`
	Model   string    `json:"model,omitempty"`
	Consent string    `json:"consent,omitempty"`
}

// describe reads the note of a file, or remembers it.
func (s *Store) describe(id string) (Voice, error) {
	st, err := s.stat(id)
	if err != nil {
		return Voice{}, err
	}
	s.mu.Lock()
	known, ok := s.known[id]
	s.mu.Unlock()
	if ok && known.voice.Bytes == st.Size() && known.modified.Equal(st.ModTime()) {
		return known.voice, nil
	}
	content, err := s.read(id)
	if err != nil {
		return Voice{}, err
	}
	text, err := voicefile.ReadNote(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return Voice{}, fmt.Errorf("%w: voice %q: %w", cgo.ErrInvalidArgument, id, err)
	}
	v := Voice{ID: id, Name: id, Created: st.ModTime(), Origin: Uploaded, Bytes: st.Size()}
	var n note
	if json.Unmarshal([]byte(text), &n) == nil && CheckName(n.Name) == nil {
		v.Name, v.Created, v.Origin, v.Model, v.Consent = n.Name, n.Created, n.Origin, n.Model, n.Consent
	}
	s.mu.Lock()
	s.known[id] = knownVoice{st.ModTime(), v}
	s.mu.Unlock()
	return v, nil
}

// Add stores a voice under an id of its own; v's ID, Created and Bytes are set by it. The error wraps
// cgo.ErrInvalidArgument, ErrExists or ErrFull when the voice's sender can do something about it.
func (s *Store) Add(v Voice, arrays cgo.VoiceArrays) (Voice, error) {
	if err := errors.Join(CheckName(v.Name), CheckShape(arrays)); err != nil {
		return Voice{}, err
	}
	v.ID, v.Created = newID(), time.Now().UTC().Truncate(time.Second)
	text, err := json.Marshal(note{Name: v.Name, Created: v.Created, Origin: v.Origin, Model: v.Model, Consent: v.Consent})
	if err != nil {
		return Voice{}, fmt.Errorf("voice: %w", err)
	}
	var file bytes.Buffer
	if err := voicefile.WriteNPZ(&file, arrays, string(text)); err != nil {
		return Voice{}, fmt.Errorf("voice: %w", err)
	}
	if v.Bytes = int64(file.Len()); v.Bytes > MaxBytes {
		return Voice{}, fmt.Errorf("%w: the voice takes %d bytes, more than %d", cgo.ErrInvalidArgument, v.Bytes, MaxBytes)
	}
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return Voice{}, fmt.Errorf("voices folder: %w", err)
	}
	// The lock spans looking for room and taking it, against other programs as well.
	lock := flock.New(filepath.Join(s.dir, ".lock"))
	if err := lock.Lock(); err != nil {
		return Voice{}, fmt.Errorf("voices folder: %w", err)
	}
	defer lock.Close()
	if err := s.room(v); err != nil {
		return Voice{}, err
	}
	return v, atomicfile.Write(filepath.Join(s.dir, fileName(v.ID)), func(f *os.File) error {
		_, err := f.Write(file.Bytes())
		return err
	})
}

// room says why a voice cannot be added.
func (s *Store) room(v Voice) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	bytes := v.Bytes
	for _, other := range all {
		bytes += other.Bytes
		if other.Name == v.Name || other.ID == v.Name {
			return fmt.Errorf("%w: the voice %s has the name %q", ErrExists, other.ID, v.Name)
		}
	}
	if len(all) >= s.limits.Voices {
		return fmt.Errorf("%w: it has %d voices, as many as it may", ErrFull, len(all))
	}
	if bytes > s.limits.Bytes {
		return fmt.Errorf("%w: it would take %d bytes and may take %d", ErrFull, bytes, s.limits.Bytes)
	}
	return nil
}

// newID draws an id that nobody guesses, in the form of OpenAI's.
func newID() string {
	random := make([]byte, 15)
	rand.Read(random) // it never fails
	return "voice_" + strings.ToLower(base32.StdEncoding.EncodeToString(random))
}

// Remove deletes a voice; the error wraps cgo.ErrNotFound when there is none of that id.
func (s *Store) Remove(id string) error {
	if !idForm.MatchString(id) {
		return notFound(id)
	}
	s.mu.Lock()
	delete(s.known, id)
	s.mu.Unlock()
	err := os.Remove(filepath.Join(s.dir, fileName(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(id)
	}
	if err != nil {
		return fmt.Errorf("remove voice %q: %w", id, err)
	}
	return nil
}
