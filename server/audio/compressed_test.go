//go:build cgo

package audio

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/audio/sndfile"
)

const rateHz = 24000

// sweep is a tone that rises from 200 to 3200 Hz.
func sweep(n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		at, seconds := float64(i)/float64(n), float64(n)/rateHz
		out[i] = float32(0.5 * math.Sin(2*math.Pi*seconds*(200*at+1500*at*at)))
	}
	return out
}

// here are the formats that can be had on this machine.
func here(t *testing.T) []Format {
	t.Helper()
	var out []Format
	for _, f := range Formats() {
		if err := f.Available(); err != nil {
			t.Log("left out:", err)
			continue
		}
		out = append(out, f)
	}
	return out
}

// slack is by how many samples a decoded file may be longer than its audio, by ffmpeg, whole or streamed: a frame for
// AAC, whose encoder's delay ADTS cannot tell; for MP3 streams the delay and the rest of the last frame.
func slack(f Format, whole bool) int {
	switch {
	case f.Name == AAC.Name:
		return 3 * 1024
	case f.Name == MP3.Name && !whole:
		return 1105 + 2*576
	}
	return 0
}

func stream(t *testing.T, f Format, samples []float32) []byte {
	t.Helper()
	var out bytes.Buffer
	encode(t, onlyWriter{&out}, f, UnknownLength, samples[:len(samples)/3], samples[len(samples)/3:])
	return out.Bytes()
}

// probe has ffmpeg decode a file, and returns the number of samples.
func probe(t *testing.T, f Format, data []byte) int {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: the files are decoded by libsndfile alone")
	}
	path := filepath.Join(t.TempDir(), "x"+f.Extension)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	args := []string{"-v", "error"}
	if f.Name == PCM.Name {
		args = append(args, "-f", "s16le", "-ar", strconv.Itoa(rateHz), "-ac", "1")
	}
	args = append(args, "-i", path, "-ar", strconv.Itoa(rateHz), "-ac", "1", "-f", "s16le", "-")
	cmd := exec.Command("ffmpeg", args...)
	var complain strings.Builder
	cmd.Stderr = &complain
	raw, err := cmd.Output()
	require.NoError(t, err, "%s: %s", f.Name, complain.String())
	return len(raw) / 2
}

func TestFFmpegDecodesEveryFormatToItsLength(t *testing.T) {
	for _, f := range here(t) {
		for _, n := range []int{rateHz, 33333} {
			whole, err := Encode(f, rateHz, sweep(n))
			require.NoError(t, err)
			for name, data := range map[string][]byte{"whole": whole, "stream": stream(t, f, sweep(n))} {
				got := probe(t, f, data)
				assert.GreaterOrEqual(t, got, n, "%s %s", f.Name, name)
				assert.LessOrEqual(t, got, n+slack(f, name == "whole"), "%s %s", f.Name, name)
			}
		}
	}
}

func TestFLACIsTheWAVToTheSample(t *testing.T) {
	loud := append(sweep(33333), samples...)
	wav, err := Encode(WAV, rateHz, loud)
	require.NoError(t, err)
	want, _, err := sndfile.Decode(wav)
	require.NoError(t, err)
	whole, err := Encode(FLAC, rateHz, loud)
	require.NoError(t, err)
	for _, flac := range [][]byte{whole, stream(t, FLAC, loud)} {
		got, rate, err := sndfile.Decode(flac)
		require.NoError(t, err)
		assert.Equal(t, rateHz, rate)
		assert.Equal(t, want, got)
	}
}

func TestLossyFormatsSoundAlike(t *testing.T) {
	want := sweep(2 * rateHz)
	for _, f := range []Format{MP3, Opus} {
		data, err := Encode(f, rateHz, want)
		require.NoError(t, err)
		got, _, err := sndfile.Decode(data)
		require.NoError(t, err)
		require.Len(t, got, len(want), f.Name)
		var noise, signal float64
		for i := range want {
			noise += math.Pow(float64(got[i]-want[i]), 2)
			signal += math.Pow(float64(want[i]), 2)
		}
		// Opus keeps what is heard rather than the waveform; a copy that is out of place is below 0 dB.
		assert.Greater(t, 10*math.Log10(signal/noise), 4., "%s: decibels of signal above noise", f.Name)
		assert.Less(t, len(data), len(want), "%s is compressed", f.Name)
	}
}

func TestLoudSamplesAreClippedNotWrapped(t *testing.T) {
	loud := sweep(rateHz)
	for i := range loud {
		loud[i] = 2 + loud[i]
	}
	for _, f := range []Format{MP3, Opus, FLAC} {
		data, err := Encode(f, rateHz, loud)
		require.NoError(t, err)
		got, _, err := sndfile.Decode(data)
		require.NoError(t, err)
		assert.Greater(t, got[100], float32(0.5), f.Name)
	}
}

func TestNoSamplesMakeNoCompressedFile(t *testing.T) {
	for _, f := range []Format{MP3, Opus, FLAC} {
		_, err := Encode(f, rateHz, nil)
		assert.ErrorContains(t, err, "no samples")
	}
}

func TestRateThatAFormatCannotHaveSaysSo(t *testing.T) {
	_, err := NewEncoder(io.Discard, Opus, 22050, UnknownLength)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "opus at 22050 Hz")
}

func TestAACWithoutFFmpegSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := ParseFormat("aac")
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "aac needs the program ffmpeg, which is not on the PATH; there are mp3, opus, flac, wav, wav-f32, pcm")
	_, err = NewEncoder(io.Discard, AAC, rateHz, UnknownLength)
	assert.ErrorIs(t, err, ErrUnavailable)
}

// fakeFFmpeg puts a script of that name first on the path.
func fakeFFmpeg(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ffmpeg"), []byte("#!/bin/sh\n"+script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestFailingFFmpegIsAnErrorWithItsWords(t *testing.T) {
	fakeFFmpeg(t, "cat >/dev/null; echo no such encoder >&2; exit 3")
	_, err := Encode(AAC, rateHz, sweep(10))
	assert.ErrorContains(t, err, "no such encoder")
}

func TestAbortedFFmpegIsEnded(t *testing.T) {
	fakeFFmpeg(t, "exec sleep 600")
	e, err := NewEncoder(io.Discard, AAC, rateHz, UnknownLength)
	require.NoError(t, err)
	e.Abort()
	e.Abort()
	assert.NotNil(t, e.(*ffmpeg).cmd.ProcessState)
	assert.Error(t, e.Write(sweep(1<<16)))
}

func TestAbortAfterAnErrorAndCloseAreNoMistake(t *testing.T) {
	for _, f := range here(t) {
		e, err := NewEncoder(onlyWriter{&brokenWriter{1}}, f, rateHz, UnknownLength)
		require.NoError(t, err)
		for range 100 { // ffmpeg's output breaks some time after its input
			if err = e.Write(sweep(rateHz)); err != nil {
				break
			}
		}
		require.Error(t, errors.Join(err, e.Close()), f.Name)
		e.Abort()
		require.Error(t, e.Write(sweep(9)), f.Name)
	}
}
