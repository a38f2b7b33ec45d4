//go:build cgo

package resample

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func tone(hz float64, rateHz, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(0.5 * math.Sin(2*math.Pi*hz*float64(i)/float64(rateHz)))
	}
	return out
}

func TestAToneKeepsItsPitchPhaseAndLevelAtEveryRate(t *testing.T) {
	for _, to := range []int{8000, 16000, 22050, 24000, 32000, 44100, 48000} {
		r, err := New(24000, to)
		require.NoError(t, err)
		var got []float32
		in := tone(440, 24000, 24001)
		for len(in) > 0 { // in odd blocks, as a model makes them
			n := min(len(in), 777)
			out, err := r.Write(in[:n])
			require.NoError(t, err)
			got = append(got, out...)
			in = in[n:]
		}
		rest, err := r.Flush()
		require.NoError(t, err)
		got = append(got, rest...)
		r.Close()
		require.Len(t, got, int(Length(24001, 24000, to)), to)
		want := tone(440, to, len(got))
		for i := 400; i < len(got)-400; i++ { // away from the ends, where the filter sees the silence outside
			require.InDelta(t, want[i], got[i], 1e-3, "%d Hz, sample %d", to, i)
		}
	}
}

func TestHighTonesAreNotHeardAtALowRate(t *testing.T) {
	r, err := New(24000, 8000)
	require.NoError(t, err)
	defer r.Close()
	out, err := r.Write(tone(6000, 24000, 24000)) // 8 kHz would fold it to 2 kHz
	require.NoError(t, err)
	for _, x := range out[200:] {
		require.InDelta(t, 0, x, 1e-3)
	}
}

func TestLengths(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 3, 23999, 1 << 40} {
		assert.EqualValues(t, math.Round(float64(n)*44100/24000), Length(n, 24000, 44100))
	}
	for n := range 50 {
		r, err := New(24000, 22050)
		require.NoError(t, err)
		out, err := r.Write(make([]float32, n))
		require.NoError(t, err)
		rest, err := r.Flush()
		require.NoError(t, err)
		assert.EqualValues(t, Length(int64(n), 24000, 22050), len(out)+len(rest))
		r.Close()
		r.Close()
		_, err = r.Write(nil)
		assert.ErrorIs(t, err, errClosed)
	}
}

func TestImpossibleRatesAreRefused(t *testing.T) {
	for _, rates := range [][2]int{{0, 1}, {1, 0}, {-1, 5}, {24000, 1 << 30}} {
		_, err := New(rates[0], rates[1])
		assert.Error(t, err, rates)
	}
}
