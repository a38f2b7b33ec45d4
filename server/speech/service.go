package speech

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/server/tracing"
)

// Models lends loaded models.
type Models interface {
	// Known says at once whether there is such a model; if not its error is that of Acquire.
	Known(id string) error
	// Acquire returns the model, loading it if needed. The caller must Release the lease exactly once.
	Acquire(ctx context.Context, id string, ask cache.Ask) (Lease, error)
}

// Lease keeps a model loaded.
type Lease interface {
	Model() cgo.Model
	// Version is that of the model's image; see cgo.Source.
	Version() string
	// NewSession makes a session when there is memory for it; it waits for that until ctx ends.
	NewSession(ctx context.Context, opts cgo.SessionOptions) (cgo.Session, error)
	// Revoked is closed when the model is wanted back at once.
	Revoked() <-chan struct{}
	Release()
}

// ErrRevoked ends a request whose model was wanted back at once: somebody cleared the cache by force.
var ErrRevoked = errors.New("the model was taken out of the cache by force")

// Service speaks. Its methods may be called from any goroutine.
type Service struct {
	models    Models
	admission *Admission
	log       zerolog.Logger
	seed      func() uint64
	rates     *rates
	clock     func() time.Time
}

// NewService returns a service that takes its models from models and lets admission decide who runs.
func NewService(models Models, admission *Admission, log zerolog.Logger) *Service {
	return &Service{models: models, admission: admission, log: log, seed: drawSeed, rates: newRates(), clock: time.Now}
}

// drawSeed draws 53 bits, the integers that every JSON reader keeps exact, so that a client can send the seed back.
func drawSeed() uint64 { return rand.Uint64() >> 11 }

// Load says how many requests run and how many wait now.
func (s *Service) Load() (running, waiting int) { return s.admission.Load() }

// Speak makes the audio of req and hands it to sink. It fails with an *InputError when the request is wrong, a
// *QueueFullError when too many wait, a *TooLateError when it would wait longer than its patience, an error of the
// models or the runtime, or ctx.Err(). If its device is lost before there is any audio it begins once more, on another.
//
// Text beyond what the model can say in one go, or with CutEarly, is cut by Pieces, joined with SilenceSeconds of
// silence. With cgo.RulesHF it is never cut: those rules are for comparing with transformers, which truncates. All
// pieces have the request's voice; without one, the first piece's own tokens are the voice of the others, so that the
// speaker stays the same. With HistoryPrevious each piece is the voice of the next.
func (s *Service) Speak(ctx context.Context, req Request, sink Sink) (Result, error) {
	if err := checkText(req); err != nil {
		return Result{}, err
	}
	if err := s.models.Known(req.Model); err != nil {
		return Result{}, err
	}
	ticket, err := s.admission.Enter(Place{
		Model: req.Model, Priority: req.Priority, Chars: utf8.RuneCountInString(req.Text), Patience: req.Patience,
	})
	if err != nil {
		return Result{}, err
	}
	defer ticket.Leave()
	arrived := s.clock()
	tries := &attempts{sink: sink, req: req}
	for {
		result, err := s.attempt(ctx, tries.req, tries.of(), ticket, arrived)
		if !tries.mayRepeat(err) {
			return result, err
		}
		s.log.Warn().Err(err).Str("request_id", req.ID).Str("model", req.Model).Msg("the request begins again on another device")
	}
}

// attempt takes the model and speaks.
func (s *Service) attempt(ctx context.Context, req Request, sink Sink, ticket *Ticket, arrived time.Time) (Result, error) {
	lease, err := s.take(ctx, ticket, cache.Ask{Holder: req.ID, KeepAlive: req.KeepAlive})
	if err != nil {
		return Result{}, err
	}
	defer lease.Release()
	ctx, stop := untilRevoked(ctx, lease)
	defer stop()
	result, err := s.read(ctx, req, sink, lease, ticket, arrived)
	if err != nil && errors.Is(context.Cause(ctx), ErrRevoked) {
		return Result{}, ErrRevoked
	}
	return result, err
}

// take waits for the ticket's turn and takes its model, yielding the turn while the model is loaded.
func (s *Service) take(ctx context.Context, ticket *Ticket, ask cache.Ask) (Lease, error) {
	if err := turn(ctx, ticket); err != nil {
		return nil, err
	}
	ask.Waits = ticket.Yield
	ctx, span := tracing.Start(ctx, "acquire model")
	lease, err := s.models.Acquire(ctx, ticket.place.Model, ask)
	if span.Recorded() {
		span.Set(attribute.String("barkd.model", ticket.place.Model))
	}
	span.End(err)
	return lease, err
}

// untilRevoked returns a context that also ends, with ErrRevoked, when the lease is wanted back.
func untilRevoked(ctx context.Context, lease Lease) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-lease.Revoked():
			cancel(ErrRevoked)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		watcher.Wait()
	}
}

