package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.opentelemetry.io/otel/trace"

	"barkd/cgo"
	"barkd/server/audio"
	"barkd/server/speech"
)

// utterance is one request for speech on its way. A goroutine of its own speaks, so that audio can be sent while the
// rest is made. It ends when ctx does; the handler waits for it, or the response's body does, which the handler
// leaves behind once begun is closed.
type utterance struct {
	server  *Server
	order   speechBody
	ctx     context.Context
	stop    func() // ends ctx
	due     *deadline
	leave   func() // gives the bearer's place back; before the client can know that the request has ended
	arrived time.Time
	chunks  bool // the client takes a body without a length

	generation string // its id among the recent ones, "" if they are not held

	decided chan struct{} // closed when start and streamed are set
	begun   chan struct{} // closed when a stream has its first bytes; start is set by then
	once    sync.Once     // for begun: ffmpeg's output comes on a goroutine of its own
	heard   sync.Once     // for the first audio
	done    chan struct{} // closed when the goroutine ends; all below is set by then
	from    *io.PipeReader
	to      *io.PipeWriter

	receipt  receipt // the handler's
	start    speech.Start
	held     time.Duration // the first audio of a stream waited for more
	starves  bool          // the stream began with less than its listener needs
	streamed bool
	stage    string
	told     time.Time     // when progress was
	encoder  audio.Encoder // of a stream, from its first audio on
	listener speech.Listener
	playing  bool      // a stream's audio is passed on as it comes
	pcm      []float32 // of an answer that is sent whole, or held back for the listener
	result   speech.Result
	err      error
}

// prepare fills in what every request for speech has beside its order.
func (s *Server) prepare(c *fiber.Ctx, order *speechBody) {
	order.request.ID, order.request.KV = requestID(c), s.KV
	if s.Voices != nil {
		order.request.Voice.Stored = s.Voices.Lookup
	}
	switch {
	case order.cut != nil:
		order.request.Cut = *order.cut
	case order.delivery != deliverAuto: // who asks for a stream wants to hear it soon
		order.request.Cut = speech.CutEarly
	}
}

// utter begins to speak if the bearer's allowance has room for it. The caller must wait for begun or done; after done it
// must call stop, and after begun send the stream.
func (s *Server) utter(c *fiber.Ctx, order speechBody) (*utterance, error) {
	leave, err := s.admit(c, &order)
	if err != nil {
		return nil, err
	}
	u := &utterance{
		server: s, order: order, leave: leave, arrived: time.Now(), chunks: c.Request().Header.IsHTTP11(), stage: "queue",
		decided: make(chan struct{}), begun: make(chan struct{}), done: make(chan struct{}),
	}
	if !order.forget {
		u.generation = s.recent.newID()
	}
	ctx, stop := s.clientContext(c)
	u.ctx, u.due = withDeadline(ctx, order.request.Patience)
	u.stop = func() {
		u.due.met()
		stop()
	}
	c.Locals(localCause, func() error { return context.Cause(u.ctx) })
	u.from, u.to = io.Pipe()
	go u.run()
	return u, nil
}

func (u *utterance) run() {
	defer close(u.done)
	u.err = u.speak()
	u.leave()
	if u.encoder != nil {
		u.encoder.Abort() // so that nothing is written after what ends the stream
	}
	u.report()
	u.end()
}

func (u *utterance) speak() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError(p)
		}
	}()
	sink := speech.Sink{Start: u.begin, Audio: u.audio, Progress: u.progress}
	u.result, err = u.server.Speaker.Speak(u.ctx, u.order.request, sink)
	if errors.Is(err, cgo.ErrLost) && u.takeBack() {
		again := u.order.request
		again.Seed = &u.start.Seed
		u.result, err = u.server.Speaker.Speak(u.ctx, again, sink)
	}
	if err == nil && u.streamed {
		err = u.finish()
	}
	if err == nil && u.generation != "" {
		u.server.recent.add(u.generation, generation{model: u.order.request.Model, tokens: u.result.Spoken})
	}
	if err != nil {
		return &modelError{id: u.order.request.Model, err: err}
	}
	return nil
}

// takeBack drops what has been made, if none of it has been sent.
func (u *utterance) takeBack() bool {
	if len(u.pcm) == 0 || u.playing { // there is nothing, or it is gone
		return false
	}
	u.pcm, u.listener = nil, speech.Listener{}
	return true
}

// begin decides how the audio is sent. Without a wish, a text of several pieces is streamed, for its first audio is
// there long before the last; the only piece of a text is not, so that its response has a length; nor is a format
// that states its length in a header, which a stream would leave unknown.
func (u *utterance) begin(start speech.Start) error {
	if start.Need != nil {
		u.listener.Need = func() float64 { return start.Need(u.order.speed) }
	}
	select {
	case <-u.decided: // it begins again
		if start.Version != u.start.Version {
			return fmt.Errorf("the file of %q was replaced while the request began again", start.Model)
		}
		return nil
	default:
	}
	u.start = start
	switch u.order.delivery {
	case deliverAuto:
		u.streamed = u.chunks && start.Pieces > 1 && !u.order.format.StatesLength()
	case deliverStream:
		u.streamed = u.chunks
	case deliverEvents:
		u.streamed = true
	}
	close(u.decided)
	return nil
}

// audio takes samples as they are made. Those of a stream are held back until its listener can begin.
func (u *utterance) audio(part []float32) error {
	if u.playing {
		return u.play(part)
	}
	u.pcm = append(u.pcm, part...)
	if u.streamed {
		u.listener.Hold(time.Now(), u.length(part))
	}
	return u.playHeld()
}

