package models

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barkd/cgo"
	"barkd/server/models/gguf"
	"barkd/server/models/schema"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeModel writes a file with the metadata that the store reads.
func writeModel(t *testing.T, path, architecture string, matrices schema.Type, extra ...gguf.Entry) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	metadata := append(gguf.Metadata{
		{Key: "general.architecture", Value: architecture},
		{Key: "bark.trained", Value: true},
		{Key: "bark.voices", Value: []string{"announcer", "v2/en_speaker_0"}},
	}, extra...)
	weight := schema.Tensor{Name: "semantic.h.0.mlp.c_proj.weight", Shape: []int64{16, 64}, Matrix: true}
	tensors := append(weight.Declare(matrices), gguf.Tensor{Name: "codec.conv_in.weight", Type: gguf.F32, Shape: []int64{64}})
	w, err := gguf.NewWriter(f, metadata, tensors)
	require.NoError(t, err)
	for _, tensor := range w.Tensors() {
		require.NoError(t, w.Next(tensor.Name))
		_, err = w.Write(make([]byte, tensor.Bytes))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
}

func openStore(t *testing.T) *Store {
	s, err := Open(filepath.Join(t.TempDir(), "models"))
	require.NoError(t, err)
	return s
}

func TestDefaultDirFollowsTheEnvironment(t *testing.T) {
	env := map[string]string{}
	get := func(k string) string { return env[k] }
	_, err := DefaultDir(get)
	require.ErrorContains(t, err, "BARKD_MODELS")
	for _, c := range [][3]string{
		{"HOME", "/h", "/h/.cache/barkd/models"},
		{"XDG_CACHE_HOME", "relative", "/h/.cache/barkd/models"},
		{"XDG_CACHE_HOME", "/x", "/x/barkd/models"},
		{"BARKD_MODELS", "/data/models", "/data/models"},
	} {
		env[c[0]] = c[1]
		dir, err := DefaultDir(get)
		require.NoError(t, err)
		assert.Equal(t, c[2], dir)
	}
}

func TestOpenTakesTheEnvironmentAndRefusesAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	t.Setenv("BARKD_MODELS", dir)
	s, err := Open("")
	require.NoError(t, err)
	assert.Equal(t, dir, s.Dir())
	assert.NoDirExists(t, dir, "reading needs no folder")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err = Open(file)
	assert.ErrorContains(t, err, "is a file")
}

func TestResolveFindsTheEmbeddedDefaultAndFiles(t *testing.T) {
	s := openStore(t)
	src, err := s.Resolve(DefaultID)
	require.NoError(t, err)
	assert.Equal(t, cgo.Source{Name: DefaultID, Embedded: true, Version: "embedded"}, src)

	path := filepath.Join(s.Dir(), "suno", "bark-small.gguf")
	writeModel(t, path, "bark", schema.F16)
	src, err = s.Resolve("suno/bark-small")
	require.NoError(t, err)
	assert.Equal(t, cgo.Source{Name: "suno/bark-small", Path: path, Version: src.Version}, src)
	same, err := s.Resolve("suno/bark-small")
	require.NoError(t, err)
	assert.Equal(t, src.Version, same.Version)
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
	other, err := s.Resolve("suno/bark-small")
	require.NoError(t, err)
	assert.NotEqual(t, src.Version, other.Version, "another file of that name")
}

func TestUnknownModelNamesTheCommandThatBringsIt(t *testing.T) {
	_, err := openStore(t).Resolve("suno/bark")
	require.ErrorIs(t, err, cgo.ErrNotFound)
	assert.ErrorContains(t, err, "barkd pull suno/bark")
	_, err = openStore(t).Find("suno/bark")
	assert.ErrorIs(t, err, cgo.ErrNotFound)
}

func TestFolderIsNoModel(t *testing.T) {
	s := openStore(t)
	require.NoError(t, os.MkdirAll(filepath.Join(s.Dir(), "suno", "x.gguf"), 0o755))
	_, err := s.Resolve("suno/x")
	assert.ErrorIs(t, err, cgo.ErrBadModel)
}

var badIDs = []string{"", "/", "/etc/passwd", "../x", "a/../b", "..", ".", "a/.", "a/.hidden", "a//b", "a/", "a\\b", "a\x00b", "C:x", "a b", "a%2fb",
	"é", "a/b/c/d/e", "x.gguf", "/tmp/x.gguf", "x.", "a..b", "~", strings.Repeat("a", 101), strings.Repeat("a/", 101), "\xff"}

func TestIDsThatCouldLeaveTheStoreAreRefused(t *testing.T) {
	s := openStore(t)
	for _, id := range badIDs {
		_, err := s.Resolve(id)
		assert.ErrorIs(t, err, ErrBadID, "%q", id)
		assert.ErrorIs(t, err, cgo.ErrInvalidArgument, "%q", id)
		assert.ErrorIs(t, s.Remove(id), ErrBadID, "%q", id)
		_, err = s.Path(id)
		assert.ErrorIs(t, err, ErrBadID, "%q", id)
	}
	for _, id := range []string{"suno/bark-small", "bark", "a/b/c/d", "org/Bark_v1.5+q8", strings.Repeat("a", 100)} {
		assert.NoError(t, CheckID(id), id)
	}
}

