// Package untrained writes a small model of the true architecture with random weights: it speaks noise. It is the
// model of tests and benchmarks.
package untrained

import (
	"fmt"
	"io"
	"math"
	"os"

	"barkd/cgo"
	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

// Name is the id that the model gives itself: the default's, whose place it takes in tests.
const Name = "barkd/tiny"

// Config shapes a model; DefaultConfig is that of the tests.
type Config struct {
	Schema schema.Config // voices are filled in from Voices
	Voices []Voice
	Type   schema.Type // of the matrices
}

// Voice is a random history prompt.
type Voice struct {
	Name           string
	SemanticTokens int
}

// DefaultConfig returns the shape of the tests' model: every part of Bark, two layers each, small enough that
// seconds of audio take a fraction of a second. It generates 2 to 5 s for any text.
func DefaultConfig() Config {
	const vocab, codes, extra = 256, 128, 16 // as 10000, 1024 and 48 in the real models
	tokens, special := Vocabulary()
	gpt := schema.GPT{Layers: 2, Heads: 2, Embd: 64}
	text := vocab + extra
	c := schema.Config{
		Name:         Name,
		Converter:    "barkd untrained",
		Source:       schema.Source{Format: schema.FormatUntrained},
		CodebookSize: codes,
		Semantic: schema.Semantic{
			GPT: gpt, VocabSize: vocab, EOSToken: vocab, PadToken: vocab,
			InferToken: text + len(tokens) + 4, TextEncodingOffset: text, TextPadToken: text + len(tokens),
			MaxInputLength: 128, MaxNewTokens: 256, RateHz: 49.9,
			HF: schema.Sampling{Temperature: 0.7, TopK: 50, TopP: 1},
		},
		Coarse: schema.Coarse{
			GPT: gpt, SemanticPadToken: vocab + 2*codes, InferToken: vocab + 2*codes + 2,
			MaxInputLength: 128, MaxHistory: 318, WindowLength: 60, Codebooks: 2, RateHz: 75,
			HF: schema.Sampling{Temperature: 0.7, TopK: 50, TopP: 1},
		},
		Fine: schema.Fine{
			GPT: gpt, Tables: 8, Given: 1, FineCodebooks: 8, InputLength: 512, HistoryLength: 256,
			HF: schema.Sampling{Temperature: 0.5, TopP: 1},
		},
		Codec: schema.Codec{
			SampleRate: 24000, HiddenSize: 32, Filters: 4, KernelSize: 7, LastKernelSize: 7, ResidualKernelSize: 3,
			ResidualLayers: 1, DilationGrowthRate: 2, Compress: 2, LSTMLayers: 2, CodebookSize: codes, Codebooks: 8,
			Ratios: []int{8, 5, 4, 2}, ConvShortcut: true,
		},
		Tokenizer: schema.Tokenizer{
			Tokens: tokens, UnknownToken: 1, SpecialTokens: special, SplitCJK: true, MaxWordChars: 100,
		},
	}
	c.Semantic.BlockSize = c.Semantic.MaxInputLength + c.Semantic.MaxNewTokens // the last token is never fed
	c.Semantic.VocabIn, c.Semantic.VocabOut = text+len(tokens)+5, text
	c.Coarse.BlockSize = c.Coarse.MaxInputLength + 1 + c.Coarse.MaxHistory + c.Coarse.WindowLength
	c.Coarse.VocabIn, c.Coarse.VocabOut = vocab+2*codes+extra, vocab+2*codes+extra
	c.Fine.BlockSize = c.Fine.InputLength
	c.Fine.VocabIn, c.Fine.VocabOut = codes+extra, codes+extra
	return Config{
		Schema: c,
		Voices: []Voice{{Name: "noise_a", SemanticTokens: 120}, {Name: "noise_b", SemanticTokens: 180}},
		Type:   schema.F16,
	}
}

// SmallConfig returns the shape of a model for emulated GPUs, of which each thread is run by a processor: every part of
// Bark, one layer each, so that a request takes a second or two there. It generates 0.1 to 0.4 s for any text.
func SmallConfig() Config {
	config := DefaultConfig()
	config.Voices = []Voice{{Name: "noise_a", SemanticTokens: 12}, {Name: "noise_b", SemanticTokens: 18}}
	c := &config.Schema
	for _, gpt := range []*schema.GPT{&c.Semantic.GPT, &c.Coarse.GPT, &c.Fine.GPT} {
		gpt.Layers, gpt.Embd = 1, 32
	}
	const codes = 32
	c.CodebookSize, c.Codec.CodebookSize, c.Fine.VocabIn, c.Fine.VocabOut = codes, codes, codes+16, codes+16
	last := c.Semantic.VocabSize + c.Coarse.Codebooks*codes
	c.Coarse.SemanticPadToken, c.Coarse.InferToken, c.Coarse.VocabIn, c.Coarse.VocabOut = last, last+2, last+16, last+16
	c.Semantic.MaxInputLength, c.Semantic.MaxNewTokens, c.Semantic.BlockSize = 16, 24, 40
	c.Coarse.MaxInputLength, c.Coarse.MaxHistory, c.Coarse.WindowLength, c.Coarse.BlockSize = 16, 24, 12, 16+1+24+12
	c.Fine.InputLength, c.Fine.HistoryLength, c.Fine.BlockSize = 32, 16, 32
	c.Codec.HiddenSize, c.Codec.Filters = 16, 2
	return config
}

// BarkSmallConfig returns the shape of suno/bark-small with 16-bit matrices, the default's vocabulary and no voices: what a
// benchmark needs where no real checkpoint is at hand. Times do not depend on the weights' values.
func BarkSmallConfig() Config {
	config := DefaultConfig()
	config.Voices = nil
	c := &config.Schema
	c.Name = "barkd/bark-small-shape"
	c.CodebookSize = 1024
	gpt := schema.GPT{Layers: 12, Heads: 12, Embd: 768, BlockSize: 1024}
	c.Semantic.GPT, c.Coarse.GPT, c.Fine.GPT = gpt, gpt, gpt
	c.Semantic.VocabIn, c.Semantic.VocabOut = 129600, 10048
	c.Semantic.VocabSize, c.Semantic.EOSToken, c.Semantic.PadToken = 10000, 10000, 10000
	c.Semantic.InferToken, c.Semantic.TextEncodingOffset, c.Semantic.TextPadToken = 129599, 10048, 129595
	c.Semantic.MaxInputLength, c.Semantic.MaxNewTokens = 256, 768
	c.Coarse.VocabIn, c.Coarse.VocabOut = 12096, 12096
	c.Coarse.SemanticPadToken, c.Coarse.InferToken = 12048, 12050
	c.Coarse.MaxInputLength, c.Coarse.MaxHistory = 256, 630
	c.Fine.VocabIn, c.Fine.VocabOut, c.Fine.InputLength, c.Fine.HistoryLength = 1056, 1056, 1024, 512
	c.Codec.HiddenSize, c.Codec.Filters, c.Codec.CodebookSize = 128, 32, 1024
	return config
}

// BarkConfig returns the shape of suno/bark, the large model, else as BarkSmallConfig.
func BarkConfig() Config {
	config := BarkSmallConfig()
	c := &config.Schema
	c.Name = "barkd/bark-shape"
	for _, gpt := range []*schema.GPT{&c.Semantic.GPT, &c.Coarse.GPT, &c.Fine.GPT} {
		gpt.Layers, gpt.Heads, gpt.Embd = 24, 16, 1024
	}
	return config
}

// Write writes the tests' model for the seed. The same seed gives the same bytes.
func Write(w io.Writer, seed uint64) error { return WriteConfig(w, seed, DefaultConfig()) }

// WriteConfig writes a model of any shape.
func WriteConfig(w io.Writer, seed uint64, config Config) error {
	c := config.Schema
	if err := c.Validate(); err != nil {
		return err
	}
	voices := make(map[string]cgo.VoiceArrays)
	for _, v := range config.Voices {
		arrays := randomVoice(&c, seed, v)
		voices[v.Name] = arrays
		c.Voices = append(c.Voices, schema.Voice{
			Name: v.Name, SemanticTokens: len(arrays.Semantic),
			CoarseFrames: len(arrays.Coarse[0]), FineFrames: len(arrays.Fine[0]),
		})
	}
	if err := c.Validate(); err != nil {
		return err
	}
	list := c.Tensors()
	digest := schema.NewCodecDigest(list)
	for _, t := range schema.CodecTensors(list) {
		if err := writeFloats(digest, t, config.Type, weights(&c, seed, t)); err != nil {
			return err
		}
	}
	var err error
	if c.Codec.SHA256, err = digest.Sum(); err != nil {
		return err
	}
	var declared []gguf.Tensor
	for _, t := range list {
		declared = append(declared, t.Declare(config.Type)...)
	}
	g, err := gguf.NewWriter(w, c.Metadata(), declared)
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.Voice {
			err = g.WriteI32(t.Name, voiceRows(voices, t.Name)...)
		} else {
			err = writeFloats(g, t, config.Type, weights(&c, seed, t))
		}
		if err != nil {
			return err
		}
	}
	return g.Close()
}

