package audio

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/audio/resample"
	"barkd/server/audio/sndfile"
)

// hum is a tone of 300 Hz at 24 kHz.
func hum(n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(0.5 * math.Sin(2*math.Pi*300*float64(i)/24000))
	}
	return out
}

// needLibraries skips a test of what a build without cgo cannot do.
func needLibraries(t *testing.T) {
	t.Helper()
	if !sndfile.Available {
		t.Skip("this build is without cgo, and so without libsndfile and libspeexdsp")
	}
}

func TestMP3HasTheRateTheBitRateAndTheLengthThatItSays(t *testing.T) {
	needLibraries(t)
	for _, c := range [][2]int{{22050, 32}, {24000, 48}, {44100, 32}, {44100, 64}, {44100, 96}, {44100, 128}, {44100, 192}} {
		encoded, err := Encode(MP3.At(c[0], c[1]), 24000, hum(48001))
		require.NoError(t, err)
		pcm, rateHz, err := sndfile.Decode(encoded)
		require.NoError(t, err)
		assert.Equal(t, c[0], rateHz)
		extra := int64(len(pcm)) - resample.Length(48001, 24000, rateHz)
		assert.GreaterOrEqual(t, extra, int64(0), "%v", c)
		if room := map[bool]int{true: 144, false: 72}[c[0] >= 32000] * c[1] * 1000 / c[0]; room > 160 { // bytes of a frame: LAME's note of the length takes one
			assert.Zero(t, extra, "%v", c)
		}
		assert.LessOrEqual(t, extra, int64(1105+2*576), "%v", c)
		assert.InEpsilon(t, c[1], float64(len(encoded))*8/2/1000, 0.1, "kbit/s of %v", c)
	}
}

func TestOpusTakesABitRate(t *testing.T) {
	needLibraries(t)
	var before int
	for _, kbit := range []int{32, 64, 96, 128, 192} {
		encoded, err := Encode(Opus.At(0, kbit), 24000, noise(48000))
		require.NoError(t, err)
		assert.Greater(t, len(encoded), before)
		assert.InEpsilon(t, kbit, float64(len(encoded))*8/2/1000, 0.4, "variable, of noise")
		before = len(encoded)
	}
}

func noise(n int) []float32 {
	out := make([]float32, n)
	state := uint32(1)
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = float32(int32(state)) / math.MaxInt32 / 2
	}
	return out
}

func TestPCMAtAnotherRateIsTheSameTone(t *testing.T) {
	needLibraries(t)
	encoded, err := Encode(PCM.At(16000, 0), 24000, hum(24000))
	require.NoError(t, err)
	require.Len(t, encoded, 2*16000)
	for i := 200; i < 15800; i++ {
		want := 0.5 * math.Sin(2*math.Pi*300*float64(i)/16000)
		require.InDelta(t, want, float64(int16(binary.LittleEndian.Uint16(encoded[2*i:])))/32768, 1e-3)
	}
}

func TestMuLawIsG711(t *testing.T) {
	needLibraries(t)
	encoded, err := Encode(ULaw.At(8000, 0), 24000, hum(24000))
	require.NoError(t, err)
	require.Len(t, encoded, 8000)
	for i := 100; i < 7900; i++ {
		u := int(^encoded[i]) // the standard's own words: sign, exponent, mantissa
		linear := float64(((u&15)<<3+0x84)<<(u>>4&7)-0x84) / 32768
		if u&0x80 != 0 {
			linear = -linear
		}
		want := 0.5 * math.Sin(2*math.Pi*300*float64(i)/8000)
		require.InDelta(t, want, linear, 0.02, i)
	}
	_, err = Encode(ALaw.At(8000, 0), 24000, hum(24000))
	assert.NoError(t, err)
}

func TestAStreamAtAnotherRateIsTheWhole(t *testing.T) {
	needLibraries(t)
	whole, err := Encode(PCM.At(44100, 0), 24000, hum(10001))
	require.NoError(t, err)
	var out bytes.Buffer
	e, err := NewEncoder(&out, PCM.At(44100, 0), 24000, UnknownLength)
	require.NoError(t, err)
	in := hum(10001)
	for len(in) > 0 {
		n := min(999, len(in))
		require.NoError(t, e.Write(in[:n]))
		in = in[n:]
	}
	assert.Greater(t, out.Len(), len(whole)*9/10, "it does not wait for the end")
	require.NoError(t, e.Close())
	assert.Equal(t, whole, out.Bytes())
	_, err = NewEncoder(&out, PCM.At(1<<20, 0), 24000, UnknownLength)
	assert.Error(t, err)
}
