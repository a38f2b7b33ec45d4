package convert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

func run(t testing.TB, dir string, kind Type) (*gguf.File, Report) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.gguf")
	r, err := Convert(context.Background(), Options{Source: dir, Out: out, Type: kind, Name: "me/small"})
	require.NoError(t, err)
	f, err := gguf.Open(out)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f, r
}

// fails converts and returns the error; nothing may be left behind.
func fails(t testing.TB, dir string, kind Type) error {
	t.Helper()
	folder := t.TempDir()
	_, err := Convert(context.Background(), Options{Source: dir, Out: filepath.Join(folder, "out.gguf"), Type: kind})
	require.Error(t, err)
	left, readErr := os.ReadDir(folder)
	require.NoError(t, readErr)
	require.Empty(t, left)
	return err
}

func floats(t testing.TB, f *gguf.File, name string) []float32 {
	t.Helper()
	tensor, ok := f.Find(name)
	require.True(t, ok, name)
	require.Equal(t, gguf.F32, tensor.Type, name)
	out := make([]float32, tensor.Elements())
	require.NoError(t, binary.Read(f.Data(tensor), binary.LittleEndian, out))
	return out
}

func TestHuggingFaceFolderBecomesAModelFile(t *testing.T) {
	m := hfWeights(small())
	dir := hfFolder(t, m)
	f, r := run(t, dir, Source)
	assert.Equal(t, F32, r.Type)
	assert.Equal(t, []string{"v2/en"}, r.Voices)
	for file, hf := range map[string]string{
		"semantic.wte.weight":            "semantic.input_embeds_layer.weight",
		"semantic.lm_head.weight":        "semantic.lm_head.weight",
		"coarse.wpe.weight":              "coarse_acoustics.position_embeds_layer.weight",
		"coarse.h.0.attn.c_attn.weight":  "coarse_acoustics.layers.0.attn.att_proj.weight",
		"coarse.h.0.attn.c_proj.weight":  "coarse_acoustics.layers.0.attn.out_proj.weight",
		"coarse.h.0.mlp.c_proj.weight":   "coarse_acoustics.layers.0.mlp.out_proj.weight",
		"coarse.h.0.mlp.c_fc.weight":     "coarse_acoustics.layers.0.mlp.in_proj.weight",
		"fine.wte.3.weight":              "fine_acoustics.input_embeds_layers.3.weight",
		"fine.h.0.ln_2.bias":             "fine_acoustics.layers.0.layernorm_2.bias",
		"fine.ln_f.weight":               "fine_acoustics.layernorm_final.weight",
		"codec.codebook.3.weight":        "codec_model.quantizer.layers.3.codebook.embed",
		"codec.lstm.0.weight_hh":         "codec_model.decoder.layers.1.lstm.weight_hh_l0",
		"codec.up.1.convtr.bias":         "codec_model.decoder.layers.6.conv.bias",
		"codec.up.0.res.0.conv1.bias":    "codec_model.decoder.layers.4.block.1.conv.bias",
		"codec.up.1.res.0.conv2.bias":    "codec_model.decoder.layers.7.block.3.conv.bias",
		"codec.up.1.res.0.shortcut.bias": "codec_model.decoder.layers.7.shortcut.conv.bias",
		"codec.conv_out.bias":            "codec_model.decoder.layers.9.conv.bias",
	} {
		assert.Equal(t, m[hf].values, floats(t, f, file), file)
	}
	for _, absent := range []string{"fine.lm_head.0.weight", "codec.codebook.4.weight", "semantic.h.0.attn.bias", "semantic.ln_f.bias"} {
		_, ok := f.Find(absent)
		assert.False(t, ok, absent)
	}
	ih, hh := m["codec_model.decoder.layers.1.lstm.bias_ih_l0"].values, m["codec_model.decoder.layers.1.lstm.bias_hh_l0"].values
	for i, v := range floats(t, f, "codec.lstm.0.bias") {
		require.InDelta(t, float64(ih[i])+float64(hh[i]), v, 1e-7)
	}
}