// WriteFile makes a file in one step, so that an interrupted run leaves no half model.
func WriteFile(path string, seed uint64, config Config) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	err = WriteConfig(f, seed, config)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// tensorWriter is a gguf.Writer or the codec's digest.
type tensorWriter interface {
	io.Writer
	Next(name string) error
}

func writeFloats(g tensorWriter, t schema.Tensor, matrices schema.Type, values []float32) error {
	enc, err := schema.NewEncoder(t, matrices)
	if err != nil {
		return err
	}
	cols := int(t.Shape[len(t.Shape)-1])
	if err := g.Next(t.Name); err != nil {
		return err
	}
	for len(values) > 0 {
		b, err := enc.Row(values[:cols])
		if err != nil {
			return err
		}
		if _, err := g.Write(b); err != nil {
			return err
		}
		values = values[cols:]
	}
	if len(enc.Scales()) == 0 {
		return nil
	}
	if err := g.Next(schema.ScaleName(t.Name)); err != nil {
		return err
	}
	_, err = g.Write(enc.Scales())
	return err
}

// random is a stream of numbers that depends on the seed and the tensor's name alone, so that adding a tensor changes
// no other.
type random struct{ state uint64 }

func newRandom(seed uint64, name string) *random {
	h := uint64(0xcbf29ce484222325) // FNV-1a
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return &random{state: h ^ seed*0x9E3779B97F4A7C15}
}

