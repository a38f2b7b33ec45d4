package speech_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/speech"
)

var errLost = fmt.Errorf("cuda:0: %w", errors.Join(cgo.ErrLost, cgo.ErrDevice))

// failing fails so often.
func failing(times int, err error) func() error {
	return func() error {
		if times--; times >= 0 {
			return err
		}
		return nil
	}
}

func TestRequestBeginsOnceMoreWhenItsDeviceIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		losses int
		err    error
		want   error
	}{
		"once":             {1, errLost, nil},
		"twice":            {2, errLost, cgo.ErrLost},
		"failed, not lost": {1, cgo.ErrDevice, cgo.ErrDevice},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.model.Refuse = failing(c.losses, c.err)
			starts := 0
			result, err := h.Speak(t.Context(), speech.Request{Model: "suno/bark", Text: "Hello."}, speech.Sink{
				Start: func(speech.Start) error { starts++; return nil },
			})
			assert.ErrorIs(t, err, c.want)
			if c.want == nil {
				assert.Equal(t, 1, starts)
				assert.Positive(t, result.Samples)
			}
			running, waiting := h.Load()
			assert.Zero(t, running+waiting)
		})
	}
}

func TestRequestThatWasHeardDoesNotBeginAgain(t *testing.T) {
	h := newHouse(t)
	pieces := 0
	h.model.Work = func(context.Context, cgo.Request) error { // the first piece was heard when the second is lost
		if pieces++; pieces == 2 {
			return errLost
		}
		return nil
	}
	_, err := h.Speak(t.Context(), speech.Request{Model: "suno/bark", Text: long}, speech.Sink{})
	require.ErrorIs(t, err, cgo.ErrLost)
	assert.Len(t, h.model.Requests(), 2)
}

func TestSecondAttemptHasTheSeedThatWasTold(t *testing.T) {
	h := newHouse(t)
	loses := failing(1, errLost)
	h.model.Work = func(context.Context, cgo.Request) error { return loses() }
	var told speech.Start
	result, err := h.Speak(t.Context(), speech.Request{Model: "suno/bark", Text: "Hello."}, speech.Sink{
		Start: func(start speech.Start) error { told = start; return nil },
	})
	require.NoError(t, err)
	requests := h.model.Requests()
	require.Len(t, requests, 2)
	assert.Equal(t, []uint64{told.Seed, told.Seed, told.Seed}, []uint64{requests[0].Seed, requests[1].Seed, result.Seed})
	assert.Zero(t, told.Need(1), "it asks the attempt that speaks")
}

func TestModelThatWasReplacedMeanwhileIsNotGoneOnWith(t *testing.T) {
	h := newHouse(t)
	loses := failing(1, errLost)
	h.model.Work = func(context.Context, cgo.Request) error {
		h.model.Version = "new"
		return loses()
	}
	_, err := h.Speak(t.Context(), speech.Request{Model: "suno/bark", Text: "Hello."}, speech.Sink{})
	assert.ErrorContains(t, err, "replaced")
}
