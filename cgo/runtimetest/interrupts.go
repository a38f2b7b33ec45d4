package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func endedContextStartsNothing(t *testing.T, s Subject) {
	s.withSession(t, func(_ cgo.Model, session cgo.Session, req cgo.Request) {
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		expired, cancelExpired := context.WithDeadline(context.Background(), time.Unix(0, 0))
		defer cancelExpired()
		silent := cgo.Sink{Progress: func(cgo.Stage, int64, int64) error {
			t.Error("something started")
			return nil
		}}
		_, err := session.Synthesize(canceled, req, silent)
		assert.Equal(t, context.Canceled, err)
		_, err = session.Synthesize(expired, req, silent)
		assert.Equal(t, context.DeadlineExceeded, err)
	})
}

func cancelDuringEachStage(t *testing.T, s Subject) {
	s.withSession(t, func(_ cgo.Model, session cgo.Session, req cgo.Request) {
		for _, stage := range []cgo.Stage{cgo.StageSemantic, cgo.StageCoarse, cgo.StageFine} {
			ctx, cancel := context.WithCancel(context.Background())
			watch := func() { assert.NoError(t, ctx.Err(), "called after the cancel") }
			_, err := session.Synthesize(ctx, req, cgo.Sink{
				Progress: func(at cgo.Stage, _, _ int64) error {
					watch()
					if at == stage {
						cancel()
					}
					return nil
				},
				Tokens: func(cgo.Stage, []int32, int, int) error { watch(); return nil },
				Audio:  func([]float32) error { watch(); return nil },
			})
			assert.Equal(t, context.Canceled, err, "%s", stage)
		}
		assert.NotEmpty(t, speak(t, session, req), "the session can be used again")
	})
}

func sinkErrorComesBack(t *testing.T, s Subject) {
	s.withSession(t, func(_ cgo.Model, session cgo.Session, req cgo.Request) {
		own := fmt.Errorf("wrapped: %w", errors.New("the disk is full"))
		stopped := false
		fail := func() error {
			assert.False(t, stopped, "called after its error")
			stopped = true
			return own
		}
		for name, sink := range map[string]cgo.Sink{
			"audio":    {Audio: func([]float32) error { return fail() }},
			"progress": {Progress: func(cgo.Stage, int64, int64) error { return fail() }},
			"tokens":   {Tokens: func(cgo.Stage, []int32, int, int) error { return fail() }},
			"last progress": {Progress: func(at cgo.Stage, done, total int64) error {
				if at == cgo.StageCodec && done == total {
					return fail()
				}
				return nil
			}},
		} {
			stopped = false
			_, err := session.Synthesize(context.Background(), req, sink)
			assert.Same(t, own, err, name)
			assert.True(t, stopped, name)
		}
		assert.NotEmpty(t, speak(t, session, req), "the session can be used again")
	})
}

func sinkPanicReachesTheCaller(t *testing.T, s Subject) {
	s.withSession(t, func(_ cgo.Model, session cgo.Session, req cgo.Request) {
		for _, sink := range []cgo.Sink{
			{Audio: func([]float32) error { panic("boom") }},
			{Tokens: func(cgo.Stage, []int32, int, int) error { panic("boom") }},
		} {
			assert.PanicsWithValue(t, "boom", func() {
				_, _ = session.Synthesize(context.Background(), req, sink)
			})
		}
		assert.NotEmpty(t, speak(t, session, req), "the session can be used again")
	})
}

func busySession(t *testing.T, s Subject) {
	s.withSession(t, func(_ cgo.Model, session cgo.Session, req cgo.Request) {
		tried := false
		_, err := session.Synthesize(context.Background(), req, cgo.Sink{Progress: func(cgo.Stage, int64, int64) error {
			if !tried {
				tried = true
				_, err := session.Synthesize(context.Background(), req, cgo.Sink{})
				assert.ErrorIs(t, err, cgo.ErrBusy)
			}
			return nil
		}})
		require.NoError(t, err)
		assert.True(t, tried)
	})
}

// manyGoroutines share a model; a quarter of them speak, the others are stopped early in different ways.
func manyGoroutines(t *testing.T, s Subject) {
	var want []float32
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		req.MaxSemanticTokens = 4
		want = speak(t, session, req)
		errOwn := errors.New("enough")
		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				own, err := m.NewSession(cgo.SessionOptions{})
				if !assert.NoError(t, err) {
					return
				}
				defer func() { assert.NoError(t, own.Close()) }()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				var audio []float32
				sink := cgo.Sink{Audio: func(pcm []float32) error {
					audio = append(audio, pcm...)
					return nil
				}}
				switch i % 4 {
				case 0:
					_, err = own.Synthesize(ctx, req, sink)
					assert.NoError(t, err)
					assert.Equal(t, want, audio, "what others do changes nothing")
				case 1:
					sink.Progress = func(cgo.Stage, int64, int64) error { return errOwn }
					_, err = own.Synthesize(ctx, req, sink)
					assert.Equal(t, errOwn, err)
				case 2:
					sink.Progress = func(cgo.Stage, int64, int64) error { cancel(); return ctx.Err() }
					_, err = own.Synthesize(ctx, req, sink)
					assert.ErrorIs(t, err, context.Canceled)
				default:
					_, err = m.Tokenize(cgo.RulesSuno, "Hello")
					assert.NoError(t, err)
					assert.Positive(t, own.Memory().TotalBytes)
				}
			})
		}
		all.Wait()
	})
}