func TestProvenanceIsRecorded(t *testing.T) {
	dir := hfFolder(t, hfWeights(small()))
	f, _ := run(t, dir, Source)
	md := f.Metadata
	assert.Equal(t, "me/small", md.String("general.name"))
	assert.True(t, md.Bool("bark.trained"))
	assert.Equal(t, "huggingface", md.String("bark.source.format"))
	files := md.Strings("bark.source.files")
	assert.Equal(t, []string{"model.safetensors", "config.json", "generation_config.json", "vocab.txt"}, files)
	for i, name := range files {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		sum := sha256.Sum256(b)
		assert.Equal(t, hex.EncodeToString(sum[:]), md.Strings("bark.source.sha256")[i])
	}
}

func TestCodecDigestIsOfTheTensorsInTheFile(t *testing.T) {
	dir := hfFolder(t, hfWeights(small()))
	var digests []string
	for _, kind := range []Type{F32, Q8} {
		f, _ := run(t, dir, kind)
		var list []schema.Tensor
		for _, tensor := range f.Tensors {
			list = append(list, schema.Tensor{Name: tensor.Name, Shape: tensor.Shape})
		}
		digest := schema.NewCodecDigest(list)
		for _, codec := range schema.CodecTensors(list) {
			tensor, ok := f.Find(codec.Name)
			require.True(t, ok)
			require.NoError(t, digest.Next(codec.Name))
			_, err := io.Copy(digest, f.Data(tensor))
			require.NoError(t, err)
		}
		sum, err := digest.Sum()
		require.NoError(t, err)
		assert.Equal(t, sum, f.Metadata.String("bark.codec.sha256"))
		digests = append(digests, sum)
	}
	assert.Equal(t, digests[0], digests[1], "the type of the matrices is not the codec's")
}

func TestVoicesAreStored(t *testing.T) {
	f, _ := run(t, hfFolder(t, hfWeights(small())), Source)
	assert.Equal(t, []string{"v2/en"}, f.Metadata.Strings("bark.voices"))
	for name, want := range map[string][]int32{
		"voice.v2/en.semantic": {39, 1}, "voice.v2/en.coarse": {1, 2, 3, 4, 5, 6},
		"voice.v2/en.fine": {1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4},
	} {
		tensor, ok := f.Find(name)
		require.True(t, ok, name)
		got := make([]int32, tensor.Elements())
		require.NoError(t, binary.Read(f.Data(tensor), binary.LittleEndian, got))
		assert.Equal(t, want, got, name)
	}
}

// sunoRename spells a tensor of transformers the way suno and EnCodec do.
func sunoRename(name string) string {
	return strings.NewReplacer(
		"input_embeds_layer.", "transformer.wte.", "input_embeds_layers.", "transformer.wtes.",
		"position_embeds_layer.", "transformer.wpe.", "layernorm_final.", "transformer.ln_f.",
		"layers.0.layernorm_1.", "transformer.h.0.ln_1.", "layers.0.layernorm_2.", "transformer.h.0.ln_2.",
		"layers.0.attn.att_proj.", "transformer.h.0.attn.c_attn.", "layers.0.attn.out_proj.", "transformer.h.0.attn.c_proj.",
		"layers.0.mlp.in_proj.", "transformer.h.0.mlp.c_fc.", "layers.0.mlp.out_proj.", "transformer.h.0.mlp.c_proj.",
	).Replace(name)
}

