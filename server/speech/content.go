package speech

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"barkd/cgo"
)

// Content names audio by what it is made of: requests of equal content make the same audio, bit for bit.
type Content struct {
	Version string // of the model's image; see cgo.Source
	Sum     string // SHA-256 of all else, in hexadecimal
}

// content returns a request's content. voices are the model's.
func (r Request) content(version string, voices []string) (Content, error) {
	if err := checkText(r); err != nil {
		return Content{}, err
	}
	name, arrays, err := r.Voice.resolve(cgo.ModelInfo{Name: r.Model, Voices: voices})
	if err != nil {
		return Content{}, err
	}
	if SpokenSeconds(r.Text) <= earlySeconds && len(sentences(r.Text)) == 1 {
		r.Cut = CutNeeded // there is nothing to cut
	}
	r.Voice = VoiceChoice{Name: name, Arrays: arrays}
	text, err := json.Marshal(r)
	if err != nil { // a number that is none
		return Content{}, fmt.Errorf("content of a request: %w", err)
	}
	sum := sha256.Sum256(text)
	return Content{Version: version, Sum: hex.EncodeToString(sum[:])}, nil
}

// flightKey is what requests must have in common to be one: the content, and what else the work depends on.
type flightKey struct {
	content   Content
	keepAlive time.Duration
	patience  time.Duration
	priority  int
}
