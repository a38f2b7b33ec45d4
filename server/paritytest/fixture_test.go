package paritytest

import (
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/models/voicefile"
)

const fixtures = "../testdata/reference"

// A fixture is a Hugging Face directory and what transformers made of it.
type fixture struct {
	dir   string
	Cases []reference
}

// reference is one greedy float32 run of transformers.
type reference struct {
	Name      string
	Text      string
	Voice     string
	MaxTokens int       `json:"max_tokens"`
	MinEOSP   float32   `json:"min_eos_p"`
	TextIDs   []int32   `json:"text_ids"`
	Semantic  []int32   // without the end token
	Coarse    [][]int32 // codes without offsets
	Fine      [][]int32
	audio     []float32
}

// readFixtures returns all fixtures by name.
func readFixtures(t *testing.T) map[string]fixture {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(fixtures, "*", "expected.json"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, "no fixtures in %s", fixtures)
	all := make(map[string]fixture)
	for _, path := range paths {
		f := fixture{dir: filepath.Dir(path)}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &f), path)
		for i := range f.Cases {
			f.Cases[i].audio = readFloats(t, filepath.Join(f.dir, f.Cases[i].Name+".f32"))
		}
		all[filepath.Base(f.dir)] = f
	}
	return all
}

// readFloats reads a file of little-endian float32.
func readFloats(t *testing.T, path string) []float32 {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

// unpack returns a folder with the fixture's checkpoint, its compressed files expanded.
func (f fixture) unpack(t *testing.T) string {
	t.Helper()
	packed, err := filepath.Glob(filepath.Join(f.dir, "*.gz"))
	require.NoError(t, err)
	if len(packed) == 0 {
		return f.dir
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(f.dir)))
	for _, path := range packed {
		in, err := os.Open(path)
		require.NoError(t, err)
		expanded, err := gzip.NewReader(in)
		require.NoError(t, err)
		out, err := os.Create(filepath.Join(dir, strings.TrimSuffix(filepath.Base(path), ".gz")))
		require.NoError(t, err)
		_, err = io.Copy(out, expanded)
		require.NoError(t, err)
		require.NoError(t, out.Close())
		require.NoError(t, in.Close())
	}
	return dir
}

// voice opens the voice of a case: an .npz file of the fixture's voices folder, or one that the converter put in
// the model. It returns nil for none.
func (f fixture) voice(t *testing.T, model cgo.Model, name string) cgo.Voice {
	t.Helper()
	if name == "" {
		return nil
	}
	arrays, err := voicefile.Read(filepath.Join(f.dir, "voices", filepath.FromSlash(name)+voicefile.Suffix))
	var voice cgo.Voice
	if err == nil {
		voice, err = model.NewVoice(arrays)
	} else {
		voice, err = model.Voice(name)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, voice.Close()) })
	return voice
}

// spoken is what one request gave.
type spoken struct {
	tokens map[cgo.Stage][][]int32
	audio  []float32
}

// speak runs one request in a new session.
func speak(t *testing.T, model cgo.Model, kv cgo.KVType, req cgo.Request) spoken {
	t.Helper()
	session, err := model.NewSession(cgo.SessionOptions{KV: kv})
	require.NoError(t, err)
	defer func() { require.NoError(t, session.Close()) }()
	out := spoken{tokens: make(map[cgo.Stage][][]int32)}
	stats, err := session.Synthesize(t.Context(), req, cgo.Sink{
		Audio: func(pcm []float32) error {
			out.audio = append(out.audio, pcm...)
			return nil
		},
		Tokens: func(stage cgo.Stage, tokens []int32, rows, cols int) error {
			for r := range rows {
				out.tokens[stage] = append(out.tokens[stage], append([]int32{}, tokens[r*cols:(r+1)*cols]...))
			}
			return nil
		},
	})
	require.NoError(t, err)
	require.EqualValues(t, len(out.audio), stats.Samples)
	return out
}

// greedy is the request that the references answered.
func (r reference) greedy(voice cgo.Voice) cgo.Request {
	greedy := cgo.Sampling{TopP: 1}
	semantic := greedy
	semantic.MinEOSP = r.MinEOSP
	return cgo.Request{
		Rules: cgo.RulesHF, Text: r.Text, Voice: voice, MaxSemanticTokens: r.MaxTokens,
		Semantic: semantic, Coarse: greedy, Fine: greedy,
	}
}

// runtimeMissing says why native.New failed when that is no fault of the code.
func runtimeMissing(err error) bool {
	return err != nil && strings.Contains(err.Error(), "CGO_ENABLED=0")
}