// read speaks under a lease when it is the ticket's turn.
func (s *Service) read(ctx context.Context, req Request, sink Sink, lease Lease, ticket *Ticket, arrived time.Time,
) (Result, error) {
	if err := turn(ctx, ticket); err != nil {
		return Result{}, err
	}
	r := &reading{service: s, req: req, sink: sink, lease: lease, model: lease.Model()}
	if err := r.prepare(ctx); err != nil {
		return Result{}, err
	}
	defer r.close()
	r.result.Waited = s.clock().Sub(arrived)
	if err := r.speak(ctx); err != nil {
		return Result{}, err
	}
	ticket.Spoke()
	return r.result, nil
}

func checkText(req Request) error {
	if !utf8.ValidString(req.Text) {
		return &InputError{Param: "input", Message: "the text is not valid UTF-8"}
	}
	if req.Rules == cgo.RulesSuno && strings.TrimSpace(req.Text) == "" {
		return &InputError{Param: "input", Message: "the text is empty"}
	}
	return nil
}

// reading is one request while it runs.
type reading struct {
	service *Service
	req     Request
	sink    Sink
	lease   Lease
	model   cgo.Model

	pieces []string
	base   cgo.Request // all but the text, the seed and the voice
	voice  cgo.Voice   // nil for none
	sess   cgo.Session
	lead   *lead
	result Result
}

// prepare decides everything that can fail for the request's own fault, then takes the memory.
func (r *reading) prepare(ctx context.Context) (err error) {
	info := r.model.Info()
	name, arrays, err := r.req.Voice.resolve(info)
	if err != nil {
		return err
	}
	if r.pieces, err = r.cut(); err != nil {
		return inputError("input", err)
	}
	if r.base, err = r.model.Defaults(r.req.Rules); err != nil {
		return fmt.Errorf("sampling defaults of %q: %w", r.req.Model, err)
	}
	r.base.Rules = r.req.Rules
	r.base.MaxSemanticTokens = r.req.MaxSemanticTokens
	r.base.FineChunk = r.req.FineChunk
	r.req.Sampling.apply(&r.base)
	r.lead = r.newLead()
	r.result.Start = Start{
		Model: r.req.Model, Version: r.lease.Version(), Trained: info.Trained, SampleRate: info.SampleRate,
		Seed: r.seed(), Voice: name, Pieces: len(r.pieces), Need: r.lead.need,
	}
	if r.voice, err = openVoice(r.model, name, arrays); err != nil {
		return err
	}
	within, span := tracing.Start(ctx, "session")
	r.sess, err = r.lease.NewSession(within, cgo.SessionOptions{KV: r.req.KV})
	span.End(err)
	if err != nil {
		r.closeVoice()
		return fmt.Errorf("session of %q: %w", r.req.Model, err)
	}
	return nil
}

func (r *reading) newLead() *lead {
	l := &lead{clock: r.service.clock, rates: r.service.rates, model: r.req.Model, gap: SilenceSeconds,
		running: func() int { running, _ := r.service.Load(); return running }}
	if info := r.model.Info(); r.req.FineChunk > 0 {
		l.step = float64(r.req.FineChunk*info.HopLength) / float64(info.SampleRate)
	}
	for _, piece := range r.pieces {
		l.lengths = append(l.lengths, SpokenSeconds(piece))
	}
	return l
}

func (r *reading) cut() ([]string, error) {
	if r.req.Rules == cgo.RulesHF {
		return []string{r.req.Text}, nil
	}
	ids, err := r.model.Tokenize(r.req.Rules, r.req.Text)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, &InputError{Param: "input", Message: "the text has nothing in it that can be spoken"}
	}
	return Pieces(r.model, r.req.Rules, r.req.Text, r.req.Cut)
}

func (r *reading) seed() uint64 {
	if r.req.Seed != nil {
		return *r.req.Seed
	}
	return r.service.seed()
}

func (r *reading) close() {
	r.result.SessionMemory = r.sess.Memory()
	if err := r.sess.Close(); err != nil {
		r.service.log.Error().Err(err).Str("model", r.req.Model).Msg("close session")
	}
	r.closeVoice()
}

func (r *reading) closeVoice() {
	if r.voice == nil {
		return
	}
	if err := r.voice.Close(); err != nil {
		r.service.log.Error().Err(err).Str("model", r.req.Model).Msg("close voice")
	}
	r.voice = nil
}

func (r *reading) speak(ctx context.Context) error {
	started := r.service.clock()
	if r.sink.Start != nil {
		if err := r.sink.Start(r.result.Start); err != nil {
			return err
		}
	}
	for i := range r.pieces {
		if i > 0 {
			if err := r.silence(); err != nil {
				return err
			}
		}
		if err := r.piece(ctx, i); err != nil {
			return inputError("", err)
		}
	}
	r.result.Elapsed = r.service.clock().Sub(started)
	r.result.ModelMemory = r.model.Memory()
	r.result.SessionMemory = r.sess.Memory()
	return nil
}

