package paritytest

import (
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/native"
	"barkd/server/models/convert"
	"barkd/server/models/schema"
	"barkd/server/models/untrained"
)

// Audio may differ by the rounding of float32 sums: 1e-4 of full scale is far above it (transformers' own float32 and
// float64 runs of the fixtures differ by less than 1e-6) and far below hearing.
const audioTolerance = 1e-4

func newRuntime(t *testing.T) cgo.Runtime {
	t.Helper()
	rt, err := native.New(nil)
	if runtimeMissing(err) {
		t.Skipf("needs the native runtime: %v", err)
	}
	require.NoError(t, err)
	return rt
}

// load converts a fixture to the weight type (convert.Source for that of the checkpoint) and loads it.
func load(t *testing.T, rt cgo.Runtime, f fixture, weightType convert.Type) cgo.Model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.gguf")
	_, err := convert.Convert(t.Context(), convert.Options{Source: f.unpack(t), Out: path, Type: weightType, Name: "reference"})
	require.NoError(t, err)
	model, err := rt.Load(t.Context(), cgo.Source{Name: "reference", Path: path}, cgo.LoadOptions{Threads: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, model.Close()) })
	return model
}

func TestGreedyTokensAndAudioEqualTransformers(t *testing.T) {
	rt := newRuntime(t)
	all := readFixtures(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		t.Run(name, func(t *testing.T) {
			model := load(t, rt, f, convert.Source)
			for _, want := range f.Cases {
				t.Run(want.Name, func(t *testing.T) {
					ids, err := model.Tokenize(cgo.RulesHF, want.Text)
					require.NoError(t, err)
					require.Equal(t, want.TextIDs, ids, "text ids")
					got := speak(t, model, cgo.KVF32, want.greedy(f.voice(t, model, want.Voice)))
					require.Equal(t, [][]int32{want.Semantic}, got.tokens[cgo.StageSemantic], "semantic tokens")
					require.Equal(t, want.Coarse, got.tokens[cgo.StageCoarse], "coarse codes")
					require.Equal(t, want.Fine, got.tokens[cgo.StageFine], "fine codes")
					require.Len(t, got.audio, len(want.audio))
					requireClose(t, want.audio, got.audio)
				})
			}
		})
	}
}

func requireClose(t *testing.T, want, got []float32) {
	t.Helper()
	for i := range want {
		if d := math.Abs(float64(want[i]) - float64(got[i])); !(d <= audioTolerance) {
			require.Failf(t, "audio differs", "sample %d of %d is %g, transformers has %g", i, len(want), got[i], want[i])
		}
	}
}

// Reduced weights and the 16-bit cache give other tokens; they must give finite audio of a fitting length.
func TestEveryWeightTypeSpeaks(t *testing.T) {
	rt := newRuntime(t)
	all := readFixtures(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		for _, weightType := range []convert.Type{convert.F32, convert.F16, convert.BF16, convert.Q8} {
			t.Run(name+"/"+string(weightType), func(t *testing.T) {
				model := load(t, rt, f, weightType)
				got := speak(t, model, cgo.KVF16, f.Cases[0].greedy(nil))
				frames := 0
				if fine := got.tokens[cgo.StageFine]; len(fine) > 0 {
					frames = len(fine[0])
				}
				require.Len(t, got.audio, frames*model.Info().HopLength)
				for i, x := range got.audio {
					require.Falsef(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0), "sample %d is %g", i, x)
				}
			})
		}
	}
}

// Most of the fixtures' matrices are too narrow for tiles.
func TestFilesOfTilesSpeak(t *testing.T) {
	rt := newRuntime(t)
	for _, weightType := range []schema.Type{schema.Q8, schema.Q4} {
		t.Run(string(weightType), func(t *testing.T) {
			config := untrained.DefaultConfig()
			config.Type = weightType
			path := filepath.Join(t.TempDir(), "tiles.gguf")
			require.NoError(t, untrained.WriteFile(path, 1, config))
			model, err := rt.Load(t.Context(), cgo.Source{Name: "tiles", Path: path}, cgo.LoadOptions{Threads: 2})
			require.NoError(t, err)
			defer func() { require.NoError(t, model.Close()) }()
			req, err := model.Defaults(cgo.RulesSuno)
			require.NoError(t, err)
			req.Text, req.MaxSemanticTokens, req.Semantic.MinEOSP = "Hello.", 20, 0
			got := speak(t, model, cgo.KVF16, req)
			require.Len(t, got.tokens[cgo.StageSemantic][0], 20)
			require.NotEmpty(t, got.audio)
			for i, x := range got.audio {
				require.Falsef(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0), "sample %d is %g", i, x)
			}
		})
	}
}

func TestModelsAndVoicesFreeEverything(t *testing.T) {
	rt := newRuntime(t)
	before := native.LiveHandles()
	f := readFixtures(t)["base"]
	t.Run("use", func(t *testing.T) {
		model := load(t, rt, f, convert.Source)
		for _, c := range f.Cases {
			speak(t, model, cgo.KVF16, c.greedy(f.voice(t, model, c.Voice)))
		}
	})
	assert.Equal(t, before, native.LiveHandles())
}
