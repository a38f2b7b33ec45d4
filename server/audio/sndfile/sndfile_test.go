//go:build cgo

package sndfile

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const rateHz = 24000

// sweep is a tone that rises from 200 to 3200 Hz, so that only the right alignment of two copies correlates.
func sweep(samples int) []float32 {
	out := make([]float32, samples)
	for i := range out {
		at := float64(i) / float64(samples)
		seconds := float64(samples) / rateHz
		out[i] = float32(0.5 * math.Sin(2*math.Pi*seconds*(200*at+1500*at*at)))
	}
	return out
}

func encode(t *testing.T, kind Kind, stream bool, samples []float32, blockSamples int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, kind, rateHz, 0, stream)
	require.NoError(t, err)
	for len(samples) > 0 {
		n := min(blockSamples, len(samples))
		if kind == FLAC {
			block := make([]int16, n)
			for i, x := range samples[:n] {
				block[i] = int16(x * 32768)
			}
			require.NoError(t, w.WriteInt16(block))
		} else {
			require.NoError(t, w.WriteFloat(samples[:n]))
		}
		samples = samples[n:]
	}
	require.NoError(t, w.Close())
	w.Abort()
	assert.Error(t, w.Close(), "it is closed")
	return out.Bytes()
}

// delay returns by how many samples got lags behind want, up to a limit, by their correlation.
func delay(want, got []float32, limit int) int {
	best, at := 0.0, 0
	for lag := range limit {
		sum := 0.0
		for i := 0; i < len(want) && i+lag < len(got); i++ {
			sum += float64(want[i]) * float64(got[i+lag])
		}
		if sum > best {
			best, at = sum, lag
		}
	}
	return at
}

func TestWholeFilesDecodeToTheirLengthAndPlace(t *testing.T) {
	for name, kind := range map[string]Kind{"mp3": MP3, "opus": Opus, "flac": FLAC} {
		for _, n := range []int{1, 575, 576, 24000, 33333} {
			want := sweep(n)
			got, rate, err := Decode(encode(t, kind, false, want, 5000))
			require.NoError(t, err, name)
			assert.Equal(t, rateHz, rate)
			assert.Len(t, got, n, "%s of %d samples", name, n)
			if n > 20000 {
				assert.LessOrEqual(t, delay(want[:8000], got, 2400), 1, name)
			}
		}
	}
}

// An MP3 stream has no header that says what to cut off: the encoder's delay of 1105 samples comes first, and the
// last frame is full.
func TestStreamsDecodeToTheirLengthAndPlace(t *testing.T) {
	const delaySamples, frameSamples = 1105, 576
	for _, n := range []int{1, 24000, 33333} {
		want := sweep(n)
		for name, kind := range map[string]Kind{"opus": Opus, "flac": FLAC} {
			got, _, err := Decode(encode(t, kind, true, want, 777))
			require.NoError(t, err, name)
			assert.Len(t, got, n, "%s of %d samples", name, n)
		}
		got, _, err := Decode(encode(t, MP3, true, want, 777))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(got), n+delaySamples-1)
		assert.LessOrEqual(t, len(got), n+delaySamples+2*frameSamples)
		if n > 20000 {
			assert.Equal(t, delaySamples, delay(want[:8000], got, 2400))
		}
	}
}

func TestStreamIsSentWhileItIsWritten(t *testing.T) {
	for name, kind := range map[string]Kind{"mp3": MP3, "opus": Opus} {
		var out bytes.Buffer
		w, err := NewWriter(&out, kind, rateHz, 0, true)
		require.NoError(t, err)
		require.NoError(t, w.WriteFloat(sweep(rateHz)))
		// Decoding needs no end: what lies unsent is less than a page and the encoder's own delay.
		got, _, err := Decode(out.Bytes())
		require.NoError(t, err, name)
		assert.Greater(t, len(got), rateHz*6/10, name)
		w.Abort()
	}
}

func TestImpossibleRateIsRefused(t *testing.T) {
	_, err := NewWriter(&bytes.Buffer{}, Opus, 22050, 0, true)
	assert.ErrorContains(t, err, "22050 Hz")
}

type brokenWriter struct{}

var errBroken = errors.New("connection closed")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestWriterErrorsAreReturned(t *testing.T) {
	w, err := NewWriter(brokenWriter{}, MP3, rateHz, 0, true)
	require.NoError(t, err)
	require.ErrorIs(t, w.WriteFloat(sweep(rateHz)), errBroken)
	require.ErrorIs(t, w.WriteFloat(sweep(1)), errBroken, "an error is final")
	assert.ErrorIs(t, w.Close(), errBroken)
}

func TestNonsenseIsNotDecoded(t *testing.T) {
	for _, data := range [][]byte{nil, {0}, []byte("OggS"), bytes.Repeat([]byte{0xff}, 999)} {
		_, _, err := Decode(data)
		assert.Error(t, err)
	}
}

func TestSameAudioIsTheSameBytes(t *testing.T) {
	samples := sweep(2 * rateHz)
	for _, kind := range []Kind{MP3, Opus, FLAC} {
		for _, stream := range []bool{false, true} {
			once, again := encode(t, kind, stream, samples, 10240), encode(t, kind, stream, samples, 10240)
			assert.Equal(t, once, again, "kind %v", kind)
			assert.NotEqual(t, once, encode(t, kind, stream, sweep(rateHz), 10240))
			decoded, _, err := Decode(once)
			require.NoError(t, err, "each page's sum is right")
			assert.GreaterOrEqual(t, len(decoded), len(samples))
		}
	}
}

func TestOggSerialFollowsTheAudio(t *testing.T) {
	serials := map[string]bool{}
	for _, first := range [][]float32{sweep(rateHz), sweep(rateHz / 2)} {
		page := encode(t, Opus, true, first, 10240)
		serial := page[oggSerialAt:oggSumAt][:4]
		serials[string(serial)] = true
		for at := 0; at < len(page); {
			require.Equal(t, "OggS", string(page[at:at+4]))
			assert.Equal(t, serial, page[at+oggSerialAt:][:4], "one stream, one number")
			size := oggHeader + int(page[at+oggTableAt])
			for _, n := range page[at+oggHeader : at+size] {
				size += int(n)
			}
			at += size
		}
	}
	assert.Len(t, serials, 2)
}