// progress follows the work, and tells of it if the request wants that.
func (u *utterance) progress(at speech.Progress) error {
	news := at.Stage.String() != u.stage || time.Since(u.told) >= tellEvery
	u.stage = at.Stage.String()
	if err := u.playHeld(); err != nil || !u.order.progress || !news {
		return err
	}
	u.told = time.Now()
	if err := u.beginAnswer(); err != nil {
		return err
	}
	return u.sendProgress(at)
}

// playHeld begins to send a stream if its listener can begin.
func (u *utterance) playHeld() error {
	if !u.streamed || u.playing || !u.listener.Begins() {
		return nil
	}
	return u.startPlaying()
}

func (u *utterance) startPlaying() error {
	u.playing, u.starves, u.held = true, u.listener.Starves(), u.listener.Waited(time.Now())
	held := u.pcm
	u.pcm = nil
	return u.play(held)
}

// play hands samples to the encoder of a stream.
func (u *utterance) play(part []float32) error {
	if err := u.open(); err != nil {
		return err
	}
	if u.listener.Play(time.Now(), u.length(part)) {
		u.server.Metrics.Underrun()
	}
	return u.encoder.Write(part)
}

// length is how long samples of the model play.
func (u *utterance) length(part []float32) time.Duration {
	seconds := float64(len(part)) / float64(u.start.SampleRate) / u.order.speed
	return time.Duration(seconds * float64(time.Second))
}

// open starts the encoder, not before there is audio: until then a failure has a status of its own.
func (u *utterance) open() error {
	if u.encoder != nil {
		return nil
	}
	e, err := audio.NewEncoder(u, u.order.format, u.start.SampleRate, audio.UnknownLength)
	if err != nil {
		return err
	}
	u.encoder = e // to be aborted if the next step fails
	e, err = audio.AtSpeed(e, u.start.SampleRate, u.order.speed)
	if err != nil {
		return err
	}
	u.encoder = e
	return nil
}

// beginAnswer lets the handler send the stream, unless its deadline has passed.
func (u *utterance) beginAnswer() error {
	u.once.Do(func() {
		if u.due.met() {
			close(u.begun)
		}
	})
	if !u.hasBegun() {
		<-u.ctx.Done() // the deadline has passed, so it ends now
		return context.Cause(u.ctx)
	}
	return nil
}

// Write hands encoded audio to the response and waits until it is taken; with the first of it, the response begins.
func (u *utterance) Write(encoded []byte) (int, error) {
	if len(encoded) == 0 {
		return 0, nil
	}
	if err := u.beginAnswer(); err != nil {
		return 0, err
	}
	u.heard.Do(func() { u.server.Metrics.FirstAudio(time.Since(u.arrived)) })
	if u.order.delivery == deliverEvents {
		return len(encoded), u.sendDelta(encoded)
	}
	return u.to.Write(encoded)
}

// finish completes a stream.
func (u *utterance) finish() error {
	if !u.playing {
		if err := u.startPlaying(); err != nil {
			return err
		}
	}
	if err := u.encoder.Close(); err != nil {
		return fmt.Errorf("encode the speech as %s: %w", u.order.format.Name, err)
	}
	if u.order.delivery == deliverEvents {
		return u.sendDone()
	}
	return nil
}

// end ends the stream: one that failed breaks off, unless an event can say so.
func (u *utterance) end() {
	err := u.err
	if err != nil && u.hasBegun() && u.order.delivery == deliverEvents {
		err = u.sendError(err)
	}
	_ = u.to.CloseWithError(err) // it never fails
}

func (u *utterance) hasBegun() bool {
	select {
	case <-u.begun:
		return true
	default:
		return false
	}
}

// report logs and counts what has been said. A failure before the stream began is left to the handler.
func (u *utterance) report() {
	s, id, model := u.server, u.order.request.ID, u.order.request.Model
	span := trace.SpanFromContext(u.ctx)
	if u.err == nil {
		if u.start.From == speech.Made {
			s.Metrics.Spoke(u.result.RealTimeFactor())
		}
		traced(s.Log.Info(), span).Str("request_id", id).Str("model", model).Str("voice", u.result.Voice).
			Uint64("seed", u.result.Seed).Int("pieces", u.result.Pieces).Float64("audio_s", u.result.AudioSeconds()).
			Float64("real_time_factor", u.result.RealTimeFactor()).Dur("waited_ms", u.result.Waited).
			Bool("streamed", u.streamed).Str("audio_cache", origins[u.start.From]).Msg("spoke")
		return
	}
	if u.ctx.Err() != nil || errors.Is(u.err, errClientGone) {
		s.Metrics.Cancelled(u.stage)
	}
	if !u.hasBegun() {
		return
	}
	failed := toError(u.err, u.cause())
	traced(s.Log.WithLevel(levelOf(failed.Status)), span).Err(rootCause(u.err)).Str("request_id", id).Str("model", model).
		Str("stage", u.stage).Int("status", failed.Status).Msg("stream broken off")
}

// cause says why the request was ended from outside, nil if it was not. A context ended without a cause is that of a
// stream which could not be sent.
func (u *utterance) cause() error {
	cause := context.Cause(u.ctx)
	if errors.Is(u.err, errClientGone) || cause == context.Canceled {
		return errClientGone
	}
	return cause
}