func FuzzID(f *testing.F) {
	for _, id := range append(badIDs, DefaultID, "suno/bark-small") {
		f.Add(id)
	}
	s := &Store{dir: "/store"}
	f.Fuzz(func(t *testing.T, id string) {
		path, err := s.Path(id)
		if err == nil && (filepath.Clean(path) != path || !strings.HasPrefix(path, "/store/") || strings.ContainsAny(path, "\\\x00")) {
			t.Fatalf("id %q is the path %q", id, path)
		}
	})
}

func TestOnlyThePersonAtTheCommandLineNamesFiles(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "my model.gguf")
	writeModel(t, path, "bark", schema.F32)
	src, err := s.ResolveArgument(path)
	require.NoError(t, err)
	assert.Equal(t, cgo.Source{Name: path, Path: path, Version: src.Version}, src)
	_, err = s.Resolve(path)
	assert.ErrorIs(t, err, ErrBadID)

	_, err = s.ResolveArgument(path + ".gguf")
	assert.ErrorIs(t, err, cgo.ErrNotFound)
	src, err = s.ResolveArgument(DefaultID)
	require.NoError(t, err)
	assert.True(t, src.Embedded)
}

func TestListTellsWhatTheFilesSay(t *testing.T) {
	s := openStore(t)
	entries, err := s.List()
	require.NoError(t, err)
	assert.Equal(t, []Entry{{ID: DefaultID, Embedded: true}}, entries, "an absent folder is an empty one")

	writeModel(t, filepath.Join(s.Dir(), "suno", "bark-small.gguf"), "bark", schema.Q8)
	writeModel(t, filepath.Join(s.Dir(), "aa.gguf"), "bark", schema.BF16)
	writeModel(t, filepath.Join(s.Dir(), "four.gguf"), "bark", schema.Q4)
	writeModel(t, filepath.Join(s.Dir(), "llama.gguf"), "llama", schema.F16)
	writeModel(t, filepath.Join(s.Dir(), ".aa.gguf.1.0.part"), "bark", schema.F32)
	writeModel(t, filepath.Join(s.Dir(), ".hidden", "x.gguf"), "bark", schema.F32)
	writeModel(t, filepath.Join(s.Dir(), "a name.gguf"), "bark", schema.F32)
	writeModel(t, filepath.Join(s.Dir(), "barkd", "tiny.gguf"), "bark", schema.F32)
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir(), "torn.gguf"), []byte("GGUF\x03"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir(), "README.md"), nil, 0o644))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(s.Dir(), "gone.gguf")))

	entries, err = s.List()
	require.NoError(t, err)
	byID := map[string]Entry{}
	var ids []string
	for _, e := range entries {
		byID[e.ID] = e
		ids = append(ids, e.ID)
	}
	assert.Equal(t, []string{"aa", DefaultID, "four", "llama", "suno/bark-small", "torn"}, ids)
	small := byID["suno/bark-small"]
	require.NoError(t, small.Err)
	assert.True(t, small.Trained)
	assert.Equal(t, "q8", small.Type)
	assert.Equal(t, []string{"announcer", "v2/en_speaker_0"}, small.Voices)
	assert.Positive(t, small.Bytes)
	assert.WithinDuration(t, time.Now(), small.Modified, time.Hour)
	assert.Equal(t, "bf16", byID["aa"].Type)
	assert.Equal(t, "q4", byID["four"].Type)
	assert.ErrorContains(t, byID["llama"].Err, "llama")
	assert.ErrorIs(t, byID["torn"].Err, cgo.ErrBadModel)
}

func TestFindTellsOfOneModel(t *testing.T) {
	s := openStore(t)
	writeModel(t, filepath.Join(s.Dir(), "suno", "bark-small.gguf"), "bark", schema.F16)
	writeModel(t, filepath.Join(s.Dir(), "llama.gguf"), "llama", schema.F16)
	e, err := s.Find("suno/bark-small")
	require.NoError(t, err)
	assert.Equal(t, "f16", e.Type)
	e, err = s.Find(DefaultID)
	require.NoError(t, err)
	assert.True(t, e.Embedded)
	_, err = s.Find("llama")
	assert.ErrorIs(t, err, cgo.ErrBadModel)
}

func TestListReadsAFileAgainWhenItChanges(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(s.Dir(), "m.gguf")
	writeModel(t, path, "bark", schema.F16)
	kind := func() string {
		entries, err := s.List()
		require.NoError(t, err)
		return entries[1].Type
	}
	assert.Equal(t, "f16", kind())
	writeModel(t, path, "bark", schema.F32)
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)))
	assert.Equal(t, "f32", kind())
}

func TestRemoveDeletesTheFileAndItsEmptyFolder(t *testing.T) {
	s := openStore(t)
	writeModel(t, filepath.Join(s.Dir(), "suno", "a.gguf"), "bark", schema.F16)
	writeModel(t, filepath.Join(s.Dir(), "suno", "b.gguf"), "bark", schema.F16)
	require.NoError(t, s.Remove("suno/a"))
	assert.FileExists(t, filepath.Join(s.Dir(), "suno", "b.gguf"))
	assert.ErrorIs(t, s.Remove("suno/a"), cgo.ErrNotFound)
	require.NoError(t, s.Remove("suno/b"))
	assert.NoDirExists(t, filepath.Join(s.Dir(), "suno"))
	assert.DirExists(t, s.Dir())
	assert.ErrorContains(t, s.Remove(DefaultID), "part of the program")
}
