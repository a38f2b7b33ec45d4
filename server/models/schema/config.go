// Package schema says what a Bark model file holds: the metadata keys and the tensors that native/DESIGN.md lists.
// Every writer of model files builds a Config and takes both from it.
package schema

import (
	"fmt"
	"math"
)

// FormatVersion is the version of the model file's schema.
const FormatVersion = 1

// Alignment of every tensor in a model file, in bytes.
const Alignment = 64

// Values of Source.Format.
const (
	FormatHuggingFace = "huggingface"
	FormatSuno        = "suno"
	FormatUntrained   = "untrained"
)

// Config is everything a model file states besides its weights.
type Config struct {
	Name         string
	Trained      bool
	Converter    string // program and version
	Source       Source
	CodebookSize int // the codes' range; the code of this value means "unknown"
	Semantic     Semantic
	Coarse       Coarse
	Fine         Fine
	Codec        Codec
	Tokenizer    Tokenizer
	Voices       []Voice
}

// Source says what a file was made from. Files and SHA256 have the same order.
type Source struct {
	Format string
	Files  []string
	SHA256 []string
}

// GPT is the shape of one transformer.
type GPT struct {
	Layers, Heads, Embd int
	BlockSize           int
	VocabIn, VocabOut   int
	Bias                bool // Linear biases exist, and LayerNorm biases in the causal two
}

// Sampling is what transformers would use with the model's generation config.
type Sampling struct {
	Temperature float32 // 0: the argmax
	TopK        int     // 0: off
	TopP        float32 // 1: off
}

// Semantic is the first stage: text to semantic tokens.
type Semantic struct {
	GPT
	VocabSize          int // semantic tokens
	EOSToken           int
	PadToken           int
	InferToken         int
	TextEncodingOffset int
	TextPadToken       int
	MaxInputLength     int // of the text and of the history, tokens
	MaxNewTokens       int
	RateHz             float64
	HF                 Sampling
}

// Coarse is the second stage: semantic tokens to the first codebooks.
type Coarse struct {
	GPT
	SemanticPadToken int
	InferToken       int
	MaxInputLength   int // semantic prefix, tokens
	MaxHistory       int // coarse tokens
	WindowLength     int // coarse tokens per window
	Codebooks        int
	RateHz           float64
	HF               Sampling
}

// Fine is the third stage: the remaining codebooks.
type Fine struct {
	GPT
	Tables        int    // n_codes_total: embedding tables
	Given         int    // n_codes_given: tables without a head
	FineCodebooks int    // codebooks after the stage
	InputLength   int    // frames of a window
	HistoryLength int    // frames
	Untied        []bool // per head: stored on its own; nil: every head i is table i+1
	HF            Sampling
}

// Heads returns the number of output heads.
func (f Fine) HeadCount() int { return f.Tables - f.Given }

// Codec is the EnCodec decoder.
type Codec struct {
	SampleRate         int // Hz
	HiddenSize         int
	Filters            int
	KernelSize         int
	LastKernelSize     int
	ResidualKernelSize int
	ResidualLayers     int
	DilationGrowthRate int
	Compress           int
	LSTMLayers         int
	CodebookSize       int
	Codebooks          int // tables stored
	Ratios             []int
	ConvShortcut       bool
	SHA256             string // of the tensors, CodecDigest; "" leaves it out
}

// Width returns the channels before the upsampling stage i; Width(len(Ratios)) is Filters.
func (c Codec) Width(i int) int { return c.Filters << (len(c.Ratios) - i) }

// Tokenizer is a BERT WordPiece vocabulary with its switches.
type Tokenizer struct {
	Tokens        []string // index = id
	UnknownToken  int
	SpecialTokens []string // literals cut out of the text first
	Lowercase     bool
	StripAccents  bool
	SplitCJK      bool
	MaxWordChars  int
}

// Voice is the shape of a history prompt stored in the file.
type Voice struct {
	Name           string
	SemanticTokens int
	CoarseFrames   int
	FineFrames     int
}

// limit of every count in a config: no real model comes near, and products of three stay inside an int64.
const limit = 1 << 24

