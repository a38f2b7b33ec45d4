package convert

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/models/voicefile"
)

// weight is a tensor of a made-up checkpoint.
type weight struct {
	shape  []int64
	values []float32
}

// weightsMap is a made-up state dict.
type weightsMap map[string]weight

// add fills a tensor with numbers that depend on key alone, so that two spellings of one tensor can be told equal.
func (m weightsMap) add(name, key string, shape ...int64) {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	h := fnv.New64a()
	h.Write([]byte(key))
	x := h.Sum64()
	w := weight{shape, make([]float32, n)}
	for i := range w.values {
		x = x*6364136223846793005 + 1442695040888963407
		w.values[i] = float32(int64(x)>>40) / (1 << 23)
	}
	m[name] = w
}

// knobs are the sizes of a made-up model.
type knobs struct {
	textVocab, coarseVocab, fineVocab int64
	outVocab                          int64
	tables                            int
	bias                              bool
}

const embd, layers = 4, 1

func small() knobs {
	return knobs{textVocab: 80, outVocab: 44, coarseVocab: 60, fineVocab: 12, tables: 4}
}

// hfWeights spells out transformers' names.
func hfWeights(k knobs) weightsMap {
	m := make(weightsMap)
	for stage, vocab := range map[string]int64{"semantic": k.textVocab, "coarse_acoustics": k.coarseVocab, "fine_acoustics": k.fineVocab} {
		put := func(name string, shape ...int64) { m.add(stage+"."+name, stage+name, shape...) }
		fine := stage == "fine_acoustics"
		if fine {
			for q := range k.tables {
				put(fmt.Sprintf("input_embeds_layers.%d.weight", q), vocab, embd)
			}
			for i := range k.tables - 1 {
				m[fmt.Sprintf("%s.lm_heads.%d.weight", stage, i)] = m[fmt.Sprintf("%s.input_embeds_layers.%d.weight", stage, i+1)]
			}
		} else {
			put("input_embeds_layer.weight", vocab, embd)
			out := vocab
			if stage == "semantic" {
				out = k.outVocab
			}
			put("lm_head.weight", out, embd)
		}
		put("position_embeds_layer.weight", 1024, embd)
		for i := range layers {
			p := fmt.Sprintf("layers.%d.", i)
			for name, shape := range map[string][]int64{
				"layernorm_1": {embd}, "layernorm_2": {embd}, "attn.att_proj": {3 * embd, embd},
				"attn.out_proj": {embd, embd}, "mlp.in_proj": {4 * embd, embd}, "mlp.out_proj": {embd, 4 * embd},
			} {
				put(p+name+".weight", shape...)
				if k.bias || fine && strings.HasPrefix(name, "layernorm") {
					put(p+name+".bias", shape[0])
				}
			}
			put(p+"attn.bias", 1, 1, 8, 8) // the causal mask, to be ignored
		}
		put("layernorm_final.weight", embd)
		if k.bias || fine {
			put("layernorm_final.bias", embd)
		}
	}
	codec(m)
	return m
}

// codec adds a decoder of 2 filters, ratios 3 and 2, hidden size 5, one LSTM layer; 9 codes; 6 codebooks.
func codec(m weightsMap) {
	const p = "codec_model."
	conv := func(layer string, out, in, kernel int64) {
		name := p + "decoder.layers." + layer + ".conv."
		m.add(name+"weight_v", name+"v", out, in, kernel)
		m.add(name+"weight_g", name+"g", out, 1, 1)
		m.add(name+"bias", name+"b", out)
	}
	up := func(layer string, in, out, stride int64) {
		name := p + "decoder.layers." + layer + ".conv."
		m.add(name+"weight_v", name+"v", in, out, 2*stride)
		m.add(name+"weight_g", name+"g", in, 1, 1)
		m.add(name+"bias", name+"b", out)
	}
	conv("0", 8, 5, 7)
	for _, name := range []string{"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"} {
		shape := []int64{32, 8}
		if strings.HasPrefix(name, "bias") {
			shape = shape[:1]
		}
		m.add(p+"decoder.layers.1.lstm."+name, name, shape...)
	}
	up("3", 8, 4, 3)
	conv("4.block.1", 2, 4, 3)
	conv("4.block.3", 4, 2, 1)
	conv("4.shortcut", 4, 4, 1)
	up("6", 4, 2, 2)
	conv("7.block.1", 1, 2, 3)
	conv("7.block.3", 2, 1, 1)
	conv("7.shortcut", 2, 2, 1)
	conv("9", 1, 2, 7)
	for q := range 6 {
		name := fmt.Sprintf("%squantizer.layers.%d.codebook.", p, q)
		m.add(name+"embed", name, 9, 5)
		m.add(name+"embed_avg", name+"avg", 9, 5)
	}
	m.add(p+"encoder.layers.0.conv.bias", "ignored", 3)
}

