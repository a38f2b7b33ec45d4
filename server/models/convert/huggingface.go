package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"barkd/server/models/checkpoint"
	"barkd/server/models/schema"
)

// openHuggingFace reads a folder with transformers' files.
func openHuggingFace(dir string) (*source, error) {
	s := &source{names: hfNames{}, config: schema.Config{Source: schema.Source{Format: schema.FormatHuggingFace}}}
	config, err := readText(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	files := []string{"config.json"}
	generation, err := readText(filepath.Join(dir, "generation_config.json"))
	switch {
	case err == nil:
		files = append(files, "generation_config.json")
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	if s.remarks, err = parseConfig(&s.config, config, generation); err != nil {
		return nil, err
	}
	if s.mayTie, err = mayTie(config); err != nil {
		return nil, err
	}
	var used, remarks []string
	if s.config.Tokenizer, used, err = readTokenizer(dir); err != nil {
		return nil, err
	}
	if s.voices, remarks, err = readVoices(dir); err != nil {
		return nil, err
	}
	s.remarks = append(s.remarks, remarks...)
	weights, err := weightFiles(dir)
	if err != nil {
		return nil, err
	}
	s.files = slices.Concat(weights, files, used)
	for i, name := range weights {
		weights[i] = filepath.Join(dir, name)
	}
	ckpt, err := checkpoint.Open(weights...)
	if err != nil {
		return nil, err
	}
	s.state, s.close = ckpt.Tensors, ckpt.Close
	return s, nil
}

// mayTie reads whether the fine heads may be the fine tables, which is the default.
func mayTie(config []byte) (bool, error) {
	root, err := parseSettings("config.json", config)
	if err != nil {
		return false, err
	}
	tie := root.object("fine_acoustics_config").boolean(true, "tie_word_embeddings")
	return tie, *root.err
}

// weightFiles returns the names of the files that hold the weights, safetensors before torch, as transformers prefers.
func weightFiles(dir string) ([]string, error) {
	for _, name := range []string{"model.safetensors", "pytorch_model.bin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return []string{name}, nil
		}
		text, err := readText(filepath.Join(dir, name+".index.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return parseIndex(name+".index.json", text)
	}
	return nil, errors.New("no weights: neither model.safetensors nor pytorch_model.bin, whole or in shards")
}

// parseIndex returns the shards that an index lists. They must be plain names of files beside it.
func parseIndex(name string, text []byte) ([]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var files []string
	for _, tensor := range sortedKeys(index.WeightMap) {
		file := index.WeightMap[tensor]
		if filepath.Base(file) != file || !filepath.IsLocal(file) {
			return nil, fmt.Errorf("%s: shard %q is no plain file name", name, file)
		}
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	if len(files) == 0 || len(files) > 1000 {
		return nil, fmt.Errorf("%s: lists %d shards", name, len(files))
	}
	slices.Sort(files)
	return files, nil
}
