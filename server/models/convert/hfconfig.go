package convert

import (
	"fmt"
	"math"

	"barkd/server/models/schema"
)

// parseConfig fills the model's shape from config.json and its constants from generation_config.json (nil when there
// is none). What a file leaves out has the default of transformers' class. It returns remarks about settings that
// this runtime does not follow.
func parseConfig(c *schema.Config, config, generation []byte) ([]string, error) {
	root, err := parseSettings("config.json", config)
	if err != nil {
		return nil, err
	}
	gen := settings{name: "generation_config.json", err: root.err}
	if generation != nil {
		if gen, err = parseSettings("generation_config.json", generation); err != nil {
			return nil, err
		}
		gen.err = root.err
	}
	if kind := root.text("bark", "model_type"); kind != "bark" {
		return nil, fmt.Errorf("config.json: model_type is %q, want bark", kind)
	}
	c.Semantic.GPT = parseGPT(root.object("semantic_config"))
	c.Coarse.GPT = parseGPT(root.object("coarse_acoustics_config"))
	fine := root.object("fine_acoustics_config")
	c.Fine.GPT = parseGPT(fine)
	c.Fine.Tables = fine.integer(8, "n_codes_total")
	c.Fine.Given = fine.integer(1, "n_codes_given")
	if err := parseCodec(&c.Codec, root.object("codec_config")); err != nil {
		return nil, err
	}
	remarks := parseGeneration(c, gen)
	c.Codec.Codebooks = c.Fine.FineCodebooks // more are never looked up
	return remarks, *root.err
}

func parseGPT(s settings) schema.GPT {
	return schema.GPT{
		Layers:    s.integer(12, "num_layers", "num_hidden_layers"),
		Heads:     s.integer(12, "num_heads", "num_attention_heads"),
		Embd:      s.integer(768, "hidden_size"),
		BlockSize: s.integer(1024, "block_size", "window_size"),
		VocabIn:   s.integer(10048, "input_vocab_size", "vocab_size"),
		VocabOut:  s.integer(10048, "output_vocab_size"),
		Bias:      s.boolean(true, "bias"),
	}
}

// parseCodec also refuses the codecs that the decoder is not built for.
func parseCodec(k *schema.Codec, s settings) error {
	*k = schema.Codec{
		SampleRate:         s.integer(24000, "sampling_rate"),
		HiddenSize:         s.integer(128, "hidden_size"),
		Filters:            s.integer(32, "num_filters"),
		KernelSize:         s.integer(7, "kernel_size"),
		LastKernelSize:     s.integer(7, "last_kernel_size"),
		ResidualKernelSize: s.integer(3, "residual_kernel_size"),
		ResidualLayers:     s.integer(1, "num_residual_layers"),
		DilationGrowthRate: s.integer(2, "dilation_growth_rate"),
		Compress:           s.integer(2, "compress"),
		LSTMLayers:         s.integer(2, "num_lstm_layers"),
		CodebookSize:       s.integer(1024, "codebook_size"),
		Ratios:             s.integers([]int{8, 5, 4, 2}, "upsampling_ratios"),
		ConvShortcut:       s.boolean(true, "use_conv_shortcut"),
	}
	for _, need := range []struct {
		key       string
		got, want any
	}{
		{"model_type", s.text("encodec", "model_type"), "encodec"},
		{"audio_channels", s.integer(1, "audio_channels"), 1},
		{"use_causal_conv", s.boolean(true, "use_causal_conv"), true},
		{"norm_type", s.text("weight_norm", "norm_type"), "weight_norm"},
		{"pad_mode", s.text("reflect", "pad_mode"), "reflect"},
		{"trim_right_ratio", s.float(1, "trim_right_ratio"), 1.0},
		{"codebook_dim", s.integer(k.HiddenSize, "codebook_dim"), k.HiddenSize},
	} {
		if *s.err != nil {
			return *s.err
		}
		if need.got != need.want {
			return fmt.Errorf("%s: %s is %v: only codecs with %v are supported", s.name, need.key, need.got, need.want)
		}
	}
	return nil
}

func parseGeneration(c *schema.Config, gen settings) []string {
	semantic, coarse, fine := gen.object("semantic_config"), gen.object("coarse_acoustics_config"),
		gen.object("fine_acoustics_config")
	c.CodebookSize = gen.integer(1024, "codebook_size")

	s := &c.Semantic
	s.VocabSize = semantic.integer(10000, "semantic_vocab_size")
	s.EOSToken = semantic.integer(10000, "eos_token_id")
	s.PadToken = s.EOSToken // transformers sets it so, whatever semantic_pad_token says
	s.InferToken = semantic.integer(129599, "semantic_infer_token")
	s.TextEncodingOffset = semantic.integer(10048, "text_encoding_offset")
	s.TextPadToken = semantic.integer(129595, "text_pad_token")
	s.MaxInputLength = semantic.integer(256, "max_input_semantic_length")
	s.MaxNewTokens = semantic.integer(768, "max_new_tokens")
	s.RateHz = semantic.float(49.9, "semantic_rate_hz")
	s.HF = sampling(semantic)

	a := &c.Coarse
	a.SemanticPadToken = coarse.integer(12048, "coarse_semantic_pad_token")
	a.InferToken = coarse.integer(12050, "coarse_infer_token")
	a.MaxInputLength = coarse.integer(256, "max_coarse_input_length")
	a.MaxHistory = coarse.integer(630, "max_coarse_history")
	a.WindowLength = coarse.integer(60, "sliding_window_len")
	a.Codebooks = coarse.integer(2, "n_coarse_codebooks")
	a.RateHz = coarse.float(75, "coarse_rate_hz")
	a.HF = sampling(coarse)

	f := &c.Fine
	f.FineCodebooks = fine.integer(8, "n_fine_codebooks")
	f.InputLength = fine.integer(1024, "max_fine_input_length")
	f.HistoryLength = fine.integer(512, "max_fine_history_length")
	f.HF = schema.Sampling{Temperature: float32(fine.float(1, "temperature")), TopP: 1}
	if f.HF.Temperature == 1 { // transformers takes the argmax at null and at 1
		f.HF.Temperature = 0
	}
	return append(unfollowed(semantic), unfollowed(coarse)...)
}

// sampling returns what GenerationMixin.generate uses: without do_sample the argmax; top_k 50 unless the file says
// otherwise, because that is the library's default for what a config leaves out; a temperature of 1 where there is none.
func sampling(s settings) schema.Sampling {
	h := schema.Sampling{TopK: s.integer(50, "top_k"), TopP: float32(s.float(1, "top_p"))}
	if s.boolean(false, "do_sample") {
		h.Temperature = float32(s.float(1, "temperature"))
	}
	if h.TopP >= 1 {
		h.TopP = 1
	} else if h.TopP <= 0 { // keeps the best token alone
		h.TopP = math.SmallestNonzeroFloat32
	}
	return h
}

// unfollowed names generation settings that change transformers' output and have no counterpart here.
func unfollowed(s settings) []string {
	neutral := map[string]float64{
		"num_beams": 1, "repetition_penalty": 1, "no_repeat_ngram_size": 0, "min_p": 0, "top_h": 0, "typical_p": 1,
		"epsilon_cutoff": 0, "eta_cutoff": 0, "min_new_tokens": 0, "penalty_alpha": 0, "guidance_scale": 1,
	}
	var out []string
	for _, key := range sortedKeys(neutral) {
		if f, ok := number(s.values[key]); ok && f != neutral[key] {
			out = append(out, fmt.Sprintf("%s: %s %v is not followed", s.name, key, f))
		}
	}
	return out
}
