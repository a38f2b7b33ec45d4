//go:build cgo

package tempo

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const rateHz = 24000

// voice is something like a vowel: a few harmonics of a pitch.
func voice(samples int, pitchHz float64) []float32 {
	out := make([]float32, samples)
	for i := range out {
		for h := 1; h <= 4; h++ {
			out[i] += float32(0.2 / float64(h) * math.Sin(2*math.Pi*pitchHz*float64(h*i)/rateHz))
		}
	}
	return out
}

func stretch(t *testing.T, speed float64, in []float32, blockSamples int) []float32 {
	t.Helper()
	s, err := New(rateHz, speed)
	require.NoError(t, err)
	defer s.Close()
	var out []float32
	for len(in) > 0 {
		n := min(blockSamples, len(in))
		part, err := s.Write(in[:n])
		require.NoError(t, err)
		out = append(out, part...)
		in = in[n:]
	}
	rest, err := s.Flush()
	require.NoError(t, err)
	return append(out, rest...)
}

// pitch returns the frequency from 60 to 400 Hz at which the samples repeat best.
func pitch(samples []float32) float64 {
	best, at := 0.0, 0
	for lag := rateHz / 400; lag <= rateHz/60; lag++ {
		sum := 0.0
		for i := 0; i+lag < len(samples); i++ {
			sum += float64(samples[i]) * float64(samples[i+lag])
		}
		if sum /= float64(len(samples) - lag); sum > 1.02*best { // the first of several periods
			best, at = sum, lag
		}
	}
	return rateHz / float64(at)
}

var speeds = []float64{0.25, 0.5, 0.9, 1, 1.1, 1.5, 2, 2.5, 4}

func TestLengthFollowsTheSpeed(t *testing.T) {
	in := voice(20*rateHz, 180)
	for _, speed := range speeds {
		want := float64(len(in)) / speed
		got := float64(len(stretch(t, speed, in, 5000)))
		assert.InEpsilon(t, want, got, 0.01, "speed %v", speed)
	}
}

func TestPitchStays(t *testing.T) {
	for _, speed := range speeds {
		out := stretch(t, speed, voice(4*rateHz, 180), 5000)
		middle := out[len(out)/2 : len(out)/2+4800]
		assert.InDelta(t, 180, pitch(middle), 4, "speed %v", speed)
		loudness := 0.0
		for _, x := range middle {
			loudness += float64(x) * float64(x)
		}
		assert.InDelta(t, 0.02*(1+1./4+1./9+1./16), loudness/float64(len(middle)), 0.006, "speed %v", speed)
	}
}

func TestBlocksDoNotChangeTheSamples(t *testing.T) {
	in := voice(2*rateHz, 140)
	for _, speed := range speeds {
		assert.Equal(t, stretch(t, speed, in, len(in)), stretch(t, speed, in, 333), "speed %v", speed)
	}
}

func TestSpeechComesOutWhileItGoesIn(t *testing.T) {
	s, err := New(rateHz, 2)
	require.NoError(t, err)
	defer s.Close()
	out, err := s.Write(voice(rateHz, 180))
	require.NoError(t, err)
	assert.Greater(t, len(out), rateHz/2-1000)
}

func TestFewSamplesAreNoMistake(t *testing.T) {
	for _, n := range []int{0, 1, 10, 300} {
		for _, speed := range speeds {
			assert.LessOrEqual(t, len(stretch(t, speed, voice(n, 180), 7)), int(math.Ceil(float64(n)/speed)))
		}
	}
}

func TestLoudSamplesAreClippedNotWrapped(t *testing.T) {
	in := voice(rateHz, 180)
	for i := range in {
		in[i] = max(0.2, in[i]*9)
	}
	for _, x := range stretch(t, 1.5, in, 999) {
		require.Greater(t, x, float32(0))
	}
}

func TestSpeedsBeyondTheLimitsAreRefused(t *testing.T) {
	for _, speed := range []float64{0, -1, 0.24, 4.01, math.NaN(), math.Inf(1)} {
		_, err := New(rateHz, speed)
		assert.ErrorContains(t, err, "not between 0.25 and 4")
	}
}

func TestClosedStretcherFails(t *testing.T) {
	s, err := New(rateHz, 2)
	require.NoError(t, err)
	s.Close()
	s.Close()
	_, err = s.Write([]float32{0})
	require.Error(t, err)
	_, err = s.Flush()
	assert.Error(t, err)
}
