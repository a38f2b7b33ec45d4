package audio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-audio/wav"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// samples with every rounding case: exact, halves both ways, full scale, beyond it, denormal.
var samples = []float32{0, 1.0 / 32768, -1.0 / 32768, 0.5 / 32768, -0.5 / 32768, 0.49 / 32768, 0.25, -0.25,
	32767.0 / 32768, 1, -1, 1.5, -1.5, 1e30, -1e30, math.SmallestNonzeroFloat32}

var quantised = []int{0, 1, -1, 1, -1, 0, 8192, -8192, 32767, 32767, -32768, 32767, -32768, 32767, -32768, 0}

// onlyWriter hides everything but Write, like a network connection.
type onlyWriter struct{ io.Writer }

// plain are the formats that this package writes itself: sample by sample, so that bytes can be compared.
func plain() []Format { return []Format{WAV, WAVFloat, PCM} }

func encode(t *testing.T, w io.Writer, f Format, length int64, blocks ...[]float32) {
	t.Helper()
	e, err := NewEncoder(w, f, 24000, length)
	require.NoError(t, err)
	for _, block := range blocks {
		require.NoError(t, e.Write(block))
	}
	require.NoError(t, e.Close())
}

func TestWholeWAVDecodesToTheRoundedSamples(t *testing.T) {
	b, err := Encode(WAV, 24000, samples)
	require.NoError(t, err)
	d := wav.NewDecoder(bytes.NewReader(b))
	require.True(t, d.IsValidFile())
	buf, err := d.FullPCMBuffer()
	require.NoError(t, err)
	assert.Equal(t, quantised, buf.Data)
	assert.EqualValues(t, 24000, d.SampleRate)
	assert.EqualValues(t, 16, d.BitDepth)
	assert.EqualValues(t, 1, d.NumChans)
	assert.EqualValues(t, 1, d.WavAudioFormat)
	assert.Len(t, b, 44+2*len(samples))
	assert.EqualValues(t, len(b)-8, binary.LittleEndian.Uint32(b[4:]))
	assert.EqualValues(t, 2*len(samples), binary.LittleEndian.Uint32(b[40:]))
}

func TestFloatWAVKeepsEveryBit(t *testing.T) {
	b, err := Encode(WAVFloat, 24000, samples)
	require.NoError(t, err)
	d := wav.NewDecoder(bytes.NewReader(b))
	require.True(t, d.IsValidFile())
	assert.EqualValues(t, 3, d.WavAudioFormat)
	assert.EqualValues(t, 32, d.BitDepth)
	require.NoError(t, d.FwdToPCM())
	raw, err := io.ReadAll(d.PCMChunk.R)
	require.NoError(t, err)
	require.Len(t, raw, 4*len(samples))
	for i, x := range samples {
		assert.Equal(t, math.Float32bits(x), binary.LittleEndian.Uint32(raw[4*i:]), "sample %d", i)
	}
	assert.EqualValues(t, len(samples), binary.LittleEndian.Uint32(b[46:]), "fact chunk")
	assert.EqualValues(t, len(b)-8, binary.LittleEndian.Uint32(b[4:]))
}

func TestPCMIsTheDataOfTheWAV(t *testing.T) {
	w, err := Encode(WAV, 24000, samples)
	require.NoError(t, err)
	p, err := Encode(PCM, 24000, samples)
	require.NoError(t, err)
	assert.Equal(t, w[44:], p)
}

func TestBlocksDoNotChangeTheBytes(t *testing.T) {
	for _, f := range plain() {
		whole, err := Encode(f, 24000, samples)
		require.NoError(t, err)
		var out bytes.Buffer
		encode(t, &out, f, int64(len(samples)), samples[:1], nil, samples[1:7], samples[7:])
		assert.Equal(t, whole, out.Bytes(), f.Name)
	}
}

func TestStreamOfUnknownLengthDiffersOnlyInItsSizes(t *testing.T) {
	for _, f := range []Format{WAV, WAVFloat} {
		whole, err := Encode(f, 24000, samples)
		require.NoError(t, err)
		var out bytes.Buffer
		encode(t, onlyWriter{&out}, f, UnknownLength, samples)
		stream := out.Bytes()
		require.Len(t, stream, len(whole))
		data := len(whole) - len(samples)*f.sampleBytes()
		assert.EqualValues(t, math.MaxUint32, binary.LittleEndian.Uint32(stream[4:]))
		assert.EqualValues(t, math.MaxUint32, binary.LittleEndian.Uint32(stream[data-4:]))
		assert.Equal(t, whole[8:40], stream[8:40])
		assert.Equal(t, whole[data:], stream[data:])
	}
}