// Validate reports the first number that cannot be.
func (c *Config) Validate() error {
	checks := []func() error{
		c.positive, c.checkGPTs, c.checkTokens, c.checkFine, c.checkCodec, c.checkTokenizer, c.checkVoices,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

type count struct {
	name     string
	value    int
	min, max int
}

func inRange(counts []count) error {
	for _, n := range counts {
		if n.value < n.min || n.value > n.max {
			return fmt.Errorf("config: %s is %d, want %d to %d", n.name, n.value, n.min, n.max)
		}
	}
	return nil
}

func (c *Config) positive() error {
	s, a, f := &c.Semantic, &c.Coarse, &c.Fine
	counts := []count{
		{"codebook_size", c.CodebookSize, 1, limit},
		{"semantic_vocab_size", s.VocabSize, 1, limit},
		{"max_input_semantic_length", s.MaxInputLength, 1, limit},
		{"semantic max_new_tokens", s.MaxNewTokens, 1, limit},
		{"max_coarse_input_length", a.MaxInputLength, 1, limit},
		{"max_coarse_history", a.MaxHistory, 1, limit},
		{"sliding_window_len", a.WindowLength, 1, limit},
		{"n_coarse_codebooks", a.Codebooks, 1, 64},
		{"n_fine_codebooks", f.FineCodebooks, 1, 64},
		{"max_fine_input_length", f.InputLength, 1, limit},
		{"max_fine_history_length", f.HistoryLength, 1, limit},
		{"semantic top_k", s.HF.TopK, 0, limit},
		{"coarse top_k", a.HF.TopK, 0, limit},
	}
	if err := inRange(counts); err != nil {
		return err
	}
	for name, rate := range map[string]float64{"semantic_rate_hz": s.RateHz, "coarse_rate_hz": a.RateHz} {
		if !(rate > 0) || math.IsInf(rate, 0) {
			return fmt.Errorf("config: %s is %v, want a positive number", name, rate)
		}
	}
	for name, h := range map[string]Sampling{"semantic": s.HF, "coarse": a.HF, "fine": f.HF} {
		if !(h.Temperature >= 0) || math.IsInf(float64(h.Temperature), 0) || !(h.TopP > 0 && h.TopP <= 1) {
			return fmt.Errorf("config: %s temperature %v or top_p %v is out of range", name, h.Temperature, h.TopP)
		}
	}
	return nil
}

func (c *Config) checkGPTs() error {
	for _, g := range []struct {
		name string
		gpt  GPT
	}{{"semantic", c.Semantic.GPT}, {"coarse", c.Coarse.GPT}, {"fine", c.Fine.GPT}} {
		err := inRange([]count{
			{g.name + " num_layers", g.gpt.Layers, 1, 1024},
			{g.name + " num_heads", g.gpt.Heads, 1, 1024},
			{g.name + " hidden_size", g.gpt.Embd, 1, 1 << 16},
			{g.name + " block_size", g.gpt.BlockSize, 1, limit},
			{g.name + " input_vocab_size", g.gpt.VocabIn, 1, limit},
			{g.name + " output_vocab_size", g.gpt.VocabOut, 1, limit},
		})
		if err != nil {
			return err
		}
		if g.gpt.Embd%g.gpt.Heads != 0 {
			return fmt.Errorf("config: %s hidden_size %d is not a multiple of num_heads %d", g.name, g.gpt.Embd, g.gpt.Heads)
		}
	}
	return nil
}

// checkTokens makes sure that every special token has a row in its table.
func (c *Config) checkTokens() error {
	s, a := &c.Semantic, &c.Coarse
	return inRange([]count{
		{"semantic_vocab_size", s.VocabSize, 1, s.VocabOut},
		{"semantic eos_token_id", s.EOSToken, 0, min(s.VocabIn, s.VocabOut) - 1},
		{"semantic_pad_token", s.PadToken, 0, s.VocabIn - 1},
		{"semantic_infer_token", s.InferToken, 0, s.VocabIn - 1},
		{"text_encoding_offset", s.TextEncodingOffset, 0, s.VocabIn - 1},
		{"text_pad_token", s.TextPadToken, 0, s.VocabIn - 1},
		{"coarse_semantic_pad_token", a.SemanticPadToken, 0, a.VocabIn - 1},
		{"coarse_infer_token", a.InferToken, 0, a.VocabIn - 1},
		{"coarse output_vocab_size", a.VocabOut, s.VocabSize + a.Codebooks*c.CodebookSize, limit},
		{"coarse input_vocab_size", a.VocabIn, s.VocabSize + a.Codebooks*c.CodebookSize, limit},
		{"fine input_vocab_size", c.Fine.VocabIn, c.CodebookSize + 1, limit}, // codes and "unknown"
		{"fine output_vocab_size", c.Fine.VocabOut, c.CodebookSize, limit},
	})
}

func (c *Config) checkFine() error {
	f := &c.Fine
	err := inRange([]count{
		{"n_codes_total", f.Tables, 1, 64},
		{"n_codes_given", f.Given, 0, f.Tables - 1},
		{"n_fine_codebooks", f.FineCodebooks, c.Coarse.Codebooks, f.Tables},
		{"n_codes_given", f.Given, 0, c.Coarse.Codebooks}, // else the first predicted codebook has no head
		{"max_fine_input_length", f.InputLength, 1, f.BlockSize},
		{"max_fine_history_length", f.HistoryLength, 1, f.InputLength},
	})
	if err != nil {
		return err
	}
	if f.Untied != nil && len(f.Untied) != f.HeadCount() {
		return fmt.Errorf("config: %d heads but %d tie marks", f.HeadCount(), len(f.Untied))
	}
	return nil
}

func (c *Config) checkCodec() error {
	k := &c.Codec
	counts := []count{
		{"codec sampling_rate", k.SampleRate, 1, limit},
		{"codec hidden_size", k.HiddenSize, 1, 1 << 16},
		{"codec num_filters", k.Filters, 1, 1 << 16},
		{"codec kernel_size", k.KernelSize, 1, 1024},
		{"codec last_kernel_size", k.LastKernelSize, 1, 1024},
		{"codec residual_kernel_size", k.ResidualKernelSize, 1, 1024},
		{"codec num_residual_layers", k.ResidualLayers, 0, 64},
		{"codec dilation_growth_rate", k.DilationGrowthRate, 1, 1024},
		{"codec compress", k.Compress, 1, 1 << 16},
		{"codec num_lstm_layers", k.LSTMLayers, 0, 64},
		{"codec codebook_size", k.CodebookSize, c.CodebookSize, limit},
		{"codec codebooks", k.Codebooks, c.Fine.FineCodebooks, 1024},
		{"codec upsampling_ratios", len(k.Ratios), 1, 12},
	}
	for _, r := range k.Ratios {
		counts = append(counts, count{"codec upsampling ratio", r, 1, 1024})
	}
	if err := inRange(counts); err != nil {
		return err
	}
	if k.Width(0) > 1<<16 {
		return fmt.Errorf("config: codec width %d, limit %d", k.Width(0), 1<<16)
	}
	if k.ResidualLayers > 0 && k.Filters/k.Compress < 1 {
		return fmt.Errorf("config: codec compress %d leaves no channel of %d", k.Compress, k.Filters)
	}
	return nil
}

func (c *Config) checkTokenizer() error {
	t := &c.Tokenizer
	return inRange([]count{
		{"vocabulary size", len(t.Tokens), 1, limit},
		{"unknown token", t.UnknownToken, 0, len(t.Tokens) - 1},
		{"longest word", t.MaxWordChars, 1, limit},
	})
}

func (c *Config) checkVoices() error {
	seen := make(map[string]bool)
	for _, v := range c.Voices {
		if v.Name == "" || seen[v.Name] {
			return fmt.Errorf("config: voice name %q is empty or appears twice", v.Name)
		}
		seen[v.Name] = true
		err := inRange([]count{
			{"voice " + v.Name + ": semantic tokens", v.SemanticTokens, 1, limit},
			{"voice " + v.Name + ": coarse frames", v.CoarseFrames, 1, limit},
			{"voice " + v.Name + ": fine frames", v.FineFrames, 1, limit},
		})
		if err != nil {
			return err
		}
	}
	return nil
}
