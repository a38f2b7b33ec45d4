package speech

import (
	"fmt"
	"time"

	"barkd/cgo"
)

// SilenceSeconds lies between two pieces of a long text.
const SilenceSeconds = 0.25

// LowLatency is a FineChunk of a second of Bark's 75 frames: the audio of a piece comes a second at a time.
const LowLatency = 75

// NoVoice is the voice name that asks for no voice: the model makes up a speaker.
const NoVoice = "none"

// Request is one text to speak. All that decides on its audio is a part of its JSON, from which its Content is made.
type Request struct {
	ID                string `json:"-"` // for logs and for those who wait because of it; may be empty
	Model             string
	Text              string // valid UTF-8
	Cut               Cut
	History           History
	Voice             VoiceChoice
	Seed              *uint64 // nil draws one
	Rules             cgo.Rules
	KV                cgo.KVType
	MaxSemanticTokens int // of each piece; 0 is the model's own limit
	FineChunk         int // see cgo.Request; LowLatency is a good one
	Sampling          SamplingChoice
	Priority          int           `json:"-"` // in the queue: higher goes first
	Patience          time.Duration `json:"-"` // how long it can wait for its turn; 0 is for ever
	// KeepAlive is how long the model stays in memory afterwards: 0 for the server's default, cache.Forever,
	// cache.AtOnce or a duration.
	KeepAlive time.Duration `json:"-"`
}

// History says what the pieces after the first speak on from.
type History int

// What there is.
const (
	HistoryVoice    History = iota // the request's voice, or without one the first piece
	HistoryPrevious                // the piece before: its tone goes on, and its voice may drift
)

// VoiceChoice says whose voice to speak with. The zero value is no voice.
type VoiceChoice struct {
	Name    string           // a voice of the model, an OpenAI voice name, or NoVoice
	Arrays  *cgo.VoiceArrays // or the history prompt itself
	Default bool             // with no Name: the model's default voice, if it has any
	// Stored, if set, is asked for the voice of a Name that the model itself has not, and returns its id; an error that
	// wraps cgo.ErrNotFound when there is none.
	Stored func(name string) (id string, arrays cgo.VoiceArrays, err error) `json:"-"`
}

// SamplingChoice overrides a model's sampling defaults; nil keeps them. TopK and TopP apply to the semantic and the
// coarse stage, MinEOSP to the semantic one.
type SamplingChoice struct {
	Semantic, Coarse, Fine *float32 // temperatures; 0 is greedy
	TopK                   *int32
	TopP, MinEOSP          *float32
}

// apply writes the overrides into r.
func (c SamplingChoice) apply(r *cgo.Request) {
	set(&r.Semantic.Temperature, c.Semantic)
	set(&r.Coarse.Temperature, c.Coarse)
	set(&r.Fine.Temperature, c.Fine)
	for _, s := range []*cgo.Sampling{&r.Semantic, &r.Coarse} {
		set(&s.TopK, c.TopK)
		set(&s.TopP, c.TopP)
	}
	set(&r.Semantic.MinEOSP, c.MinEOSP)
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// Sink receives a request's output on the goroutine that called Speak. Slices are valid during the call only;
// fields may be nil. An error from one of them ends the request and is returned as it is.
type Sink struct {
	Start    func(Start) error // once, when everything is decided and before any audio
	Audio    func(pcm []float32) error
	Progress func(Progress) error
}

// Start holds what is known before the first sample.
type Start struct {
	Model      string
	Version    string // of the model's image; see cgo.Source
	Trained    bool   // false: random weights, it makes noise
	SampleRate int    // Hz
	Seed       uint64
	Voice      string // the model's voice that speaks, or the id of a stored one; "" for none or for arrays
	Pieces     int
	From       Origin
	// Need tells how many seconds of audio a listener at the given speed must have in hand to begin now and never run out
	// if the work goes on as fast as this model's did under the present load. Any goroutine may ask, until Speak returns. Nil: all the audio is there.
	Need func(speed float64) float64
}

// Origin is where audio comes from.
type Origin int

// The origins.
const (
	Made   Origin = iota // this request made it
	Joined               // an equal request that ran already
	Kept                 // the audio cache
)

// Progress of one piece.
type Progress struct {
	Piece, Pieces int // Piece counts from 0
	Stage         cgo.Stage
	Done, Total   int
}

// Result of a finished request.
type Result struct {
	Start
	Stats         []cgo.Stats     // of each piece
	Samples       int64           // with the silence between pieces
	Spoken        cgo.VoiceArrays // the first piece's tokens: a voice that speaks on as it does
	Waited        time.Duration
	Elapsed       time.Duration // synthesis alone, without waiting and loading
	ModelMemory   cgo.Memory
	SessionMemory cgo.Memory
}

// AudioSeconds is the length of the audio.
func (r Result) AudioSeconds() float64 {
	if r.SampleRate == 0 {
		return 0
	}
	return float64(r.Samples) / float64(r.SampleRate)
}

// RealTimeFactor is the time spent per second of audio: below 1 is faster than speech. It is 0 without audio.
func (r Result) RealTimeFactor() float64 {
	if s := r.AudioSeconds(); s > 0 {
		return r.Elapsed.Seconds() / s
	}
	return 0
}

// QueueFullError says that as many requests wait as may, and when to come back.
type QueueFullError struct {
	Model      string // whose queue is full; "" for that of all models together
	Waiting    int
	RetryAfter time.Duration // in whole seconds
}

func (e *QueueFullError) Error() string {
	of := ""
	if e.Model != "" {
		of = fmt.Sprintf(" for the model %q", e.Model)
	}
	return fmt.Sprintf("%d requests are waiting already%s; try again in %s", e.Waiting, of, e.RetryAfter)
}

// TooLateError says that a request would wait longer than it can, and when that may have changed.
type TooLateError struct {
	Wait, Patience time.Duration
	RetryAfter     time.Duration // in whole seconds
}

func (e *TooLateError) Error() string {
	return fmt.Sprintf("the request would wait about %s for its turn, longer than its timeout of %s; try again in %s",
		e.Wait.Round(time.Second/10), e.Patience, e.RetryAfter)
}

// InputError is a mistake in the request, which its sender can correct.
type InputError struct {
	Param   string // the request's field, in the API's spelling
	Message string // one sentence
	Err     error  // the runtime's error, if there is one
}

func (e *InputError) Error() string { return e.Message }

// Unwrap returns the runtime's error.
func (e *InputError) Unwrap() error { return e.Err }
