//go:build cgo

package audio

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/audio/sndfile"
)

func TestSpeedChangesTheLengthOfEveryFormat(t *testing.T) {
	in := sweep(2 * rateHz)
	for _, speed := range []float64{0.5, 1, 2} {
		changed, err := ChangeSpeed(in, rateHz, speed)
		require.NoError(t, err)
		assert.InEpsilon(t, float64(len(in))/speed, len(changed), 0.01)
		var out bytes.Buffer
		e, err := NewEncoder(onlyWriter{&out}, FLAC, rateHz, UnknownLength)
		require.NoError(t, err)
		e, err = AtSpeed(e, rateHz, speed)
		require.NoError(t, err)
		require.NoError(t, e.Write(in[:999]))
		require.NoError(t, e.Write(in[999:]))
		require.NoError(t, e.Close())
		got, _, err := sndfile.Decode(out.Bytes())
		require.NoError(t, err)
		assert.Len(t, got, len(changed), "streamed as whole")
	}
	_, err := ChangeSpeed([]float32{float32(math.NaN())}, rateHz, 2)
	require.ErrorIs(t, err, ErrNotFinite)
	_, err = ChangeSpeed(in, rateHz, 5)
	assert.ErrorContains(t, err, "between 0.25 and 4")
}
