package convert

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/models/voicefile"
)

const onePreset = `{"repo_or_path": "elsewhere/bark", "en": {"semantic_prompt": "speaker_embeddings/en_semantic_prompt.npy",
 "coarse_prompt": "speaker_embeddings/en_coarse_prompt.npy", "fine_prompt": "speaker_embeddings/en_fine_prompt.npy"}}`

func TestPresetsWithoutFilesAreLeftOutWithARemark(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string][]byte{presetsFile: []byte(onePreset)})
	v, remarks, err := readVoices(dir)
	require.NoError(t, err)
	assert.Empty(t, v)
	require.Len(t, remarks, 1)
	assert.Contains(t, remarks[0], "1 of 1 voices")
}

func TestPresetFilesAreReadBesideTheJSON(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{presetsFile: []byte(onePreset)}
	for _, part := range []string{"semantic", "coarse", "fine"} {
		b, err := os.ReadFile("../voicefile/testdata/triple_" + part + "_prompt.npy")
		require.NoError(t, err)
		files["speaker_embeddings/en_"+part+"_prompt.npy"] = b
	}
	write(t, dir, files)
	v, remarks, err := readVoices(dir)
	require.NoError(t, err)
	assert.Empty(t, remarks)
	want, err := voicefile.Read("../voicefile/testdata/speaker.npz")
	require.NoError(t, err)
	assert.Equal(t, voices{"en": want}, v)
}

func TestPresetPathsStayInTheFolder(t *testing.T) {
	for _, path := range []string{"../secret.npy", "/etc/passwd", "a/../../secret.npy", ""} {
		text := `{"en": {"semantic_prompt": "` + path + `", "coarse_prompt": "b", "fine_prompt": "c"}}`
		_, err := parsePresets([]byte(text))
		assert.ErrorContains(t, err, "leaves the folder", path)
	}
	for _, name := range []string{"../en", "", "a b", "a\\\\b"} {
		_, err := parsePresets([]byte(`{"` + name + `": {"semantic_prompt": "a", "coarse_prompt": "b", "fine_prompt": "c"}}`))
		assert.ErrorContains(t, err, "not allowed", name)
	}
	_, err := parsePresets([]byte(`{"en": "speaker.npz"}`))
	assert.ErrorContains(t, err, "an object")
}

func TestVoicesThatDoNotFitTheModelAreErrors(t *testing.T) {
	for _, change := range []func(v *cgo.VoiceArrays){
		func(v *cgo.VoiceArrays) { v.Semantic[0] = 40 },
		func(v *cgo.VoiceArrays) { v.Semantic[0] = -1 },
		func(v *cgo.VoiceArrays) { v.Fine[3][0] = 8 },
		func(v *cgo.VoiceArrays) { v.Coarse = v.Coarse[:1] },
	} {
		v := smallVoice()
		change(&v)
		dir := hfFolder(t, hfWeights(small()))
		require.NoError(t, voicefile.Write(filepath.Join(dir, "bad.npz"), v))
		assert.ErrorContains(t, fails(t, dir, Source), `voice "bad"`)
	}
}

func FuzzPresets(f *testing.F) {
	f.Add([]byte(onePreset))
	f.Fuzz(func(t *testing.T, text []byte) {
		presets, err := parsePresets(text)
		if err != nil {
			return
		}
		for name, p := range presets {
			for _, path := range append(p[:], name) {
				if !filepath.IsLocal(path) {
					t.Fatalf("path %q leaves the folder", path)
				}
			}
		}
	})
}
