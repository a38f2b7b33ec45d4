// Package voices keeps the voices that people made: history prompts, each in one .npz file of one folder, with what is
// known about it in the archive's comment. The folder is the truth: there is no index, so that several programs may
// use it at once, and an .npz from elsewhere that is put into it is a voice, too.
package voices

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"

	"barkd/cgo"
	"barkd/server/models/voicefile"
)

// What callers branch on, beside cgo.ErrNotFound and cgo.ErrInvalidArgument.
var (
	ErrExists = errors.New("the name is taken")
	ErrFull   = errors.New("the store of voices is full")
)

// MaxBytes bounds one voice's file. The longest of suno's presets takes a tenth of it.
const MaxBytes = 1 << 20

const maxName = 100 // runes

// Voice is what is known of a stored voice, beside its arrays.
type Voice struct {
	ID      string
	Name    string
	Created time.Time
	Origin  Origin
	Model   string // whose codes they are, "" if nobody said
	Consent string // what the uploader said about the speaker's consent; recorded, not checked
	Bytes   int64  // of the file
}

// Origin says how a voice came to be.
type Origin string

// The origins.
const (
	Uploaded  Origin = "audio_sample" // OpenAI's name of a voice that was sent
	Generated Origin = "generation"   // kept from speech that this server made
)

// Limits of a store.
type Limits struct {
	Voices int
	Bytes  int64 // of all files
}

// idForm is what an id looks like: a file name that means nothing else to a file system, a shell or a URL.
var idForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$`)

// CheckName says why a name cannot be a voice's.
func CheckName(name string) error {
	n := utf8.RuneCountInString(name)
	ok := utf8.ValidString(name) && n > 0 && n <= maxName
	for i, r := range []rune(name) {
		ok = ok && unicode.IsPrint(r) && !(r == ' ' && (i == 0 || i == n-1))
	}
	if !ok {
		return fmt.Errorf("%w: a voice's name has 1 to %d printable characters and no space at either end", cgo.ErrInvalidArgument, maxName)
	}
	return nil
}

// CheckShape says why arrays are no voice of any model. Whether they are one of a certain model is for the model to say.
func CheckShape(v cgo.VoiceArrays) error {
	for _, part := range []struct {
		name string
		rows [][]int32
	}{{"semantic", [][]int32{v.Semantic}}, {"coarse", v.Coarse}, {"fine", v.Fine}} {
		if len(part.rows) == 0 || len(part.rows[0]) == 0 {
			return fmt.Errorf("%w: the voice has no %s codes", cgo.ErrInvalidArgument, part.name)
		}
		for i, row := range part.rows {
			if len(row) != len(part.rows[0]) {
				return fmt.Errorf("%w: the voice's %s codebook 0 has %d frames, codebook %d has %d", cgo.ErrInvalidArgument, part.name, len(part.rows[0]), i, len(row))
			}
			for j, code := range row {
				if code < 0 {
					return fmt.Errorf("%w: the voice's %s value %d at codebook %d, position %d is less than 0", cgo.ErrInvalidArgument, part.name, code, i, j)
				}
			}
		}
	}
	if len(v.Coarse) > len(v.Fine) {
		return fmt.Errorf("%w: the voice has %d coarse codebooks but %d fine ones; the coarse ones are the first of the fine", cgo.ErrInvalidArgument, len(v.Coarse), len(v.Fine))
	}
	return nil
}

// DefaultDir is where voices are kept unless someone says otherwise: $XDG_DATA_HOME/barkd/voices, else
// ~/.local/share/barkd/voices.
func DefaultDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "barkd", "voices"), nil
	}
	if dir := getenv("HOME"); dir != "" {
		return filepath.Join(dir, ".local", "share", "barkd", "voices"), nil
	}
	return "", errors.New("no place for voices: set VOICES_DIR, XDG_DATA_HOME or HOME")
}

func notFound(what string) error {
	return fmt.Errorf("%w: there is no stored voice %q", cgo.ErrNotFound, what)
}

func fileName(id string) string { return id + voicefile.Suffix }
