package hubtest

import (
	"bytes"
	"fmt"
)

// Bark returns a repository laid out like suno/bark-small on the real hub, with contents that only look like a model:
// weights of so many bytes, three voices, and the checkpoints that nobody needs.
func Bark(id string, weightBytes int) *Repo {
	weights := make([]byte, weightBytes)
	for i := range weights {
		weights[i] = byte(i * 7 >> (i % 5))
	}
	r := &Repo{ID: id, Files: map[string][]byte{
		"README.md":                    []byte("# Bark\n"),
		".gitattributes":               []byte("*.bin filter=lfs\n"),
		"config.json":                  []byte(`{"model_type": "bark"}`),
		"generation_config.json":       []byte(`{}`),
		"pytorch_model.bin":            weights,
		"text_2.pt":                    bytes.Repeat([]byte("t"), 999),
		"coarse_2.pt":                  bytes.Repeat([]byte("c"), 999),
		"fine_2.pt":                    bytes.Repeat([]byte("f"), 999),
		"vocab.txt":                    []byte("[PAD]\n[UNK]\n"),
		"tokenizer.json":               []byte(`{"model": {"type": "WordPiece"}}`),
		"tokenizer_config.json":        []byte(`{"do_lower_case": false}`),
		"special_tokens_map.json":      []byte(`{"unk_token": "[UNK]"}`),
		"speaker_embeddings_path.json": []byte(`{"repo_or_path": "x"}`),
	}}
	for _, voice := range []string{"announcer", "v2/en_speaker_0", "v2/zh_speaker_9"} {
		for _, part := range []string{"semantic", "coarse", "fine"} {
			name := fmt.Sprintf("speaker_embeddings/%s_%s_prompt.npy", voice, part)
			r.Files[name] = []byte("\x93NUMPY" + name)
		}
	}
	return r
}
