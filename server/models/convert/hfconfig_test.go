package convert

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/schema"
)

func parsed(t *testing.T, config, generation string) schema.Config {
	t.Helper()
	var c schema.Config
	_, err := parseConfig(&c, []byte(config), []byte(generation))
	require.NoError(t, err)
	return c
}

func TestAbsentSettingsHaveTheDefaultsOfTransformers(t *testing.T) {
	var c schema.Config
	_, err := parseConfig(&c, []byte(`{}`), nil)
	require.NoError(t, err)
	gpt := schema.GPT{Layers: 12, Heads: 12, Embd: 768, BlockSize: 1024, VocabIn: 10048, VocabOut: 10048, Bias: true}
	assert.Equal(t, gpt, c.Semantic.GPT)
	assert.Equal(t, gpt, c.Fine.GPT)
	assert.Equal(t, schema.Semantic{
		GPT: gpt, VocabSize: 10000, EOSToken: 10000, PadToken: 10000, InferToken: 129599, TextEncodingOffset: 10048,
		TextPadToken: 129595, MaxInputLength: 256, MaxNewTokens: 768, RateHz: 49.9, HF: schema.Sampling{TopK: 50, TopP: 1},
	}, c.Semantic)
	assert.Equal(t, schema.Coarse{
		GPT: gpt, SemanticPadToken: 12048, InferToken: 12050, MaxInputLength: 256, MaxHistory: 630, WindowLength: 60,
		Codebooks: 2, RateHz: 75, HF: schema.Sampling{TopK: 50, TopP: 1},
	}, c.Coarse)
	assert.Equal(t, schema.Fine{
		GPT: gpt, Tables: 8, Given: 1, FineCodebooks: 8, InputLength: 1024, HistoryLength: 512, HF: schema.Sampling{TopP: 1},
	}, c.Fine)
	assert.Equal(t, schema.Codec{
		SampleRate: 24000, HiddenSize: 128, Filters: 32, KernelSize: 7, LastKernelSize: 7, ResidualKernelSize: 3,
		ResidualLayers: 1, DilationGrowthRate: 2, Compress: 2, LSTMLayers: 2, CodebookSize: 1024, Codebooks: 8,
		Ratios: []int{8, 5, 4, 2}, ConvShortcut: true,
	}, c.Codec)
	assert.Equal(t, 1024, c.CodebookSize)
}

func TestOlderNamesOfSizesAreUnderstood(t *testing.T) {
	c := parsed(t, `{"semantic_config": {"num_hidden_layers": 3, "num_attention_heads": 4, "window_size": 99, "vocab_size": 7}}`, `{}`)
	assert.Equal(t, schema.GPT{Layers: 3, Heads: 4, Embd: 768, BlockSize: 99, VocabIn: 7, VocabOut: 10048, Bias: true}, c.Semantic.GPT)
}

func TestSamplingFollowsTransformers(t *testing.T) {
	for settings, want := range map[string]schema.Sampling{
		`{}`:                   {Temperature: 0, TopK: 50, TopP: 1}, // greedy
		`{"temperature": 0.7}`: {Temperature: 0, TopK: 50, TopP: 1}, // do_sample decides
		`{"do_sample": true}`:  {Temperature: 1, TopK: 50, TopP: 1},
		`{"do_sample": true, "temperature": null, "top_k": null}`:    {Temperature: 1, TopK: 50, TopP: 1},
		`{"do_sample": true, "temperature": 0.7, "top_k": 0}`:        {Temperature: 0.7, TopK: 0, TopP: 1},
		`{"do_sample": true, "top_k": 7, "top_p": 0.9}`:              {Temperature: 1, TopK: 7, TopP: 0.9},
		`{"do_sample": true, "temperature": 1.5, "top_p": 1.0}`:      {Temperature: 1.5, TopK: 50, TopP: 1},
		`{"do_sample": false, "temperature": 0.7, "min_eos_p": 0.2}`: {Temperature: 0, TopK: 50, TopP: 1},
	} {
		c := parsed(t, `{}`, `{"semantic_config": `+settings+`, "coarse_acoustics_config": `+settings+`}`)
		assert.Equal(t, want, c.Semantic.HF, settings)
		assert.Equal(t, want, c.Coarse.HF, settings)
	}
	for temperature, want := range map[string]float32{"null": 0, "1.0": 0, "0.5": 0.5, "2": 2} {
		c := parsed(t, `{}`, `{"fine_acoustics_config": {"temperature": `+temperature+`, "do_sample": false}}`)
		assert.Equal(t, want, c.Fine.HF.Temperature, temperature)
	}
}

