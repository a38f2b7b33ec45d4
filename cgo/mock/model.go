package mock

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"barkd/cgo"
)

type model struct {
	handle
	runtime *Runtime
	shape   shape
	device  int
}

func newModel(r *Runtime, s shape, device int) *model {
	m := &model{runtime: r, shape: s, device: device}
	m.open(r.newAccount(s, device), "model "+s.id, cgo.Memory{})
	return m
}

// Components implements cgo.Model.
func (m *model) Components() []cgo.Component { return m.shape.components() }

// Account implements cgo.Model.
func (m *model) Account() cgo.Account { return m.account }

// Info implements cgo.Model.
func (m *model) Info() cgo.ModelInfo {
	s := m.shape
	return cgo.ModelInfo{
		Name: s.id, Trained: s.trained, SampleRate: sampleRate, HopLength: int(s.hopLength),
		MaxTextTokens: int(s.maxText), MaxSemanticTokens: int(s.maxSemantic), CoarseCodebooks: nCoarse, FineCodebooks: nFine,
		SemanticRateHz: semanticRateHz, CoarseRateHz: coarseRateHz, Voices: voices(),
	}
}

const vocabulary = 119547 // of the published models

// Tokenize implements cgo.Model. It splits like the real tokenizer, punctuation apart and long words in pieces, and
// numbers the pieces by their hash.
func (m *model) Tokenize(rules cgo.Rules, text string) ([]int32, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return tokenize(rules, text)
}

func tokenize(rules cgo.Rules, text string) ([]int32, error) {
	if err := checkRules(rules); err != nil {
		return nil, err
	}
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return nil, fmt.Errorf("%w: the text is not UTF-8 at byte %d", cgo.ErrInvalidArgument, i)
			}
		}
	}
	words := strings.FieldsFunc(strings.Map(cleaned, text), unicode.IsSpace)
	if len(words) == 0 && rules == cgo.RulesSuno {
		return nil, fmt.Errorf("%w: the text is empty", cgo.ErrInvalidArgument)
	}
	ids := []int32{}
	for _, word := range words {
		piece := ""
		for _, r := range word {
			if unicode.IsPunct(r) || utf8.RuneCountInString(piece) == 6 {
				ids = appendID(ids, piece)
				piece = ""
			}
			if unicode.IsPunct(r) {
				ids = appendID(ids, string(r))
			} else {
				piece += string(r)
			}
		}
		ids = appendID(ids, piece)
	}
	return ids, nil
}

// cleaned drops control characters and keeps white space.
func cleaned(r rune) rune {
	if unicode.IsSpace(r) {
		return ' '
	}
	if unicode.Is(unicode.C, r) || r == utf8.RuneError {
		return -1
	}
	return r
}

func appendID(ids []int32, piece string) []int32 {
	if piece == "" {
		return ids
	}
	return append(ids, int32(106+hash(piece)%(vocabulary-106)))
}

func hash(parts ...any) uint64 {
	h := fnv.New64a()
	for _, part := range parts {
		fmt.Fprint(h, part, "\x00")
	}
	return h.Sum64()
}

func checkRules(rules cgo.Rules) error {
	if rules != cgo.RulesSuno && rules != cgo.RulesHF {
		return fmt.Errorf("%w: rules %d; there are 0 (suno) and 1 (hf)", cgo.ErrInvalidArgument, rules)
	}
	return nil
}

// Defaults implements cgo.Model.
func (m *model) Defaults(rules cgo.Rules) (cgo.Request, error) {
	if err := m.check(); err != nil {
		return cgo.Request{}, err
	}
	if err := checkRules(rules); err != nil {
		return cgo.Request{}, err
	}
	req := cgo.Request{
		Rules:    rules,
		Semantic: cgo.Sampling{Temperature: 0.7, TopP: 1, MinEOSP: 0.2},
		Coarse:   cgo.Sampling{Temperature: 0.7, TopP: 1},
		Fine:     cgo.Sampling{Temperature: 0.5, TopP: 1},
	}
	if rules == cgo.RulesHF {
		req.Semantic = cgo.Sampling{Temperature: 0.7, TopP: 1, TopK: 50}
		req.Coarse = cgo.Sampling{Temperature: 0.7, TopP: 1, TopK: 50}
	}
	return req, nil
}

