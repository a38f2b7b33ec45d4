package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"barkd/cgo"
	"barkd/server/models/schema"
	"barkd/server/models/voicefile"
)

// maxVoices bounds the voices of a folder; suno published 271.
const maxVoices = 4096

// voices are the history prompts to store, by name.
type voices map[string]cgo.VoiceArrays

// presetsFile maps preset names to the .npy files of each array.
const presetsFile = "speaker_embeddings_path.json"

// readVoices collects the voices of a folder: those that speaker_embeddings_path.json lists, and .npz files in the
// folder itself and below speaker_embeddings. Presets whose files were not downloaded are left out with a remark.
func readVoices(dir string) (voices, []string, error) {
	all := make(voices)
	text, err := readText(filepath.Join(dir, presetsFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	var remarks []string
	if err == nil {
		presets, err := parsePresets(text)
		if err != nil {
			return nil, nil, err
		}
		absent := 0
		for _, name := range sortedKeys(presets) {
			arrays, err := readPreset(dir, presets[name])
			if errors.Is(err, os.ErrNotExist) {
				absent++
				continue
			}
			if err != nil {
				return nil, nil, fmt.Errorf("voice %q: %w", name, err)
			}
			all[name] = arrays
		}
		if absent > 0 {
			remarks = append(remarks, fmt.Sprintf("%s: %d of %d voices have no files here", presetsFile, absent, len(presets)))
		}
	}
	return all, remarks, all.addLoose(dir)
}

// preset holds the three relative paths of a voice, in the order semantic, coarse, fine.
type preset [3]string

// parsePresets reads speaker_embeddings_path.json. Its paths are foreign: they must stay inside the folder.
func parsePresets(text []byte) (map[string]preset, error) {
	root, err := parseSettings(presetsFile, text)
	if err != nil {
		return nil, err
	}
	out := make(map[string]preset)
	for name := range root.values {
		if name == "repo_or_path" { // where the files are published; here they lie beside the JSON
			continue
		}
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", presetsFile, err)
		}
		entry := root.object(name)
		var p preset
		for i, key := range []string{"semantic_prompt", "coarse_prompt", "fine_prompt"} {
			p[i] = entry.text("", key)
			if *root.err == nil && !filepath.IsLocal(p[i]) {
				return nil, fmt.Errorf("%s: path %q leaves the folder", entry.name, p[i])
			}
		}
		out[name] = p
	}
	if len(out) > maxVoices {
		return nil, fmt.Errorf("%s: %d voices, limit %d", presetsFile, len(out), maxVoices)
	}
	return out, *root.err
}

// checkName refuses names that could not be typed, listed or used as part of a path.
func checkName(name string) error {
	if name == "" || len(name) > 200 || !filepath.IsLocal(name) || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '\\' || r == '"'
	}) {
		return fmt.Errorf("voice name %.40q is not allowed", name)
	}
	return nil
}

func readPreset(dir string, p preset) (cgo.VoiceArrays, error) {
	var arrays [3]voicefile.Array
	for i, path := range p {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return cgo.VoiceArrays{}, err
		}
		arrays[i], err = voicefile.ReadNPY(f)
		f.Close()
		if err != nil {
			return cgo.VoiceArrays{}, fmt.Errorf("%q: %w", path, err)
		}
	}
	return voicefile.Assemble(arrays)
}

// addLoose adds the .npz files; a voice of the same name in the JSON wins.
func (v voices) addLoose(dir string) error {
	top, err := filepath.Glob(filepath.Join(globQuote(dir), "*"+voicefile.Suffix))
	if err != nil {
		return err
	}
	for _, path := range top {
		if err := v.addFile(path, dir); err != nil {
			return err
		}
	}
	root := filepath.Join(dir, "speaker_embeddings")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != voicefile.Suffix {
			return err
		}
		return v.addFile(path, root)
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (v voices) addFile(path, root string) error {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	name := filepath.ToSlash(strings.TrimSuffix(rel, voicefile.Suffix))
	if _, known := v[name]; known {
		return nil
	}
	if err := checkName(name); err != nil {
		return err
	}
	if len(v) >= maxVoices {
		return fmt.Errorf("more than %d voices", maxVoices)
	}
	v[name], err = voicefile.Read(path)
	return err
}

// globQuote escapes what filepath.Glob would take for a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// describe checks every voice against the model and returns their shapes, sorted by name.
func (v voices) describe(c *schema.Config) ([]schema.Voice, error) {
	var out []schema.Voice
	for _, name := range sortedKeys(v) {
		a := v[name]
		err := errors.Join(
			inCodes("semantic_prompt", a.Semantic, c.Semantic.VocabSize),
			matrix("coarse_prompt", a.Coarse, c.Coarse.Codebooks, c.CodebookSize),
			matrix("fine_prompt", a.Fine, c.Fine.FineCodebooks, c.CodebookSize),
		)
		if err != nil {
			return nil, fmt.Errorf("voice %q: %w", name, err)
		}
		out = append(out, schema.Voice{
			Name: name, SemanticTokens: len(a.Semantic), CoarseFrames: len(a.Coarse[0]), FineFrames: len(a.Fine[0]),
		})
	}
	return out, nil
}

func matrix(what string, rows [][]int32, want, codes int) error {
	if len(rows) != want {
		return fmt.Errorf("%s has %d rows, the model has %d codebooks there", what, len(rows), want)
	}
	return inCodes(what, slices.Concat(rows...), codes)
}

func inCodes(what string, values []int32, n int) error {
	for _, x := range values {
		if x < 0 || int(x) >= n {
			return fmt.Errorf("%s has the value %d, want 0 to %d", what, x, n-1)
		}
	}
	return nil
}
