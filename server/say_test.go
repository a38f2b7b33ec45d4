package main

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/audio/sndfile"
	"barkd/server/speech"
)

// fakePlayer puts a program of that name alone on the PATH, which keeps its arguments and what it is fed, and exits with
// the given code.
func fakePlayer(t *testing.T, name, code string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := "#!/bin/sh\necho \"$@\" >" + dir + "/args\n/bin/cat >" + dir + "/played\nexit " + code + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700))
	t.Setenv("PATH", dir)
	return dir
}

func TestSayPlaysWhatItSpeaks(t *testing.T) {
	dir := fakePlayer(t, "aplay", "0")
	got := barkd(t, simulated, "", "say", "--model", "suno/bark", "Hello", "there.", "--seed", "3")
	require.Zero(t, got.code, got.err)
	assert.Contains(t, got.err, "seed 3")
	assert.Contains(t, got.err, "real-time factor")
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	require.NoError(t, err)
	assert.Contains(t, string(args), "-r 24000")
	played, err := os.ReadFile(filepath.Join(dir, "played"))
	require.NoError(t, err)
	wav := filepath.Join(t.TempDir(), "same.wav")
	got = barkd(t, simulated, "Hello there.", "say", "--model", "suno/bark", "-", "--seed", "3", "-o", wav)
	require.Zero(t, got.code, got.err)
	written, err := os.ReadFile(wav)
	require.NoError(t, err)
	assert.Equal(t, written[44:], played, "the same text, from standard input into a file")
}

func TestSayIsHeardBeforeTheRestIsMade(t *testing.T) {
	fifo := fakePlayer(t, "aplay", "0")
	env := map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0.01", "MOCK_FAULTS": ""}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	text := strings.Repeat("This is a sentence that takes its time to be said, whatever happens. ", 200)
	go func() {
		ended <- run(ctx, []string{"say", "--model", "suno/bark", text}, stdio{strings.NewReader(""), io.Discard, io.Discard}, lookup(t, env))
	}()
	require.Eventually(t, func() bool {
		st, err := os.Stat(filepath.Join(fifo, "played"))
		return err == nil && st.Size() > 0
	}, time.Minute, time.Millisecond, "the player has audio while the speech goes on")
	cancel()
	assert.NotZero(t, <-ended, "it was interrupted, not finished")
}

func TestSayWritesEachFormatByTheNameOfTheFile(t *testing.T) {
	dir := t.TempDir()
	for _, extension := range []string{".mp3", ".opus", ".flac", ".WAV"} {
		path := filepath.Join(dir, "out"+extension)
		got := barkd(t, simulated, "Hello there.\n", "say", "-o", path, "--model", "suno/bark", "--seed", "1")
		require.Zero(t, got.code, got.err)
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		_, rateHz, err := sndfile.Decode(file)
		require.NoError(t, err, extension)
		assert.Equal(t, 24000, rateHz)
	}
	var lengths []int64
	for _, speed := range []string{"1", "2"} {
		path := filepath.Join(dir, "out.pcm")
		got := barkd(t, simulated, "", "say", "Hello there.", "-o", path, "--model", "suno/bark", "--seed", "1", "--speed", speed)
		require.Zero(t, got.code, got.err)
		st, err := os.Stat(path)
		require.NoError(t, err)
		lengths = append(lengths, st.Size())
	}
	assert.InEpsilon(t, lengths[0]/2, lengths[1], 0.05)
}

func TestSaySaysWhatIsWrong(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for want, args := range map[string][]string{
		"install one of paplay, aplay, ffplay, afplay": {"say", "Hello."},
		"aplay is not installed":                       {"say", "Hello.", "--player", "aplay"},
		`must end in one of .mp3, .opus`:               {"say", "Hello.", "-o", "out.txt"},
		"cannot write":                                 {"say", "Hello.", "-o", "/nowhere/out.wav"},
		"--speed is 9":                                 {"say", "Hello.", "--speed", "9", "-o", "x.wav"},
		"the text is empty":                            {"say", "-o", filepath.Join(t.TempDir(), "x.wav")},
		`no voice "nobody"`:                            {"say", "a", "--voice", "nobody", "-o", filepath.Join(t.TempDir(), "x.wav")},
		"needs the program ffmpeg":                     {"say", "a", "-o", "x.aac"},
	} {
		got := barkd(t, simulated, "", args...)
		assert.NotZero(t, got.code, want)
		assert.Contains(t, got.err, want)
	}
	fakePlayer(t, "ffplay", "3")
	got := barkd(t, simulated, "", "say", "Hello.")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.err, "ffplay: exit status 3")
}