// A voice is the pitch and the timbre of the tones, drawn from its name or its arrays.
type voice struct {
	handle
	model    *model
	identity uint64
}

// Voice implements cgo.Model.
func (m *model) Voice(name string) (cgo.Voice, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("%w: voice name %q contains a NUL byte", cgo.ErrInvalidArgument, name)
	}
	if !slices.Contains(voices(), name) {
		return nil, fmt.Errorf("%w: model %s has no voice %q; it has %s", cgo.ErrNotFound, m.shape.id, name,
			strings.Join(voices(), ", "))
	}
	return m.newVoice(hash(name), voiceCodes)
}

// NewVoice implements cgo.Model.
func (m *model) NewVoice(arrays cgo.VoiceArrays) (cgo.Voice, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if len(arrays.Semantic) == 0 {
		return nil, fmt.Errorf("%w: the voice has no semantic tokens; it needs at least one", cgo.ErrInvalidArgument)
	}
	if err := checkCodes("semantic", [][]int32{arrays.Semantic}, 1, int32(m.shape.semanticCodes)); err != nil {
		return nil, err
	}
	if err := checkCodes("coarse", arrays.Coarse, nCoarse, codebookSize); err != nil {
		return nil, err
	}
	if err := checkCodes("fine", arrays.Fine, nFine, codebookSize); err != nil {
		return nil, err
	}
	codes := len(arrays.Semantic) + len(arrays.Coarse)*len(arrays.Coarse[0]) + len(arrays.Fine)*len(arrays.Fine[0])
	return m.newVoice(hash(arrays.Semantic, arrays.Coarse, arrays.Fine), int64(codes))
}

func (m *model) newVoice(identity uint64, codes int64) (*voice, error) {
	v := &voice{model: m, identity: identity}
	taken := sum(cgo.Memory{TablesBytes: codes * i32})
	if err := m.account.join(taken); err != nil {
		return nil, err
	}
	v.open(m.account, "voice", taken)
	return v, nil
}

func checkCodes(what string, rows [][]int32, want int, end int32) error {
	if len(rows) != want || len(rows[0]) == 0 {
		return fmt.Errorf("%w: the voice's %s codes are %d codebooks; this model needs %d with at least one frame",
			cgo.ErrInvalidArgument, what, len(rows), want)
	}
	for i, row := range rows {
		if len(row) != len(rows[0]) {
			return fmt.Errorf("%w: %s codebook 0 has %d frames, codebook %d has %d", cgo.ErrInvalidArgument, what,
				len(rows[0]), i, len(row))
		}
		for j, code := range row {
			if code < 0 || code >= end {
				return fmt.Errorf("%w: the voice's %s value %d at codebook %d, position %d is outside 0 .. %d",
					cgo.ErrInvalidArgument, what, code, i, j, end-1)
			}
		}
	}
	return nil
}

// Memory implements cgo.Model.
func (m *model) Memory() cgo.Memory {
	if m.check() != nil {
		return cgo.Memory{}
	}
	return m.shape.modelMemory()
}

// NewSession implements cgo.Model.
func (m *model) NewSession(opts cgo.SessionOptions) (cgo.Session, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := checkKV(opts.KV); err != nil {
		return nil, err
	}
	m.runtime.mayLose(DeviceLostInSession, m.shape.id, m.device)
	if err := m.runtime.checkLost(m.device); err != nil {
		return nil, err
	}
	if _, ok := m.runtime.fault(SessionOutOfMemory, m.shape.id); ok {
		return nil, fmt.Errorf("%w: no room for a session of model %s by the fault plan", cgo.ErrOutOfMemory, m.shape.id)
	}
	s := &session{model: m, kv: opts.KV}
	taken := m.shape.sessionMemory(opts.KV)
	if err := m.account.join(taken); err != nil {
		return nil, err
	}
	s.open(m.account, "session", taken)
	return s, nil
}

func checkSampling(stage cgo.Stage, s cgo.Sampling) error {
	ok := s.Temperature >= 0 && !math.IsInf(float64(s.Temperature), 0) && s.TopP > 0 && s.TopP <= 1 && s.TopK >= 0 &&
		s.MinEOSP >= 0 && s.MinEOSP <= 1
	if !ok { // a NaN fails every comparison
		return fmt.Errorf("%w: %s sampling %+v is out of range", cgo.ErrInvalidArgument, stage, s)
	}
	return nil
}
