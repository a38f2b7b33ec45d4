package schema

import "barkd/server/models/gguf"

// Metadata returns the file's metadata in schema order. The config must be valid.
func (c *Config) Metadata() gguf.Metadata {
	m := gguf.Metadata{
		{Key: "general.architecture", Value: "bark"},
		{Key: "general.name", Value: c.Name},
		{Key: gguf.AlignmentKey, Value: uint32(Alignment)},
		{Key: "bark.format_version", Value: uint32(FormatVersion)},
		{Key: "bark.trained", Value: c.Trained},
		{Key: "bark.converter", Value: c.Converter},
		{Key: "bark.source.format", Value: c.Source.Format},
		{Key: "bark.source.files", Value: append([]string{}, c.Source.Files...)},
		{Key: "bark.source.sha256", Value: append([]string{}, c.Source.SHA256...)},
		u32("bark.codebook_size", c.CodebookSize),
	}
	m = append(m, c.semantic()...)
	m = append(m, c.coarse()...)
	m = append(m, c.fine()...)
	m = append(m, c.codec()...)
	m = append(m, c.tokenizer()...)
	names := []string{}
	for _, v := range c.Voices {
		names = append(names, v.Name)
	}
	return append(m, gguf.Entry{Key: "bark.voices", Value: names})
}

func u32(key string, v int) gguf.Entry { return gguf.Entry{Key: key, Value: uint32(v)} }

func f32(key string, v float32) gguf.Entry { return gguf.Entry{Key: key, Value: v} }

func (g GPT) metadata(stage string) gguf.Metadata {
	p := "bark." + stage + "."
	return gguf.Metadata{
		u32(p+"n_layer", g.Layers),
		u32(p+"n_head", g.Heads),
		u32(p+"n_embd", g.Embd),
		u32(p+"block_size", g.BlockSize),
		u32(p+"n_vocab_in", g.VocabIn),
		u32(p+"n_vocab_out", g.VocabOut),
		{Key: p + "bias", Value: g.Bias},
	}
}

func (c *Config) semantic() gguf.Metadata {
	s := &c.Semantic
	return append(s.GPT.metadata("semantic"),
		u32("bark.semantic.vocab_size", s.VocabSize),
		u32("bark.semantic.eos_token", s.EOSToken),
		u32("bark.semantic.pad_token", s.PadToken),
		u32("bark.semantic.infer_token", s.InferToken),
		u32("bark.semantic.text_encoding_offset", s.TextEncodingOffset),
		u32("bark.semantic.text_pad_token", s.TextPadToken),
		u32("bark.semantic.max_input_length", s.MaxInputLength),
		u32("bark.semantic.max_new_tokens", s.MaxNewTokens),
		gguf.Entry{Key: "bark.semantic.rate_hz", Value: s.RateHz},
		f32("bark.semantic.hf.temperature", s.HF.Temperature),
		u32("bark.semantic.hf.top_k", s.HF.TopK),
		f32("bark.semantic.hf.top_p", s.HF.TopP),
	)
}

func (c *Config) coarse() gguf.Metadata {
	a := &c.Coarse
	return append(a.GPT.metadata("coarse"),
		u32("bark.coarse.semantic_pad_token", a.SemanticPadToken),
		u32("bark.coarse.infer_token", a.InferToken),
		u32("bark.coarse.max_input_length", a.MaxInputLength),
		u32("bark.coarse.max_history", a.MaxHistory),
		u32("bark.coarse.window_length", a.WindowLength),
		u32("bark.coarse.n_codebook", a.Codebooks),
		gguf.Entry{Key: "bark.coarse.rate_hz", Value: a.RateHz},
		f32("bark.coarse.hf.temperature", a.HF.Temperature),
		u32("bark.coarse.hf.top_k", a.HF.TopK),
		f32("bark.coarse.hf.top_p", a.HF.TopP),
	)
}

func (c *Config) fine() gguf.Metadata {
	f := &c.Fine
	return append(f.GPT.metadata("fine"),
		u32("bark.fine.n_codebook", f.Tables),
		u32("bark.fine.n_given", f.Given),
		u32("bark.fine.n_fine_codebook", f.FineCodebooks),
		u32("bark.fine.input_length", f.InputLength),
		u32("bark.fine.history_length", f.HistoryLength),
		f32("bark.fine.hf.temperature", f.HF.Temperature),
	)
}

func (c *Config) codec() gguf.Metadata {
	k := &c.Codec
	ratios := make([]uint32, len(k.Ratios))
	for i, r := range k.Ratios {
		ratios[i] = uint32(r)
	}
	m := gguf.Metadata{
		u32("bark.codec.sample_rate", k.SampleRate),
		u32("bark.codec.hidden_size", k.HiddenSize),
		u32("bark.codec.n_filter", k.Filters),
		u32("bark.codec.kernel_size", k.KernelSize),
		u32("bark.codec.last_kernel_size", k.LastKernelSize),
		u32("bark.codec.residual_kernel_size", k.ResidualKernelSize),
		u32("bark.codec.n_residual_layer", k.ResidualLayers),
		u32("bark.codec.dilation_growth_rate", k.DilationGrowthRate),
		u32("bark.codec.compress", k.Compress),
		u32("bark.codec.n_lstm_layer", k.LSTMLayers),
		u32("bark.codec.codebook_size", k.CodebookSize),
		u32("bark.codec.n_codebook", k.Codebooks),
		{Key: "bark.codec.ratios", Value: ratios},
		{Key: "bark.codec.conv_shortcut", Value: k.ConvShortcut},
	}
	if k.SHA256 != "" {
		m = append(m, gguf.Entry{Key: "bark.codec.sha256", Value: k.SHA256})
	}
	return m
}

func (c *Config) tokenizer() gguf.Metadata {
	t := &c.Tokenizer
	return gguf.Metadata{
		{Key: "tokenizer.ggml.model", Value: "bert"},
		{Key: "tokenizer.ggml.tokens", Value: t.Tokens},
		u32("tokenizer.ggml.unknown_token_id", t.UnknownToken),
		{Key: "tokenizer.bark.special_tokens", Value: append([]string{}, t.SpecialTokens...)},
		{Key: "tokenizer.bark.lowercase", Value: t.Lowercase},
		{Key: "tokenizer.bark.strip_accents", Value: t.StripAccents},
		{Key: "tokenizer.bark.split_cjk", Value: t.SplitCJK},
		u32("tokenizer.bark.max_word_chars", t.MaxWordChars),
	}
}