// next is SplitMix64.
func (r *random) next() uint64 {
	r.state += 0x9E3779B97F4A7C15
	x := r.state
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// uniform is in [-a, a). Its standard deviation is a/√3.
func (r *random) uniform(a float64) float32 {
	return float32((float64(r.next()>>11)/(1<<52) - 1) * a)
}

func (r *random) below(n int) int32 { return int32(r.next() % uint64(n)) }

func randomVoice(c *schema.Config, seed uint64, v Voice) cgo.VoiceArrays {
	r := newRandom(seed, "voice."+v.Name)
	ratio := c.Coarse.RateHz / c.Semantic.RateHz
	frames := max(1, int(math.Round(float64(v.SemanticTokens)*ratio)))
	arrays := cgo.VoiceArrays{Semantic: make([]int32, v.SemanticTokens)}
	for i := range arrays.Semantic {
		arrays.Semantic[i] = r.below(c.Semantic.VocabSize)
	}
	for range c.Fine.FineCodebooks {
		row := make([]int32, frames)
		for i := range row {
			row[i] = r.below(c.CodebookSize)
		}
		arrays.Fine = append(arrays.Fine, row)
	}
	arrays.Coarse = arrays.Fine[:c.Coarse.Codebooks]
	return arrays
}

func voiceRows(voices map[string]cgo.VoiceArrays, tensor string) [][]int32 {
	for name, v := range voices {
		switch tensor {
		case "voice." + name + ".semantic":
			return [][]int32{v.Semantic}
		case "voice." + name + ".coarse":
			return v.Coarse
		case "voice." + name + ".fine":
			return v.Fine
		}
	}
	panic(fmt.Sprintf("no voice for %s", tensor))
}
