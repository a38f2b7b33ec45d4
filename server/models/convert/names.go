package convert

import (
	"fmt"
	"regexp"
	"strings"

	"barkd/server/models/schema"
)

// naming translates the tensor names of a model file to those of a source.
type naming interface {
	// gpt returns the source's name of a transformer tensor, e.g. semantic.h.0.ln_1.weight.
	gpt(stage, rest string) string
	// conv returns the prefix of a codec convolution (before .weight_v, .bias …): layer of the decoder, path inside
	// it (empty, block.1, block.3 or shortcut), and whether it is transposed.
	conv(layer int, inside string, transposed bool) string
	lstm(rest string) string
	codebook(q int) string
}

// hfNames are those of transformers' BarkModel.
type hfNames struct{}

var hfStages = map[string]string{"semantic": "semantic.", "coarse": "coarse_acoustics.", "fine": "fine_acoustics."}

var hfWords = strings.NewReplacer(
	"wpe.", "position_embeds_layer.", "ln_f.", "layernorm_final.", ".ln_1.", ".layernorm_1.", ".ln_2.", ".layernorm_2.",
	".attn.c_attn.", ".attn.att_proj.", ".attn.c_proj.", ".attn.out_proj.", ".mlp.c_fc.", ".mlp.in_proj.",
	".mlp.c_proj.", ".mlp.out_proj.",
)

func (hfNames) gpt(stage, rest string) string {
	switch {
	case strings.HasPrefix(rest, "h."):
		rest = "layers." + rest[len("h."):]
	case rest == "wte.weight":
		rest = "input_embeds_layer.weight"
	case strings.HasPrefix(rest, "wte."):
		rest = "input_embeds_layers." + rest[len("wte."):]
	case stage == "fine" && strings.HasPrefix(rest, "lm_head."):
		rest = "lm_heads." + rest[len("lm_head."):]
	}
	return hfStages[stage] + hfWords.Replace(rest)
}

func (hfNames) conv(layer int, inside string, _ bool) string {
	if inside != "" {
		inside += "."
	}
	return fmt.Sprintf("codec_model.decoder.layers.%d.%sconv", layer, inside)
}

func (hfNames) lstm(rest string) string { return "codec_model.decoder.layers.1.lstm." + rest }

func (hfNames) codebook(q int) string {
	return fmt.Sprintf("codec_model.quantizer.layers.%d.codebook.embed", q)
}

// sunoNames are those of suno's three files, behind a prefix per file, and of EnCodec's.
type sunoNames struct{}

func (sunoNames) gpt(stage, rest string) string {
	switch {
	case stage == "fine" && strings.HasPrefix(rest, "lm_head."):
		return stage + ".lm_heads." + rest[len("lm_head."):]
	case strings.HasPrefix(rest, "lm_head."):
		return stage + "." + rest
	case stage == "fine" && strings.HasPrefix(rest, "wte."):
		return stage + ".transformer.wtes." + rest[len("wte."):]
	}
	return stage + ".transformer." + rest
}

func (sunoNames) conv(layer int, inside string, transposed bool) string {
	wrapper := "conv.conv"
	if transposed {
		wrapper = "convtr.convtr"
	}
	if inside != "" {
		inside += "."
	}
	return fmt.Sprintf("codec.decoder.model.%d.%s%s", layer, inside, wrapper)
}

func (sunoNames) lstm(rest string) string { return "codec.decoder.model.1.lstm." + rest }

func (sunoNames) codebook(q int) string {
	return fmt.Sprintf("codec.quantizer.vq.layers.%d._codebook.embed", q)
}

// codecLayer returns where a stage of the decoder begins in the sources' list of layers: 0 is the first convolution,
// 1 the LSTM; each stage is an ELU, a transposed convolution and its residual blocks; an ELU and the last convolution end it.
func codecLayer(k *schema.Codec, stage int) int { return 2 + stage*(2+k.ResidualLayers) }

var (
	upName  = regexp.MustCompile(`^up\.(\d+)\.convtr$`)
	resName = regexp.MustCompile(`^up\.(\d+)\.res\.(\d+)\.(conv1|conv2|shortcut)$`)
)
