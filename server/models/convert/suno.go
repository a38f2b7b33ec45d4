package convert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"barkd/server/models/checkpoint"
	"barkd/server/models/schema"
)

// sunoStages pairs the stages with the names of suno's files, small and large.
var sunoStages = []struct{ stage, small, large string }{
	{"semantic", "text.pt", "text_2.pt"},
	{"coarse", "coarse.pt", "coarse_2.pt"},
	{"fine", "fine.pt", "fine_2.pt"},
}

// sunoFiles returns the names of the three checkpoints and of the codec. os.ErrNotExist when there is no checkpoint at all.
func sunoFiles(dir string) ([]string, error) {
	var small, large []string
	for _, s := range sunoStages {
		if _, err := os.Stat(filepath.Join(dir, s.small)); err == nil {
			small = append(small, s.small)
		}
		if _, err := os.Stat(filepath.Join(dir, s.large)); err == nil {
			large = append(large, s.large)
		}
	}
	files := small
	switch {
	case len(small) == 0 && len(large) == 0:
		return nil, os.ErrNotExist
	case len(small) > 0 && len(large) > 0:
		return nil, errors.New("both text.pt, coarse.pt, fine.pt and their _2.pt versions are here: keep one set")
	case len(large) > 0:
		files = large
	}
	if len(files) != 3 {
		return nil, fmt.Errorf("only %s of suno's three checkpoints are here", strings.Join(files, " and "))
	}
	codecs, err := filepath.Glob(filepath.Join(globQuote(dir), "encodec_24khz-*.th"))
	if err != nil {
		return nil, err
	}
	if len(codecs) != 1 {
		return nil, fmt.Errorf("%d files encodec_24khz-*.th are here, want one", len(codecs))
	}
	return append(files, filepath.Base(codecs[0])), nil
}

