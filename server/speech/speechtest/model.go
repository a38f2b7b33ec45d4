// Package speechtest has a runtime for tests of what lies above it: it speaks at once, remembers what it was asked
// and can be told to fail or to wait.
package speechtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"barkd/cgo"
)

// SamplesPerRune is the audio of one rune of text: about as long as it takes to say.
const SamplesPerRune = 1600

// Model is a fake cgo.Model. Its fields are set before it is used.
type Model struct {
	Facts   cgo.ModelInfo
	Version string // of its image
	// Work, if set, runs in the middle of each Synthesize; its error ends the request.
	Work func(ctx context.Context, req cgo.Request) error
	// Refuse, if set, is asked before a session is made; its error is NewSession's.
	Refuse func() error
	// BadVoice makes NewVoice refuse what a piece said.
	BadVoice bool
	// Rune is the audio of one rune of text in samples; NewModel sets SamplesPerRune.
	Rune int

	sessions, voices atomic.Int64 // live

	mu       sync.Mutex
	requests []cgo.Request
	caches   []cgo.KVType
}

// NewModel returns a trained model with a 256-token text limit and the given voices.
func NewModel(name string, voices ...string) *Model {
	return &Model{Rune: SamplesPerRune, Facts: cgo.ModelInfo{
		Name: name, Trained: true, SampleRate: 24000, HopLength: 320, MaxTextTokens: 256, MaxSemanticTokens: 768,
		CoarseCodebooks: 2, FineCodebooks: 8, SemanticRateHz: 49.9, CoarseRateHz: 75, Voices: voices,
	}}
}

// Requests returns what the sessions were asked, in order.
func (m *Model) Requests() []cgo.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.requests)
}

// Caches returns the types of the sessions' key-value caches, in order.
func (m *Model) Caches() []cgo.KVType {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.caches)
}

// Live returns the numbers of sessions and voices that are not closed.
func (m *Model) Live() (sessions, voices int64) { return m.sessions.Load(), m.voices.Load() }

// Info implements cgo.Model.
func (m *Model) Info() cgo.ModelInfo { return m.Facts }

// Tokenize makes a token of each word and of each four runes of a longer one; control characters are none.
func (m *Model) Tokenize(_ cgo.Rules, text string) ([]int32, error) {
	var ids []int32
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		for i := 0; i < len([]rune(word)); i += 4 {
			ids = append(ids, int32(len(ids)))
		}
	}
	return ids, nil
}

// Defaults implements cgo.Model with suno's numbers.
func (m *Model) Defaults(rules cgo.Rules) (cgo.Request, error) {
	return cgo.Request{
		Rules:    rules,
		Semantic: cgo.Sampling{Temperature: 0.7, TopP: 1, MinEOSP: 0.2},
		Coarse:   cgo.Sampling{Temperature: 0.7, TopP: 1},
		Fine:     cgo.Sampling{Temperature: 0.5, TopP: 1},
	}, nil
}

// Voice implements cgo.Model.
func (m *Model) Voice(name string) (cgo.Voice, error) {
	if !slices.Contains(m.Facts.Voices, name) {
		return nil, fmt.Errorf("voice %q: %w", name, cgo.ErrNotFound)
	}
	m.voices.Add(1)
	return &Voice{Name: name, model: m}, nil
}

// NewVoice implements cgo.Model.
func (m *Model) NewVoice(arrays cgo.VoiceArrays) (cgo.Voice, error) {
	if m.BadVoice || len(arrays.Semantic) == 0 {
		return nil, fmt.Errorf("voice of %d semantic tokens: %w", len(arrays.Semantic), cgo.ErrInvalidArgument)
	}
	m.voices.Add(1)
	return &Voice{Arrays: arrays, model: m}, nil
}

// NewSession implements cgo.Model.
func (m *Model) NewSession(opts cgo.SessionOptions) (cgo.Session, error) {
	if m.Refuse != nil {
		if err := m.Refuse(); err != nil {
			return nil, err
		}
	}
	m.sessions.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.caches = append(m.caches, opts.KV)
	return &session{model: m}, nil
}

// Memory implements cgo.Model.
func (m *Model) Memory() cgo.Memory {
	return cgo.Memory{WeightsBytes: 1 << 20, TotalBytes: 1 << 20, PeakBytes: 1 << 20}
}

// Components implements cgo.Model: it shares nothing.
func (m *Model) Components() []cgo.Component { return nil }

// Account implements cgo.Model: it counts the sessions alone, as Close takes nothing away.
func (m *Model) Account() cgo.Account { return account{m} }

type account struct{ model *Model }

func (a account) Live() int64 { return a.model.sessions.Load() << 10 }

// Close implements cgo.Model.
func (m *Model) Close() error { return nil }

// Voice is a fake cgo.Voice: a name or arrays.
type Voice struct {
	Name   string
	Arrays cgo.VoiceArrays
	model  *Model
}

// Close implements cgo.Voice.
func (v *Voice) Close() error {
	v.model.voices.Add(-1)
	return nil
}

type session struct{ model *Model }

func (s *session) Memory() cgo.Memory {
	return cgo.Memory{KVBytes: 1 << 10, TotalBytes: 1 << 10, PeakBytes: 1 << 10}
}

func (s *session) Close() error {
	s.model.sessions.Add(-1)
	return nil
}

// Synthesize says SamplesPerRune samples a rune, all 0.5, in two calls; its semantic tokens are the text's runes.
func (s *session) Synthesize(ctx context.Context, req cgo.Request, sink cgo.Sink) (cgo.Stats, error) {
	s.model.mu.Lock()
	s.model.requests = append(s.model.requests, req)
	s.model.mu.Unlock()
	n := len([]rune(req.Text))
	if err := sendTokens(sink, req.Text, n); err != nil {
		return cgo.Stats{}, err
	}
	if s.model.Work != nil {
		if err := s.model.Work(ctx, req); err != nil {
			return cgo.Stats{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return cgo.Stats{}, err
	}
	if err := s.sendAudio(sink, n*s.model.Rune); err != nil {
		return cgo.Stats{}, err
	}
	return cgo.Stats{TextTokens: n, SemanticTokens: n, Samples: int64(n * s.model.Rune), StageMS: [4]float64{1, 2, 3, 4}}, nil
}

func (s *session) sendAudio(sink cgo.Sink, samples int) error {
	frames := int64(samples / s.model.Facts.HopLength)
	for done := int64(1); done <= 2; done++ {
		if sink.Audio != nil {
			if err := sink.Audio(slices.Repeat([]float32{0.5}, samples/2)); err != nil {
				return err
			}
		}
		if sink.Progress != nil {
			if err := sink.Progress(cgo.StageCodec, frames*done/2, frames); err != nil {
				return err
			}
		}
	}
	return nil
}

func sendTokens(sink cgo.Sink, text string, n int) error {
	if sink.Progress != nil {
		if err := sink.Progress(cgo.StageSemantic, int64(n), int64(n)); err != nil {
			return err
		}
	}
	if sink.Tokens == nil {
		return nil
	}
	if err := sink.Tokens(cgo.StageSemantic, []int32([]rune(text)), 1, n); err != nil {
		return err
	}
	if err := sink.Tokens(cgo.StageCoarse, make([]int32, 2*n), 2, n); err != nil {
		return err
	}
	return sink.Tokens(cgo.StageFine, make([]int32, 8*n), 8, n)
}