func TestStoredVoicesAreAddedSpokenWithExportedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "VOICES_DIR": filepath.Join(dir, "voices")}
	file := filepath.Join(dir, "a.npz")
	got := barkd(t, env, "", "synth", "--model", "suno/bark", "--text", "Hello.", "-o", filepath.Join(dir, "a.wav"), "--save-voice", file)
	require.Zero(t, got.code, got.err)
	got = barkd(t, env, "", "voices", "add", "anna", file, "--model", "suno/bark")
	require.Zero(t, got.code, got.err)
	id := strings.TrimSpace(got.out)
	for _, list := range [][]string{{"voices", "--model", "suno/bark"}, {"voices", "list", "--model", "suno/bark"}} {
		assert.Contains(t, barkd(t, env, "", list...).out, "anna\t"+id+"\n")
	}
	say := func(voice string) []byte {
		out := filepath.Join(dir, "out.wav")
		got := barkd(t, env, "", "say", "--model", "suno/bark", "Hi.", "--voice", voice, "--seed", "1", "-o", out)
		require.Zero(t, got.code, got.err)
		audio, err := os.ReadFile(out)
		require.NoError(t, err)
		return audio
	}
	assert.Equal(t, say(file), say("anna"))
	assert.Equal(t, say(file), say(id))
	exported := filepath.Join(dir, "b.npz")
	require.Zero(t, barkd(t, env, "", "voices", "export", id, "-o", exported).code)
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	have, err := os.ReadFile(exported)
	require.NoError(t, err)
	assert.Equal(t, want, have)
	for text, args := range map[string][]string{
		"the name is taken":        {"voices", "add", "anna", file},
		"means another voice":      {"voices", "add", "alloy", file},
		"not an npz":               {"voices", "add", "b", filepath.Join(dir, "a.wav")},
		"there is no stored voice": {"voices", "remove", "bob"},
		"no stored voice":          {"voices", "export", "../a", "-o", exported},
	} {
		got := barkd(t, env, "", args...)
		assert.NotZero(t, got.code)
		assert.Contains(t, got.err, text)
	}
	require.Zero(t, barkd(t, env, "", "voices", "remove", "anna").code)
	assert.NotContains(t, barkd(t, env, "", "voices").out, "anna")
	env["VOICES_DIR"] = "off"
	assert.Contains(t, barkd(t, env, "", "voices", "remove", "anna").err, "set VOICES_DIR")
}

func TestTheBarTellsHowFarItIsAndNeverGoesBack(t *testing.T) {
	var out strings.Builder
	b := newSpeechBar(&out, strings.Repeat("a", 100))
	b.start(speech.Start{SampleRate: 24000})
	require.NoError(t, b.show(speech.Progress{Pieces: 1}))
	assert.Empty(t, out.String(), "not a terminal")
	b.out = &out
	b.start(speech.Start{SampleRate: 24000})
	last := 0.0
	for piece := range 2 {
		for stage := range cgo.Stage(cgo.StageCount) {
			for done := range 5 {
				require.NoError(t, b.show(speech.Progress{Piece: piece, Pieces: 2, Stage: stage, Done: done, Total: 4}))
				assert.GreaterOrEqual(t, b.share, last)
				last = b.share
			}
		}
		b.heard(make([]float32, 24000))
	}
	assert.InDelta(t, 1, last, 1e-9)
	require.NoError(t, b.show(speech.Progress{Piece: 0, Pieces: 2}))
	assert.Equal(t, last, b.share)
	b.clear()
	assert.Contains(t, out.String(), "piece 1 of 2, semantic")
	assert.Contains(t, b.describe(speech.Progress{Piece: 1, Pieces: 2, Stage: cgo.StageFine}), "2.0 s said, real-time factor")
}

func TestAPlayerOfFilesGetsAWAV(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\n/bin/cp \"$1\" " + dir + "/played\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "afplay"), []byte(script), 0o700))
	t.Setenv("PATH", dir)
	got := barkd(t, simulated, "", "say", "--model", "suno/bark", "Hello.")
	require.Zero(t, got.code, got.err)
	wav, err := os.ReadFile(filepath.Join(dir, "played"))
	require.NoError(t, err)
	assert.Equal(t, "RIFF", string(wav[:4]))
	assert.EqualValues(t, len(wav)-44, binary.LittleEndian.Uint32(wav[40:]), "whole, with its length")
}