// openSuno reads suno's files. What they do not state are suno's constants.
func openSuno(dir string, files []string) (_ *source, err error) {
	s := &source{
		names: sunoNames{}, mayTie: true, state: make(state), config: sunoConfig(), files: files,
	}
	var open []*checkpoint.Checkpoint
	s.close = func() error {
		var all error
		for _, c := range open {
			all = errors.Join(all, c.Close())
		}
		return all
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for i, name := range files {
		c, err := checkpoint.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		open = append(open, c)
		if i < len(sunoStages) {
			err = s.addStage(sunoStages[i].stage, c)
		} else {
			err = s.addCodec(c)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	var used []string
	if s.config.Tokenizer, used, err = readTokenizer(dir); err != nil {
		return nil, err
	}
	s.files = slices.Concat(files, used)
	s.voices, s.remarks, err = readVoices(dir)
	return s, err
}

// sunoConfig holds the constants of suno's generation code, and the sampling of the published generation config.
func sunoConfig() schema.Config {
	published := schema.Sampling{Temperature: 0.7, TopK: 50, TopP: 1}
	return schema.Config{
		Source:       schema.Source{Format: schema.FormatSuno},
		CodebookSize: 1024,
		Semantic: schema.Semantic{
			VocabSize: 10000, EOSToken: 10000, PadToken: 10000, InferToken: 129599, TextEncodingOffset: 10048,
			TextPadToken: 129595, MaxInputLength: 256, MaxNewTokens: 768, RateHz: 49.9, HF: published,
		},
		Coarse: schema.Coarse{
			SemanticPadToken: 12048, InferToken: 12050, MaxInputLength: 256, MaxHistory: 630, WindowLength: 60,
			Codebooks: 2, RateHz: 75, HF: published,
		},
		Fine: schema.Fine{
			FineCodebooks: 8, InputLength: 1024, HistoryLength: 512, HF: schema.Sampling{Temperature: 0.5, TopP: 1},
		},
		Codec: schema.Codec{SampleRate: 24000, DilationGrowthRate: 2, Codebooks: 8},
	}
}

// addStage takes a transformer's weights and model_args.
func (s *source) addStage(stage string, c *checkpoint.Checkpoint) error {
	model, args, err := sunoParts(c)
	if err != nil {
		return err
	}
	for _, t := range checkpoint.StateDict(model) {
		s.state[stage+"."+strings.TrimPrefix(t.Name, "_orig_mod.")] = t
	}
	gpt := schema.GPT{
		Layers: args.integer(12, "n_layer"), Heads: args.integer(12, "n_head"), Embd: args.integer(768, "n_embd"),
		BlockSize: args.integer(1024, "block_size"), Bias: args.boolean(true, "bias"),
		VocabIn:  args.integer(10048, "input_vocab_size", "vocab_size"),
		VocabOut: args.integer(10048, "output_vocab_size", "vocab_size"),
	}
	switch stage {
	case "semantic":
		s.config.Semantic.GPT = gpt
	case "coarse":
		s.config.Coarse.GPT = gpt
	default:
		s.config.Fine.GPT = gpt
		s.config.Fine.Tables = args.integer(8, "n_codes_total")
		s.config.Fine.Given = args.integer(1, "n_codes_given")
	}
	return *args.err
}

func sunoParts(c *checkpoint.Checkpoint) (*checkpoint.Dict, settings, error) {
	args := settings{name: "model_args", values: make(map[string]any), err: new(error)}
	if c.Root == nil {
		return nil, args, errors.New("not a file of torch.save")
	}
	value, _ := c.Root.Get("model")
	model, ok := value.(*checkpoint.Dict)
	if !ok {
		return nil, args, errors.New("holds no model")
	}
	value, _ = c.Root.Get("model_args")
	dict, ok := value.(*checkpoint.Dict)
	if !ok {
		return nil, args, errors.New("holds no model_args")
	}
	for i, key := range dict.Keys {
		if name, ok := key.(string); ok {
			args.values[name] = dict.Values[i]
		}
	}
	return model, args, nil
}

// addCodec takes the codec's weights and reads its shape from theirs: the file states none.
func (s *source) addCodec(c *checkpoint.Checkpoint) error {
	for name, t := range c.Tensors {
		s.state["codec."+name] = t
	}
	return codecShape(&s.config.Codec, s.state, s.names)
}

// codecShape derives the decoder's numbers from the shapes of its convolutions.
func codecShape(k *schema.Codec, st state, names naming) error {
	shape := func(name string, rank int) []int64 {
		for _, spelling := range []string{".weight_v", ".parametrizations.weight.original1", ".weight", ""} {
			if t := st[name+spelling]; t != nil && len(t.Shape) == rank {
				return t.Shape
			}
		}
		return nil
	}
	first, table := shape(names.conv(0, "", false), 3), shape(names.codebook(0), 2)
	if first == nil || table == nil {
		return errors.New("this is no EnCodec checkpoint: its first convolution or codebook is missing")
	}
	width, kernel := first[0], first[2]
	k.KernelSize, k.HiddenSize, k.CodebookSize = int(kernel), int(first[1]), int(table[0])
	for k.LSTMLayers = 0; k.LSTMLayers < 64 && st[names.lstm(fmt.Sprintf("weight_ih_l%d", k.LSTMLayers))] != nil; k.LSTMLayers++ {
	}
	layer := 3
	for len(k.Ratios) < 12 {
		up := shape(names.conv(layer, "", true), 3)
		if up == nil {
			break
		}
		k.Ratios = append(k.Ratios, int(up[2]/2))
		width = up[1]
		layer++
		blocks := 0
		for ; blocks < 64; blocks++ {
			squeeze := shape(names.conv(layer+blocks, "block.1", false), 3)
			if squeeze == nil {
				break
			}
			k.ResidualKernelSize = int(squeeze[2])
			k.Compress = int(squeeze[1] / max(1, squeeze[0]))
			k.ConvShortcut = shape(names.conv(layer+blocks, "shortcut", false), 3) != nil
		}
		k.ResidualLayers = blocks
		layer += blocks + 1
	}
	last := shape(names.conv(layer, "", false), 3)
	if last == nil || len(k.Ratios) == 0 {
		return errors.New("this is no EnCodec checkpoint: its last convolution is missing")
	}
	if last[0] != 1 {
		return fmt.Errorf("the codec has %d audio channels, want 1", last[0])
	}
	k.Filters, k.LastKernelSize = int(width), int(last[2])
	if k.ResidualLayers == 0 {
		k.ResidualKernelSize, k.Compress = 1, 1
	}
	return nil
}
