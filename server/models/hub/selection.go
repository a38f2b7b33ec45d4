package hub

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// texts are the small files at the root that describe a model.
var texts = []string{"config.json", "generation_config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json",
	"special_tokens_map.json", "speaker_embeddings_path.json"}

// weightSets are the ways Hugging Face stores weights, the preferred first: safetensors can be read without a pickle.
var weightSets = []struct {
	single, index string
	shard         *regexp.Regexp // its group is the number of shards
}{
	{"model.safetensors", "model.safetensors.index.json", regexp.MustCompile(`^model-\d+-of-(\d+)\.safetensors$`)},
	{"pytorch_model.bin", "pytorch_model.bin.index.json", regexp.MustCompile(`^pytorch_model-\d+-of-(\d+)\.bin$`)},
}

// sunoSets are suno's own checkpoints, large then small, used where there is no other.
var sunoSets = [][]string{{"text_2.pt", "coarse_2.pt", "fine_2.pt"}, {"text.pt", "coarse.pt", "fine.pt"}}

// selectBark returns the files of a repository that a Bark model is made from, sorted by path: one set of weights,
// the configuration, the vocabulary and the voices. The rest, among it 16 GB of suno's checkpoints, is left alone.
func selectBark(id string, files []File) ([]File, error) {
	byPath := make(map[string]File, len(files))
	for _, f := range files {
		byPath[f.Path] = f
	}
	has := func(name string) bool { _, ok := byPath[name]; return ok }
	weights, suno, err := selectWeights(id, byPath)
	if err != nil {
		return nil, err
	}
	if !suno && !has("config.json") {
		return nil, fmt.Errorf("%s has no config.json: it is not a Bark model as Hugging Face stores it", id)
	}
	if !suno && !has("vocab.txt") && !has("tokenizer.json") {
		return nil, fmt.Errorf("%s has neither vocab.txt nor tokenizer.json", id)
	}
	var chosen []File
	for _, f := range files {
		if slices.Contains(weights, f.Path) || slices.Contains(texts, f.Path) || isVoice(f.Path) {
			chosen = append(chosen, f)
		}
	}
	slices.SortFunc(chosen, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return chosen, nil
}

func isVoice(p string) bool {
	return strings.HasPrefix(p, "speaker_embeddings/") && (path.Ext(p) == ".npy" || path.Ext(p) == ".npz")
}

// selectWeights returns the names of the weight files, and whether they are suno's.
func selectWeights(id string, files map[string]File) (names []string, suno bool, err error) {
	for _, set := range weightSets {
		if _, ok := files[set.single]; ok {
			return []string{set.single}, false, nil
		}
		if _, ok := files[set.index]; !ok {
			continue
		}
		names, want := []string{set.index}, -1
		for name := range files {
			if m := set.shard.FindStringSubmatch(name); m != nil {
				names = append(names, name)
				want, _ = strconv.Atoi(m[1])
			}
		}
		if len(names)-1 != want {
			return nil, false, fmt.Errorf("%s lists %s but has %d of its %d files", id, set.index, len(names)-1, max(1, want))
		}
		return names, false, nil
	}
	for _, set := range sunoSets {
		if slices.ContainsFunc(set, func(name string) bool { _, ok := files[name]; return !ok }) {
			continue
		}
		for name := range files {
			if strings.HasPrefix(name, "encodec_24khz") && path.Ext(name) == ".th" {
				return append(slices.Clone(set), name), true, nil
			}
		}
		return nil, false, fmt.Errorf("%s has suno's checkpoints but not EnCodec's (encodec_24khz-….th), which makes the audio", id)
	}
	return nil, false, fmt.Errorf("%s has no weights of a Bark model (model.safetensors or pytorch_model.bin)", id)
}