func (r *reading) piece(ctx context.Context, i int) error {
	req := r.base
	req.Text, req.Voice, req.Seed = r.pieces[i], r.voice, PieceSeed(r.result.Seed, i)
	learn := i+1 < len(r.pieces) && (r.voice == nil || r.req.History == HistoryPrevious)
	var spoken cgo.VoiceArrays
	r.lead.begin(i)
	began := time.Now()
	ctx, span := tracing.Start(ctx, "piece")
	stats, err := r.sess.Synthesize(ctx, req, r.runtimeSink(i, learn || i == 0, &spoken))
	tracePiece(ctx, span, began, i, stats)
	span.End(err)
	if err != nil {
		return err
	}
	r.lead.end(SpokenSeconds(r.pieces[i]))
	r.result.Stats = append(r.result.Stats, stats)
	if stats.TextTruncated {
		r.service.log.Warn().Str("model", r.req.Model).Int("text_tokens", stats.TextTokens).
			Int("max_text_tokens", r.model.Info().MaxTextTokens).Msg("the text was cut to the model's limit")
	}
	if i == 0 {
		r.result.Spoken = spoken
	}
	if learn {
		return r.learnVoice(spoken)
	}
	return nil
}

// shortestVoice is the fewest semantic tokens that make a voice, a second: of less the model learns little, and suno's
// rules may refuse the ratio of its lengths.
const shortestVoice = 50

// learnVoice makes a piece's tokens the voice of those that follow. A piece that said next to nothing is no voice: then
// there is still the one before, or the next piece is tried.
func (r *reading) learnVoice(spoken cgo.VoiceArrays) error {
	if len(spoken.Semantic) < shortestVoice {
		return nil
	}
	voice, err := r.model.NewVoice(spoken)
	if errors.Is(err, cgo.ErrInvalidArgument) {
		r.service.log.Debug().Err(err).Str("model", r.req.Model).Msg("a piece is no voice for the next one")
		return nil
	}
	if err == nil {
		r.closeVoice()
		r.voice = voice
	}
	return err
}

// runtimeSink passes the runtime's output on, and keeps the tokens that make a voice when keep is set.
func (r *reading) runtimeSink(piece int, keep bool, spoken *cgo.VoiceArrays) cgo.Sink {
	info := r.model.Info()
	sink := cgo.Sink{
		Audio: func(pcm []float32) error {
			r.lead.heard(float64(len(pcm))/float64(info.SampleRate), 0)
			return r.audio(pcm)
		},
		Progress: func(stage cgo.Stage, done, total int64) error {
			r.lead.followed(info, stage, total)
			if r.sink.Progress == nil {
				return nil
			}
			return r.sink.Progress(Progress{
				Piece: piece, Pieces: len(r.pieces), Stage: stage, Done: int(done), Total: int(total),
			})
		},
	}
	if keep {
		sink.Tokens = func(stage cgo.Stage, tokens []int32, rows, cols int) error {
			addTokens(spoken, stage, tokens, rows, cols)
			return nil
		}
	}
	return sink
}

func (r *reading) audio(pcm []float32) error {
	r.result.Samples += int64(len(pcm))
	if r.sink.Audio == nil {
		return nil
	}
	return r.sink.Audio(pcm)
}

func (r *reading) silence() error {
	return r.audio(make([]float32, int(SilenceSeconds*float64(r.result.SampleRate))))
}

// addTokens copies one stage's tokens, as a Sink receives them, into a voice.
func addTokens(voice *cgo.VoiceArrays, stage cgo.Stage, tokens []int32, rows, cols int) {
	matrix := make([][]int32, rows)
	for i := range matrix {
		matrix[i] = append([]int32{}, tokens[i*cols:(i+1)*cols]...)
	}
	switch stage {
	case cgo.StageSemantic:
		voice.Semantic = append([]int32{}, tokens...)
	case cgo.StageCoarse:
		voice.Coarse = matrix
	case cgo.StageFine:
		voice.Fine = matrix
	}
}

// PieceSeed is the seed of piece i: the request's own for the first, so that a single piece is exactly one
// generation with that seed, and well-mixed others (splitmix64) for the rest.
func PieceSeed(seed uint64, i int) uint64 {
	if i == 0 {
		return seed
	}
	z := seed + uint64(i)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// inputError turns a runtime's complaint about an argument into the request's mistake.
func inputError(param string, err error) error {
	var already *InputError
	if errors.Is(err, cgo.ErrInvalidArgument) && !errors.As(err, &already) {
		return &InputError{Param: param, Message: err.Error(), Err: err}
	}
	return err
}
