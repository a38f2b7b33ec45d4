package speech_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/mock"
	"barkd/server/speech"
)

func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func TestListenerRunsOutWhenAudioComesTooLate(t *testing.T) {
	var l speech.Listener
	assert.False(t, l.Play(at(0), 2*time.Second), "the first audio is never late")
	assert.False(t, l.Play(at(1), time.Second), "it plays until 3")
	assert.False(t, l.Play(at(3), time.Second), "just in time, until 4")
	assert.True(t, l.Play(at(5), time.Second), "a second of silence; then until 6")
	assert.False(t, l.Play(at(5.5), 0))
	assert.True(t, l.Play(at(6.5), time.Second))
}

func TestListenerBeginsWithWhatItNeeds(t *testing.T) {
	need := 2.0
	l := speech.Listener{Need: func() float64 { return need }}
	assert.False(t, l.Begins(), "with nothing in hand")
	l.Hold(at(0), time.Second)
	assert.False(t, l.Begins())
	need = 1
	assert.True(t, l.Begins(), "the rest came nearer")
	assert.Equal(t, 3*time.Second, l.Waited(at(3)))
	need = 1e9
	l.Hold(at(4), speech.MostHeld)
	assert.True(t, l.Begins(), "it cannot hold more")
	assert.True(t, l.Starves())
}

// virtual is a simulated runtime in time that passes only when it waits.
type virtual struct {
	service *speech.Service
	now     time.Time
	chunk   int // Request.FineChunk
}

type virtualModels struct{ runtime cgo.Runtime }

func (m virtualModels) Acquire(ctx context.Context, id string, _ cache.Ask) (speech.Lease, error) {
	src, err := mock.Resolve(id)
	if err != nil {
		return nil, err
	}
	model, err := m.runtime.Load(ctx, src, cgo.LoadOptions{})
	return virtualLease{model}, err
}

func (virtualModels) Known(string) error { return nil }

type virtualLease struct{ model cgo.Model }

func (l virtualLease) Model() cgo.Model         { return l.model }
func (l virtualLease) Version() string          { return "" }
func (l virtualLease) Revoked() <-chan struct{} { return nil }
func (l virtualLease) Release()                 { _ = l.model.Close() }
func (l virtualLease) NewSession(_ context.Context, opts cgo.SessionOptions) (cgo.Session, error) {
	return l.model.NewSession(opts)
}

func newVirtual(t *testing.T, scale float64, faults string) *virtual {
	t.Helper()
	v := &virtual{now: at(0)}
	options := mock.Options{TimeScale: scale, Clock: func() time.Time { return v.now }}
	options.Wait = func(ctx context.Context, d time.Duration) error {
		v.now = v.now.Add(d)
		return ctx.Err()
	}
	if faults != "" {
		var err error
		options.Faults, err = mock.ParseFaults([]byte(faults))
		require.NoError(t, err)
	}
	v.service = speech.NewService(virtualModels{mock.New(options)}, speech.NewAdmission(speech.Limits{Running: 1}), zerolog.Nop())
	v.service.SetClock(func() time.Time { return v.now })
	return v
}

// heard is what a listener of one stream noticed.
type heard struct {
	underruns   int
	first, last time.Duration // from the request to what it hears first, and to the end of the work
	rate        float64
}

func (v *virtual) listen(t *testing.T, text string, speed float64) heard {
	t.Helper()
	var out heard
	var l speech.Listener
	start, held, playing := v.now, time.Duration(0), false
	length := func(pcm []float32) time.Duration {
		return time.Duration(float64(len(pcm)) / 24000 / speed * float64(time.Second))
	}
	begin := func() {
		if playing || !l.Begins() {
			return
		}
		playing, out.first = true, v.now.Sub(start)
		l.Play(v.now, held)
	}
	result, err := v.service.Speak(t.Context(), speech.Request{Model: "suno/bark-small", Text: text, Seed: seed(1), FineChunk: v.chunk}, speech.Sink{
		Start: func(s speech.Start) error {
			l.Need = func() float64 { return s.Need(speed) }
			return nil
		},
		Audio: func(pcm []float32) error {
			if playing {
				if l.Play(v.now, length(pcm)) {
					out.underruns++
				}
				return nil
			}
			l.Hold(v.now, length(pcm))
			held += length(pcm)
			begin()
			return nil
		},
		Progress: func(speech.Progress) error { begin(); return nil },
	})
	require.NoError(t, err)
	out.last, out.rate = v.now.Sub(start), result.RealTimeFactor()
	if !playing {
		out.first = out.last
	}
	return out
}

var uneven = strings.Repeat("A short one to start with, friends. "+sentence+" And now a much longer sentence follows, which goes on "+
	"and on over hills and through woods until it comes, late in the evening, to a quiet end by the sea. ", 2)

func TestStreamNeverStarvesAtAnyRate(t *testing.T) {
	for _, scale := range []float64{0.02, 0.2, 0.3, 3} {
		for _, chunk := range []int{0, speech.LowLatency} {
			neverStarves(t, scale, chunk)
		}
	}
}

func neverStarves(t *testing.T, scale float64, chunk int) {
	t.Helper()
	for name, text := range map[string]string{"even": long, "uneven": uneven, "one piece": sentence} {
		for _, speed := range []float64{0.5, 2} {
			v := newVirtual(t, scale, "")
			v.chunk = chunk
			for range 2 { // the first knows nothing of the model
				h := v.listen(t, text, speed)
				assert.Zero(t, h.underruns, "%s at scale %v, chunk %d, speed %v: %+v", name, scale, chunk, speed, h)
			}
		}
	}
}

func TestFastModelIsHeardAfterItsFirstPiece(t *testing.T) {
	v := newVirtual(t, 0.15, "")
	for range 2 {
		h := v.listen(t, long, 1)
		require.Less(t, h.rate, 0.8)
		assert.Less(t, h.first, h.last*35/100, "%+v", h)
	}
}

func TestLowLatencyIsHeardWithinItsFirstPiece(t *testing.T) {
	v := newVirtual(t, 0.15, "")
	exact := v.listen(t, long, 1)
	v.chunk = speech.LowLatency
	h := v.listen(t, long, 1)
	assert.Less(t, h.first, exact.first*2/3, "%+v, not %+v", h, exact)
}

func TestSlowModelIsHeardBeforeItIsDone(t *testing.T) {
	v := newVirtual(t, 0.4, "")
	v.listen(t, long, 1)
	h := v.listen(t, long, 1)
	require.Greater(t, h.rate, 1.0)
	assert.Less(t, h.first, h.last)
	assert.Greater(t, h.first, h.last/4)
}

func TestSuddenLoadStarvesTheListenerAndIsCounted(t *testing.T) {
	v := newVirtual(t, 0.1, `{"rules":[{"fault":"synthesis_slow","nth":7,"factor":20}]}`)
	assert.Zero(t, v.listen(t, long, 1).underruns)
	assert.Equal(t, 1, v.listen(t, long, 1).underruns, "its third piece is slow")
}