func sunoFolder(t testing.TB, prefix string) (string, weightsMap) {
	k := knobs{textVocab: 129600, outVocab: 10048, coarseVocab: 12096, fineVocab: 1056, tables: 8}
	m := hfWeights(k)
	parts := map[string]weightsMap{"semantic": {}, "coarse_acoustics": {}, "fine_acoustics": {}, "codec_model": {}}
	for name, w := range m {
		stage, rest, _ := strings.Cut(name, ".")
		if stage != "codec_model" {
			parts[stage][prefix+sunoRename(rest)] = w
		}
	}
	th := parts["codec_model"]
	full := make(weightsMap)
	codec(full)
	for name, w := range full {
		name = strings.TrimPrefix(name, "codec_model.")
		name = strings.Replace(name, "decoder.layers.", "decoder.model.", 1)
		name = strings.Replace(name, "quantizer.layers.", "quantizer.vq.layers.", 1)
		name = strings.Replace(name, ".codebook.", "._codebook.", 1)
		wrapper := ".conv.conv."
		if strings.HasPrefix(name, "decoder.model.3.") || strings.HasPrefix(name, "decoder.model.6.") {
			wrapper = ".convtr.convtr."
		}
		th[strings.Replace(name, ".conv.", wrapper, 1)] = w
	}
	for name, w := range th { // suno's codes are 0..1023
		if strings.HasSuffix(name, "embed") {
			th.add(name, name, 1024, w.shape[1])
		}
	}
	for q := 6; q < 8; q++ {
		name := "quantizer.vq.layers." + string(rune('0'+q)) + "._codebook.embed"
		th.add(name, name, 1024, 5)
	}
	args := func(in, out int) map[string]int {
		a := map[string]int{"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 1024, "bias": 0}
		if in == out {
			a["vocab_size"] = in
		} else {
			a["input_vocab_size"], a["output_vocab_size"] = in, out
		}
		return a
	}
	dir := t.TempDir()
	write(t, dir, map[string][]byte{
		"text.pt":                   torchFile(t, parts["semantic"], args(129600, 10048)),
		"coarse.pt":                 torchFile(t, parts["coarse_acoustics"], args(12096, 12096)),
		"fine.pt":                   torchFile(t, parts["fine_acoustics"], args(1056, 1056)),
		"encodec_24khz-d7cc33bc.th": torchFile(t, th, nil), "vocab.txt": []byte(smallVocab),
	})
	return dir, m
}

func TestSunoFilesBecomeAModelFile(t *testing.T) {
	for _, prefix := range []string{"", "_orig_mod."} {
		dir, m := sunoFolder(t, prefix)
		f, r := run(t, dir, Source)
		assert.Equal(t, "suno", r.Format)
		for file, hf := range map[string]string{
			"semantic.wte.weight":         "semantic.input_embeds_layer.weight",
			"coarse.lm_head.weight":       "coarse_acoustics.lm_head.weight",
			"fine.wte.7.weight":           "fine_acoustics.input_embeds_layers.7.weight",
			"fine.h.0.ln_1.bias":          "fine_acoustics.layers.0.layernorm_1.bias",
			"fine.h.0.mlp.c_fc.weight":    "fine_acoustics.layers.0.mlp.in_proj.weight",
			"codec.up.0.convtr.bias":      "codec_model.decoder.layers.3.conv.bias",
			"codec.lstm.0.weight_ih":      "codec_model.decoder.layers.1.lstm.weight_ih_l0",
			"codec.up.1.res.0.conv1.bias": "codec_model.decoder.layers.7.block.1.conv.bias",
		} {
			assert.Equal(t, m[hf].values, floats(t, f, file), file)
		}
		n, _ := f.Metadata.Int("bark.semantic.infer_token")
		assert.Equal(t, int64(129599), n)
		ratios, _ := f.Metadata.Get("bark.codec.ratios")
		assert.Equal(t, []uint32{3, 2}, ratios)
	}
}

func TestSunoFolderMustBeComplete(t *testing.T) {
	dir, _ := sunoFolder(t, "")
	require.NoError(t, os.Remove(filepath.Join(dir, "vocab.txt")))
	assert.ErrorContains(t, fails(t, dir, Source), "vocab.txt")
	require.NoError(t, os.Remove(filepath.Join(dir, "encodec_24khz-d7cc33bc.th")))
	assert.ErrorContains(t, fails(t, dir, Source), "encodec_24khz")
	require.NoError(t, os.Remove(filepath.Join(dir, "fine.pt")))
	assert.ErrorContains(t, fails(t, dir, Source), "three checkpoints")
	assert.ErrorContains(t, fails(t, t.TempDir(), Source), "no checkpoint")
	assert.ErrorContains(t, fails(t, filepath.Join(dir, "nowhere"), Source), "nowhere")
}

func TestTiedHeadsAreStoredOnce(t *testing.T) {
	without := func(part string) weightsMap {
		m := hfWeights(small())
		for name := range m {
			if strings.Contains(name, part) {
				delete(m, name)
			}
		}
		return m
	}
	both, _ := run(t, hfFolder(t, hfWeights(small())), Source)
	tablesOnly, _ := run(t, hfFolder(t, without("lm_heads.")), Source)
	headsOnly := without("lm_heads.9")
	for _, q := range []string{"1", "2", "3"} {
		delete(headsOnly, "fine_acoustics.input_embeds_layers."+q+".weight")
	}
	fromHeads, _ := run(t, hfFolder(t, headsOnly), Source)
	for _, name := range []string{"fine.wte.1.weight", "fine.wte.3.weight"} {
		assert.Equal(t, floats(t, both, name), floats(t, tablesOnly, name))
		assert.Equal(t, floats(t, both, name), floats(t, fromHeads, name))
	}
	_, stored := fromHeads.Find("fine.lm_head.0.weight")
	assert.False(t, stored)
}

func TestHeadsOfOtherValuesAreStored(t *testing.T) {
	m := hfWeights(small())
	m.add("fine_acoustics.lm_heads.1.weight", "of its own", 12, embd)
	f, _ := run(t, hfFolder(t, m), Source)
	assert.Equal(t, m["fine_acoustics.lm_heads.1.weight"].values, floats(t, f, "fine.lm_head.1.weight"))
	_, stored := f.Find("fine.lm_head.0.weight")
	assert.False(t, stored)
}

func TestUntiedModelWithoutHeadsIsIncomplete(t *testing.T) {
	m := hfWeights(small())
	delete(m, "fine_acoustics.lm_heads.1.weight")
	dir := hfFolder(t, m)
	config := strings.Replace(smallConfig, `"n_codes_total": 4`, `"n_codes_total": 4, "tie_word_embeddings": false`, 1)
	write(t, dir, map[string][]byte{"config.json": []byte(config)})
	assert.ErrorContains(t, fails(t, dir, Source), "fine_acoustics.lm_heads.1.weight")
}

func TestMissingTensorsAreListed(t *testing.T) {
	m := hfWeights(small())
	delete(m, "semantic.layers.0.attn.att_proj.weight")
	delete(m, "codec_model.decoder.layers.0.conv.weight_g")
	err := fails(t, hfFolder(t, m), Source)
	assert.ErrorContains(t, err, "semantic.layers.0.attn.att_proj.weight")
	assert.ErrorContains(t, err, "codec_model.decoder.layers.0.conv.weight_g")
}

func TestTensorOfAnotherShapeIsNamed(t *testing.T) {
	m := hfWeights(small())
	m.add("coarse_acoustics.lm_head.weight", "x", 59, embd)
	assert.ErrorContains(t, fails(t, hfFolder(t, m), Source), "coarse_acoustics.lm_head.weight is [59 4], want [60 4]")
}

func TestTypesApplyToMatricesOnly(t *testing.T) {
	dir := hfFolder(t, hfWeights(small()))
	for kind, want := range map[Type]gguf.Type{F32: gguf.F32, F16: gguf.F16, BF16: gguf.BF16, Q8: gguf.I8} {
		f, r := run(t, dir, kind)
		assert.Equal(t, kind, r.Type)
		for name, typ := range map[string]gguf.Type{
			"semantic.wte.weight": want, "coarse.lm_head.weight": want, "fine.h.0.mlp.c_proj.weight": want,
			"semantic.wpe.weight": gguf.F32, "fine.ln_f.bias": gguf.F32, "codec.conv_in.weight": gguf.F32,
		} {
			tensor, ok := f.Find(name)
			require.True(t, ok, name)
			assert.Equal(t, typ, tensor.Type, "%s in %s", name, kind)
		}
	}
}

func TestFourBitsNeedATileThatFits(t *testing.T) {
	assert.ErrorContains(t, fails(t, hfFolder(t, hfWeights(small())), Q4), "q8")
}

func TestDefaultTypeIsThatOfTheSource(t *testing.T) {
	dir := hfFolder(t, hfWeights(small()))
	write(t, dir, map[string][]byte{"model.safetensors": safetensors(hfWeights(small()), "BF16")})
	_, r := run(t, dir, Source)
	assert.Equal(t, BF16, r.Type)
}

func TestEightBitRowsAreWithinHalfAStep(t *testing.T) {
	m := hfWeights(small())
	f, _ := run(t, hfFolder(t, m), Q8)
	q, ok := f.Find("coarse.h.0.attn.c_attn.weight")
	require.True(t, ok)
	raw := make([]int8, q.Elements())
	require.NoError(t, binary.Read(f.Data(q), binary.LittleEndian, raw))
	scales := floats(t, f, "coarse.h.0.attn.c_attn.scale")
	want := m["coarse_acoustics.layers.0.attn.att_proj.weight"].values
	require.Len(t, scales, 3*embd)
	for i, v := range want {
		s := float64(scales[i/embd])
		require.LessOrEqual(t, math.Abs(float64(v)-s*float64(raw[i])), s*0.5001)
	}
}

func TestOverflowNamesTheTensor(t *testing.T) {
	m := hfWeights(small())
	m["coarse_acoustics.lm_head.weight"].values[7] = 70000
	assert.ErrorContains(t, fails(t, hfFolder(t, m), F16), `"coarse.lm_head.weight"`)
	m["coarse_acoustics.lm_head.weight"].values[7] = float32(math.NaN())
	assert.ErrorContains(t, fails(t, hfFolder(t, m), F32), `"coarse.lm_head.weight"`)
}

func TestConversionStopsWhenTheContextEnds(t *testing.T) {
	dir, folder := hfFolder(t, hfWeights(small())), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err := Convert(ctx, Options{Source: dir, Out: filepath.Join(folder, "x"), Progress: func(int64, int64) {
		if calls++; calls == 8 { // the digests are done, tensors are being written
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	left, _ := os.ReadDir(folder)
	assert.Empty(t, left)
}

func TestProgressEndsAtItsTotal(t *testing.T) {
	for _, kind := range []Type{F32, Q8} {
		last, total := int64(0), int64(0)
		_, err := Convert(context.Background(), Options{
			Source: hfFolder(t, hfWeights(small())), Out: filepath.Join(t.TempDir(), "x"), Type: kind,
			Progress: func(d, n int64) {
				require.GreaterOrEqual(t, d, last)
				last, total = d, n
			},
		})
		require.NoError(t, err)
		assert.Equal(t, total, last)
	}
}

func TestShardsAreRead(t *testing.T) {
	m := hfWeights(small())
	first, second := make(weightsMap), make(weightsMap)
	index := &bytes.Buffer{}
	index.WriteString(`{"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}`)
	for i, name := range names(m) {
		map[bool]weightsMap{true: first, false: second}[i%2 == 0][name] = m[name]
	}
	dir := hfFolder(t, m)
	require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
	write(t, dir, map[string][]byte{
		"model.safetensors.index.json":     index.Bytes(),
		"model-00001-of-00002.safetensors": safetensors(first, "F32"),
		"model-00002-of-00002.safetensors": safetensors(second, "F32"),
	})
	f, _ := run(t, dir, Source)
	assert.Equal(t, m["semantic.lm_head.weight"].values, floats(t, f, "semantic.lm_head.weight"))
	write(t, dir, map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map": {"x": "../../secret"}}`)})
	assert.ErrorContains(t, fails(t, dir, Source), "plain file name")
}