const smallConfig = `{"model_type": "bark",
 "semantic_config": {"num_layers": 1, "num_heads": 2, "hidden_size": 4, "bias": false, "input_vocab_size": 80, "output_vocab_size": 44},
 "coarse_acoustics_config": {"num_layers": 1, "num_heads": 2, "hidden_size": 4, "bias": false, "input_vocab_size": 60, "output_vocab_size": 60},
 "fine_acoustics_config": {"num_layers": 1, "num_heads": 2, "hidden_size": 4, "bias": false, "input_vocab_size": 12, "output_vocab_size": 12, "n_codes_total": 4},
 "codec_config": {"model_type": "encodec", "hidden_size": 5, "num_filters": 2, "upsampling_ratios": [3, 2], "num_lstm_layers": 1, "codebook_size": 9}}`

const smallGeneration = `{"codebook_size": 8,
 "semantic_config": {"eos_token_id": 40, "semantic_vocab_size": 40, "semantic_infer_token": 79, "text_encoding_offset": 44,
  "text_pad_token": 75, "do_sample": true, "temperature": 0.7},
 "coarse_acoustics_config": {"coarse_semantic_pad_token": 56, "coarse_infer_token": 58},
 "fine_acoustics_config": {"n_fine_codebooks": 4, "temperature": 0.5}}`

const smallVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\n"

// write puts files into a folder.
func write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
}

// hfFolder is a small Hugging Face repository with a voice.
func hfFolder(t testing.TB, m weightsMap) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string][]byte{
		"config.json": []byte(smallConfig), "generation_config.json": []byte(smallGeneration),
		"vocab.txt": []byte(smallVocab), "model.safetensors": safetensors(m, "F32"),
	})
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "speaker_embeddings", "v2"), 0o755))
	require.NoError(t, voicefile.Write(filepath.Join(dir, "speaker_embeddings", "v2", "en.npz"), smallVoice()))
	return dir
}

func smallVoice() cgo.VoiceArrays {
	fine := [][]int32{{1, 2, 3}, {4, 5, 6}, {7, 0, 1}, {2, 3, 4}}
	return cgo.VoiceArrays{Semantic: []int32{39, 1}, Coarse: fine[:2], Fine: fine}
}

// safetensors encodes weights as F32, or as F16 or BF16 by cutting.
func safetensors(m weightsMap, dtype string) []byte {
	type entry struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets [2]int  `json:"data_offsets"`
	}
	header := make(map[string]entry)
	var data []byte
	for _, name := range names(m) {
		start := len(data)
		for _, v := range m[name].values {
			if dtype == "BF16" {
				data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(v)>>16))
			} else {
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
			}
		}
		header[name] = entry{dtype, m[name].shape, [2]int{start, len(data)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

func names(m weightsMap) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// torchFile encodes weights and settings as torch.save does: {"model": {...}, "model_args": {...}}, or the weights
// alone when there are no settings.
func torchFile(t testing.TB, m weightsMap, args map[string]int) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	member := func(name string, b []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name})
		require.NoError(t, err)
		_, err = w.Write(b)
		require.NoError(t, err)
	}
	text := func(s string) string { return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s }
	integer := func(n int) string { return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }
	tuple := func(items ...string) string { return "(" + strings.Join(items, "") + "t" }
	dict := "}("
	for i, name := range names(m) {
		w := m[name]
		var shape, stride []string
		step := len(w.values)
		for _, d := range w.shape {
			step /= int(d)
			shape, stride = append(shape, integer(int(d))), append(stride, integer(step))
		}
		id := tuple(text("storage"), "ctorch\nFloatStorage\n", text(fmt.Sprint(i)), text("cpu"), integer(len(w.values))) + "Q"
		dict += text(name) + "ctorch._utils\n_rebuild_tensor_v2\n" +
			tuple(id, integer(0), tuple(shape...), tuple(stride...), "\x89", "N") + "R"
		b, err := binary.Append(nil, binary.LittleEndian, w.values)
		require.NoError(t, err)
		member(fmt.Sprintf("archive/data/%d", i), b)
	}
	dict += "u"
	if args != nil {
		dict = "}(" + text("model") + dict + text("model_args") + "}("
		for name, n := range args {
			if name == "bias" {
				dict += text(name) + map[int]string{0: "\x89", 1: "\x88"}[n]
			} else {
				dict += text(name) + integer(n)
			}
		}
		dict += "uu"
	}
	member("archive/data.pkl", []byte("\x80\x02"+dict+"."))
	require.NoError(t, z.Close())
	return out.Bytes()
}