func TestFileOfUnknownLengthGetsItsSizesAtClose(t *testing.T) {
	for _, f := range plain() {
		whole, err := Encode(f, 24000, samples)
		require.NoError(t, err)
		file, err := os.Create(filepath.Join(t.TempDir(), "x"+f.Extension))
		require.NoError(t, err)
		_, err = file.WriteString("before")
		require.NoError(t, err)
		encode(t, file, f, UnknownLength, samples)
		_, err = file.WriteString("after")
		require.NoError(t, err)
		require.NoError(t, file.Close())
		got, err := os.ReadFile(file.Name())
		require.NoError(t, err)
		assert.Equal(t, "before"+string(whole)+"after", string(got), f.Name)
	}
}

func TestPipeIsAStreamThoughItIsAFile(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	encode(t, w, WAV, UnknownLength, samples) // fits the pipe's buffer
	require.NoError(t, w.Close())
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Len(t, got, 44+2*len(samples))
	assert.EqualValues(t, math.MaxUint32, binary.LittleEndian.Uint32(got[4:]))
}

func TestEmptyAudioIsAValidWAV(t *testing.T) {
	b, err := Encode(WAV, 24000, nil)
	require.NoError(t, err)
	d := wav.NewDecoder(bytes.NewReader(b))
	d.ReadInfo()
	assert.NoError(t, d.Err())
	assert.Len(t, b, 44)
}

func TestSampleThatIsNotFiniteIsAnErrorAndWritesNothing(t *testing.T) {
	needLibraries(t)
	for _, f := range append(plain(), FLAC) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			var out bytes.Buffer
			e, err := NewEncoder(&out, f, 24000, UnknownLength)
			require.NoError(t, err)
			require.NoError(t, e.Write([]float32{0.5}))
			before := out.Len()
			err = e.Write([]float32{0, bad, 0})
			require.ErrorIs(t, err, ErrNotFinite)
			assert.ErrorContains(t, err, "sample 2 is")
			assert.Equal(t, before, out.Len())
			assert.ErrorIs(t, e.Write([]float32{0}), ErrNotFinite, "an error is final")
			assert.ErrorIs(t, e.Close(), ErrNotFinite)
		}
	}
}

func TestLengthMustBeAsPromised(t *testing.T) {
	e, err := NewEncoder(io.Discard, WAV, 24000, 2)
	require.NoError(t, err)
	require.NoError(t, e.Write([]float32{0}))
	assert.ErrorContains(t, e.Close(), "1 samples instead of the promised 2")

	e, err = NewEncoder(io.Discard, WAV, 24000, 2)
	require.NoError(t, err)
	assert.ErrorContains(t, e.Write(make([]float32, 3)), "more than the promised 2")
}

func TestImpossibleAudioIsRefused(t *testing.T) {
	needLibraries(t)
	_, err := NewEncoder(io.Discard, WAV, 24000, math.MaxUint32)
	assert.ErrorContains(t, err, "4 GiB")
	_, err = NewEncoder(io.Discard, WAV, 0, 1)
	assert.ErrorContains(t, err, "sample rate")
	_, err = NewEncoder(io.Discard, WAV, 24000, -2)
	assert.ErrorContains(t, err, "length")
	_, err = ParseFormat("mp4")
	assert.ErrorIs(t, err, ErrUnknownFormat)
	assert.ErrorContains(t, err, "flac, wav, wav-f32, pcm")
}

type brokenWriter struct{ after int }

var errBroken = errors.New("connection closed")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestWriterErrorsAreReturned(t *testing.T) {
	_, err := NewEncoder(&brokenWriter{0}, WAV, 24000, UnknownLength)
	assert.ErrorIs(t, err, errBroken)
	e, err := NewEncoder(&brokenWriter{1}, WAV, 24000, UnknownLength)
	require.NoError(t, err)
	assert.ErrorIs(t, e.Write(samples), errBroken)
	assert.ErrorIs(t, e.Close(), errBroken)
}

func BenchmarkWAV16(b *testing.B) {
	pcm := make([]float32, 24000)
	for i := range pcm {
		pcm[i] = float32(math.Sin(float64(i)))
	}
	e, err := NewEncoder(onlyWriter{io.Discard}, WAV, 24000, UnknownLength)
	require.NoError(b, err)
	b.SetBytes(int64(4 * len(pcm)))
	for b.Loop() {
		_ = e.Write(pcm)
	}
}
