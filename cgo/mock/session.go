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
	codecChunk   = 75  // frames: one second
	coarseWindow = 60  // tokens between two prefills
	fineContext  = 144 // frames that a chunk of the fine stage sees around itself
)

// A run is one request on its way through the stages.
type run struct {
	*session
	ctx   context.Context
	sink  cgo.Sink
	stats cgo.Stats
	tune  tune
	slow  float64 // factor on all times

	coarseDone, framesDone int // tokens made, frames heard
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
	s.model.runtime.mayLose(DeviceLost, s.model.shape.id, s.model.device)
	if err := s.model.runtime.checkLost(s.model.device); err != nil {
		return cgo.Stats{}, err
	}
	r := &run{session: s, ctx: ctx, sink: sink, tune: newTune(req, identity), slow: s.model.pace()}
	if f, ok := s.model.runtime.fault(SynthesisSlow, s.model.shape.id); ok {
		r.slow *= f.Factor
	}
	r.stats.TextTokens = len(ids)
	r.stats.TextTruncated = len(ids) > int(s.model.shape.maxText)
	r.stats.SemanticTokens = s.model.semanticTokens(req)
	r.stats.Frames = int(float64(r.stats.SemanticTokens) * coarseRateHz / semanticRateHz)
	r.stats.CoarseTokens = r.stats.Frames * nCoarse
	if err := r.timed(cgo.StageSemantic, r.semantic); err != nil {
		return cgo.Stats{}, err
	}
	chunk := r.stats.Frames
	if req.FineChunk > 0 {
		chunk = min(chunk, req.FineChunk)
	}
	for end := chunk; ; end = min(end+chunk, r.stats.Frames) {
		for stage, f := range []func(end int) error{cgo.StageCoarse: r.coarse, cgo.StageFine: r.fine, cgo.StageCodec: r.codec} {
			if f == nil {
				continue
			}
			if err := r.timed(cgo.Stage(stage), func() error { return f(end) }); err != nil {
				return cgo.Stats{}, err
			}
		}
		if end == r.stats.Frames {
			return r.stats, nil
		}
	}
}

// timed adds what f takes to the time of a stage.
func (r *run) timed(stage cgo.Stage, f func() error) error {
	start := r.model.runtime.opts.Clock()
	err := f()
	elapsed := r.model.runtime.opts.Clock().Sub(start)
	r.stats.StageMS[stage] += float64(elapsed) / float64(time.Millisecond)
	return err
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
	if req.FineChunk < 0 || req.FineChunk > math.MaxInt32 {
		return 0, fmt.Errorf("%w: fine chunk %d", cgo.ErrInvalidArgument, req.FineChunk)
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

// step waits and reports one step. The device may be lost meanwhile.
func (r *run) step(stage cgo.Stage, done, total int, took time.Duration) error {
	if err := r.model.runtime.wait(r.ctx, scaled(took, r.slow)); err != nil {
		return err
	}
	if err := r.model.runtime.checkLost(r.model.device); err != nil {
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

// coarse makes the tokens up to a frame.
func (r *run) coarse(end int) error {
	n := r.stats.CoarseTokens
	for ; r.coarseDone < end*nCoarse; r.coarseDone++ {
		took := r.model.shape.stepTime()
		if r.coarseDone%coarseWindow == 0 {
			took = r.model.shape.windowTime()
		}
		if err := r.step(cgo.StageCoarse, r.coarseDone+1, n, took); err != nil {
			return err
		}
	}
	if end < r.stats.Frames {
		return r.ctx.Err()
	}
	return r.publish(cgo.StageCoarse, nCoarse, r.stats.Frames, codebookSize)
}

// fine makes the codes up to a frame: in whole windows, or in what a chunk of the clip takes of one.
func (r *run) fine(end int) error {
	passes, took := finePasses*(1+max(0, r.stats.Frames-512)/512), r.model.shape.finePassTime()
	if chunk := end - r.framesDone; chunk < r.stats.Frames {
		passes = finePasses
		took = scaled(took, min(float64(chunk+fineContext)/float64(r.model.shape.blockSize), 1))
	}
	for done := range passes {
		if err := r.step(cgo.StageFine, done+1, passes, took); err != nil {
			return err
		}
	}
	if end < r.stats.Frames {
		return r.ctx.Err()
	}
	return r.publish(cgo.StageFine, nFine, r.stats.Frames, codebookSize)
}

// codec makes the audio up to a frame.
func (r *run) codec(end int) error {
	hop, total := int(r.model.shape.hopLength), r.stats.Frames
	pcm := make([]float32, codecChunk*hop)
	for r.framesDone < end {
		n := min(codecChunk, end-r.framesDone)
		if err := r.model.runtime.wait(r.ctx, scaled(r.model.shape.codecTime(n), r.slow)); err != nil {
			return err
		}
		chunk := pcm[:n*hop]
		r.tune.play(chunk, r.framesDone*hop, total*hop)
		r.stats.Samples += int64(len(chunk))
		if r.sink.Audio != nil {
			if err := r.sink.Audio(chunk); err != nil {
				return err
			}
		}
		if r.framesDone == 0 {
			r.model.runtime.mayLose(DeviceLostInStream, r.model.shape.id, r.model.device)
		}
		r.framesDone += n
		if err := r.step(cgo.StageCodec, r.framesDone, total, 0); err != nil {
			return err
		}
	}
	return nil
}