func TestSemanticPadIsAlwaysTheEndToken(t *testing.T) {
	c := parsed(t, `{}`, `{"semantic_config": {"eos_token_id": 60, "semantic_pad_token": 70}}`)
	assert.Equal(t, 60, c.Semantic.PadToken)
}

func TestSettingsWithoutCounterpartAreRemarked(t *testing.T) {
	var c schema.Config
	remarks, err := parseConfig(&c, []byte(`{}`), []byte(`{"coarse_acoustics_config": {"num_beams": 4, "typical_p": 1.0}}`))
	require.NoError(t, err)
	require.Len(t, remarks, 1)
	assert.Contains(t, remarks[0], "num_beams 4")
}

func TestUnsupportedCodecsAreErrors(t *testing.T) {
	for codec, want := range map[string]string{
		`"use_causal_conv": false`:         "use_causal_conv is false",
		`"norm_type": "time_group_norm"`:   "norm_type",
		`"pad_mode": "constant"`:           "pad_mode",
		`"trim_right_ratio": 0.5`:          "trim_right_ratio",
		`"audio_channels": 2`:              "audio_channels",
		`"codebook_dim": 64`:               "codebook_dim",
		`"model_type": "dac"`:              "model_type",
		`"upsampling_ratios": [8, "x"]`:    "list of integers",
		`"use_conv_shortcut": "yes"`:       "true or false",
		`"kernel_size": 7.5`:               "an integer",
		`"num_filters": 99999999999999`:    "an integer",
		`"codebook_size": {"value": 1024}`: "an integer",
	} {
		var c schema.Config
		_, err := parseConfig(&c, []byte(`{"codec_config": {`+codec+`}}`), nil)
		assert.ErrorContains(t, err, want, codec)
	}
}

func TestConfigsThatAreNoneAreErrors(t *testing.T) {
	for config, want := range map[string]string{
		`[]`: "config.json", `null`: "not a JSON object", `{`: "config.json", `{} {}`: "after",
		`{"model_type": "gpt2"}`: "gpt2", `{"semantic_config": 7}`: "an object",
		strings.Repeat(`{"a":`, 20000): "config.json",
	} {
		var c schema.Config
		_, err := parseConfig(&c, []byte(config), nil)
		assert.ErrorContains(t, err, want, "%.20s", config)
	}
}

func TestImpossibleNumbersAreErrors(t *testing.T) {
	for edit, want := range map[string]string{
		`"num_heads": 2|"num_heads": 3`:                       "num_heads",
		`"num_layers": 1|"num_layers": -1`:                    "num_layers",
		`"hidden_size": 4|"hidden_size": 1000000000`:          "hidden_size",
		`"num_filters": 2|"num_filters": 0`:                   "num_filters",
		`"upsampling_ratios": [3, 2]|"upsampling_ratios": []`: "upsampling_ratios",
		`"n_codes_total": 4|"n_codes_total": 3`:               "n_fine_codebooks",
		`"input_vocab_size": 80|"input_vocab_size": 79`:       "semantic_infer_token",
		`"input_vocab_size": 60|"input_vocab_size": 55`:       "coarse",
		`"codebook_size": 9|"codebook_size": 7`:               "codebook_size",
	} {
		from, to, _ := strings.Cut(edit, "|")
		require.Contains(t, smallConfig, from)
		dir := hfFolder(t, hfWeights(small()))
		write(t, dir, map[string][]byte{"config.json": []byte(strings.ReplaceAll(smallConfig, from, to))})
		assert.ErrorContains(t, fails(t, dir, Source), want, edit)
	}
}

func FuzzConfigJSON(f *testing.F) {
	f.Add([]byte(smallConfig), []byte(smallGeneration))
	f.Add([]byte(`{}`), []byte(`{"semantic_config": {"do_sample": true, "top_p": 0, "temperature": 1e300}}`))
	f.Add([]byte(`{"codec_config": {"upsampling_ratios": [8, 5, 4, 2]}}`), []byte(`{"fine_acoustics_config": null}`))
	f.Fuzz(func(t *testing.T, config, generation []byte) {
		var c schema.Config
		if _, err := parseConfig(&c, config, generation); err != nil {
			return
		}
		c.Tokenizer = schema.Tokenizer{Tokens: []string{"a"}, MaxWordChars: 1}
		if c.Validate() == nil && c.Semantic.Layers*c.Coarse.Layers*c.Fine.Layers < 1000 {
			c.Tensors()
			c.Metadata()
		}
	})
}
