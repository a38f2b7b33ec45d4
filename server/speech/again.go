package speech

import (
	"errors"
	"sync/atomic"

	"barkd/cgo"
)

// attempts is a request's sink when it may begin again: its device is lost and nothing has been heard. Who listens sees
// one beginning, with one seed.
type attempts struct {
	sink  Sink
	req   Request
	began *Start // as it was told; nil before
	need  atomic.Pointer[func(speed float64) float64]
	heard bool
	again bool
}

// mayRepeat says whether a failed attempt is to be followed by another, on another device.
func (a *attempts) mayRepeat(err error) bool {
	if a.again || a.heard || !errors.Is(err, cgo.ErrLost) {
		return false
	}
	a.again = true
	return true
}

// of is the sink of one attempt.
func (a *attempts) of() Sink {
	return Sink{Start: a.start, Progress: a.sink.Progress, Audio: func(pcm []float32) error {
		a.heard = true
		return tell(a.sink.Audio, pcm)
	}}
}

func (a *attempts) start(start Start) error {
	need := start.Need
	a.need.Store(&need)
	if was := a.began; was != nil {
		if start.Version != was.Version || start.Pieces != was.Pieces || start.SampleRate != was.SampleRate {
			return errors.New("the model's file was replaced while the request began again")
		}
		return nil
	}
	start.Need = func(speed float64) float64 { return (*a.need.Load())(speed) }
	a.began = &start
	a.req.Seed = &start.Seed
	return tell(a.sink.Start, start)
}
