//go:build cgo

package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/hub/hubtest"
	"barkd/server/models/voicefile"
)

const reference = "testdata/reference/base"

// audioTolerance is that of the runtime's own comparison with transformers, in package paritytest.
const audioTolerance = 1e-4

func TestConvertThenSynthGivesWhatTransformersGave(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "m.gguf")
	got := barkd(t, nil, "", "convert", reference, "-o", model)
	require.Zero(t, got.code, got.err)

	var expected struct {
		Cases []struct {
			Name, Text, Voice string
			MaxTokens         int     `json:"max_tokens"`
			MinEOSP           float64 `json:"min_eos_p"`
			Semantic          []int32
			Coarse, Fine      [][]int32
		}
	}
	text, err := os.ReadFile(filepath.Join(reference, "expected.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &expected))
	require.NotEmpty(t, expected.Cases)
	for _, c := range expected.Cases {
		t.Run(c.Name, func(t *testing.T) {
			wav, saved := filepath.Join(dir, "o.wav"), filepath.Join(dir, "saved.npz")
			args := []string{"synth", "--model", model, "--text", c.Text, "-o", wav, "--format", "wav-f32", "--greedy", "--rules", "hf",
				"--kv", "f32", "--max-tokens", strconv.Itoa(c.MaxTokens), "--min-eos-p", strconv.FormatFloat(c.MinEOSP, 'g', -1, 64), "--save-voice", saved}
			if c.Voice != "" {
				voice := filepath.Join(reference, "voices", filepath.FromSlash(c.Voice)+".npz")
				if _, err := os.Stat(voice); err != nil {
					voice = c.Voice // one the model carries
				}
				args = append(args, "--voice", voice)
			}
			got := barkd(t, nil, "", args...)
			require.Zero(t, got.code, got.err)
			tokens, err := voicefile.Read(saved)
			require.NoError(t, err)
			assert.Equal(t, c.Semantic, tokens.Semantic)
			assert.Equal(t, c.Coarse, tokens.Coarse)
			assert.Equal(t, c.Fine, tokens.Fine)
			file, err := os.ReadFile(wav)
			require.NoError(t, err)
			want, err := os.ReadFile(filepath.Join(reference, c.Name+".f32"))
			require.NoError(t, err)
			assertNear(t, floats(want), floats(file[len(file)-len(want):]))
		})
	}
}

func assertNear(t *testing.T, want, got []float32) {
	t.Helper()
	for i := range want {
		require.InDelta(t, want[i], got[i], audioTolerance, "sample %d", i)
	}
}

func floats(raw []byte) []float32 {
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

func TestPulledModelIsListedInspectedAndSpeaks(t *testing.T) {
	hub := hubtest.New(t, hubtest.Dir(t, "org/base", reference))
	home := t.TempDir()
	env := map[string]string{"HF_ENDPOINT": hub.URL, "HF_HOME": filepath.Join(home, "hf"), "HOME": home, "BARKD_MODELS": filepath.Join(home, "models")}
	for _, want := range []string{"org/base", "up to date"} {
		got := barkd(t, env, "", "pull", "org/base", "--type", "q8")
		require.Zero(t, got.code, got.err)
		assert.Contains(t, got.out+got.err, want)
	}
	assert.Regexp(t, `(?m)^org/base +\d`, barkd(t, env, "", "models").out)
	assert.Contains(t, barkd(t, env, "", "voices", "--model", "org/base").out, "odd\n")
	assert.Contains(t, barkd(t, env, "", "inspect", "org/base").out, "bark.voices")
	got := barkd(t, env, "", "synth", "--model", "org/base", "--text", "Hello.", "--voice", "odd", "-o", filepath.Join(home, "o.wav"))
	assert.Zero(t, got.code, got.err)
	got = barkd(t, env, "", "pull", "org/none")
	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.err, "org/none")
}
