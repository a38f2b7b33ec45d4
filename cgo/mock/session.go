package mock

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"barkd/cgo"
)

type session struct {
	handle
	model *model
	kv    cgo.KVType
	busy  atomic.Bool
}

// Memory implements cgo.Session.
func (s *session) Memory() cgo.Memory {
	if s.check() != nil {
		return cgo.Memory{}
	}
	return s.model.shape.sessionMemory(s.kv)
}

// The pace of the simulated speech.
const (
	charsPerS    = 14.0
	finePasses   = 6
	codecChunk   = 75 // frames: one second
	coarseWindow = 60 // tokens between two prefills
)

// A run is one request on its way through the stages.
type run struct {
	*session
	ctx   context.Context
	sink  cgo.Sink
	stats cgo.Stats
	tune  tune
	slow  float64 // factor on all times
}

// Synthesize implements cgo.Session.
func (s *session) Synthesize(ctx context.Context, req cgo.Request, sink cgo.Sink) (cgo.Stats, error) {
	if err := ctx.Err(); err != nil {
		return cgo.Stats{}, err
	}
	if err := s.check(); err != nil {
		return cgo.Stats{}, err
	}
	if !s.busy.CompareAndSwap(false, true) {
		return cgo.Stats{}, fmt.Errorf("%w: the session is already running a request", cgo.ErrBusy)
	}
	defer s.busy.Store(false)
	identity, err := s.model.checkRequest(req)
	if err != nil {
		return cgo.Stats{}, err
	}
	ids, err := tokenize(req.Rules, req.Text)
	if err != nil {
		return cgo.Stats{}, err
	}
	if f, ok := s.model.runtime.fault(DeviceLost, s.model.shape.id); ok {
		s.model.runtime.loseDevice(f)
	}
	if err := s.model.runtime.checkLost(); err != nil {
		return cgo.Stats{}, err
	}
	r := &run{session: s, ctx: ctx, sink: sink, tune: newTune(req, identity), slow: 1}
	if f, ok := s.model.runtime.fault(SynthesisSlow, s.model.shape.id); ok {
		r.slow = f.Factor
	}
	r.stats.TextTokens = len(ids)
	r.stats.TextTruncated = len(ids) > int(s.model.shape.maxText)
	r.stats.SemanticTokens = s.model.semanticTokens(req)
	r.stats.Frames = int(float64(r.stats.SemanticTokens) * coarseRateHz / semanticRateHz)
	r.stats.CoarseTokens = r.stats.Frames * nCoarse
	for stage, f := range []func() error{r.semantic, r.coarse, r.fine, r.codec} {
		start := s.model.runtime.opts.Clock()
		if err := f(); err != nil {
			return cgo.Stats{}, err
		}
		elapsed := s.model.runtime.opts.Clock().Sub(start)
		r.stats.StageMS[stage] = float64(elapsed) / float64(time.Millisecond)
	}
	return r.stats, nil
}

// checkRequest refuses what the native runtime refuses; identity is the voice's, 0 for none.
func (m *model) checkRequest(req cgo.Request) (identity uint64, err error) {
	if err := checkRules(req.Rules); err != nil {
		return 0, err
	}
	for stage, sampling := range []cgo.Sampling{req.Semantic, req.Coarse, req.Fine} {
		if err := checkSampling(cgo.Stage(stage), sampling); err != nil {
			return 0, err
		}
	}
	if req.MaxSemanticTokens < 0 || req.MaxSemanticTokens > math.MaxInt32 {
		return 0, fmt.Errorf("%w: max semantic tokens %d", cgo.ErrInvalidArgument, req.MaxSemanticTokens)
	}
	if req.Voice == nil {
		return 0, nil
	}
	v, ok := req.Voice.(*voice)
	if !ok || v == nil || v.model.shape.id != m.shape.id {
		return 0, fmt.Errorf("%w: the voice is of another model", cgo.ErrInvalidArgument)
	}
	return v.identity, v.check()
}

// semanticTokens is how long the text takes to say, within the model's limit and the request's.
func (m *model) semanticTokens(req cgo.Request) int {
	n := int(float64(utf8.RuneCountInString(req.Text)) / charsPerS * semanticRateHz)
	n = min(max(n, 20), int(m.shape.maxSemantic))
	if req.MaxSemanticTokens > 0 {
		n = min(n, req.MaxSemanticTokens)
	}
	return n
}

// step waits and reports one step.
func (r *run) step(stage cgo.Stage, done, total int, took time.Duration) error {
	if err := r.model.runtime.wait(r.ctx, scaled(took, r.slow)); err != nil {
		return err
	}
	if r.sink.Progress == nil {
		return nil
	}
	return r.sink.Progress(stage, int64(done), int64(total))
}

// publish hands out made-up codes: they depend on the tune, so the same request has the same.
func (r *run) publish(stage cgo.Stage, rows, cols int, end int64) error {
	if r.sink.Tokens == nil || r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	tokens := make([]int32, rows*cols)
	state := r.tune.state ^ uint64(stage)
	for i := range tokens {
		tokens[i] = int32(next(&state) % uint64(end))
	}
	return r.sink.Tokens(stage, tokens, rows, cols)
}

func (r *run) semantic() error {
	n := r.stats.SemanticTokens
	for done := range n {
		if err := r.step(cgo.StageSemantic, done+1, n, r.model.shape.stepTime()); err != nil {
			return err
		}
	}
	return r.publish(cgo.StageSemantic, 1, n, r.model.shape.semanticCodes)
}

func (r *run) coarse() error {
	n := r.stats.CoarseTokens
	for done := range n {
		took := r.model.shape.stepTime()
		if done%coarseWindow == 0 {
			took = r.model.shape.windowTime()
		}
		if err := r.step(cgo.StageCoarse, done+1, n, took); err != nil {
			return err
		}
	}
	return r.publish(cgo.StageCoarse, nCoarse, r.stats.Frames, codebookSize)
}

func (r *run) fine() error {
	passes := finePasses * (1 + max(0, r.stats.Frames-512)/512)
	for done := range passes {
		if err := r.step(cgo.StageFine, done+1, passes, r.model.shape.finePassTime()); err != nil {
			return err
		}
	}
	return r.publish(cgo.StageFine, nFine, r.stats.Frames, codebookSize)
}

func (r *run) codec() error {
	hop, total := int(r.model.shape.hopLength), r.stats.Frames
	pcm := make([]float32, codecChunk*hop)
	for done := 0; done < total; {
		n := min(codecChunk, total-done)
		if err := r.model.runtime.wait(r.ctx, scaled(r.model.shape.codecTime(n), r.slow)); err != nil {
			return err
		}
		chunk := pcm[:n*hop]
		r.tune.play(chunk, done*hop, total*hop)
		r.stats.Samples += int64(len(chunk))
		if r.sink.Audio != nil {
			if err := r.sink.Audio(chunk); err != nil {
				return err
			}
		}
		done += n
		if err := r.step(cgo.StageCodec, done, total, 0); err != nil {
			return err
		}
	}
	return nil
}
