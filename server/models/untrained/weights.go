package untrained

import (
	"math"
	"strings"

	"barkd/server/models/schema"
)

// clock is the column of the residual stream that carries the position and nothing else: position embeddings ramp in
// it, everything else leaves it alone, and the end-of-speech row of the semantic head reads it. That is how a random
// model ends by itself, greedy or sampled, after a couple of seconds and not at once.
const clock = 0

const (
	eosGain  = 2.0 // weight of the clock in the end-of-speech logit
	clockEnd = 6.0 // the clock's value when the last allowed token is fed; minus that at the first
)

// weights returns the values of a tensor, row-major.
func weights(c *schema.Config, seed uint64, t schema.Tensor) []float32 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	out := make([]float32, n)
	r := newRandom(seed, t.Name)
	scale := deviation(t) * math.Sqrt(3)
	for i := range out {
		out[i] = r.uniform(scale)
	}
	if strings.HasSuffix(t.Name, "ln_1.weight") || strings.HasSuffix(t.Name, "ln_2.weight") ||
		strings.HasSuffix(t.Name, "ln_f.weight") {
		for i := range out {
			out[i] += 1
		}
	}
	if strings.HasPrefix(t.Name, "semantic.") {
		endOfSpeech(&c.Semantic, t, out)
	}
	return out
}

// deviation keeps activations near one: 1/√inputs for maps, a little noise for biases and gains.
func deviation(t schema.Tensor) float64 {
	inputs := 1.0
	for _, d := range t.Shape[1:] {
		inputs *= float64(d)
	}
	switch {
	case len(t.Shape) == 1:
		return 0.05
	case strings.Contains(t.Name, ".wte."):
		return 1
	case strings.Contains(t.Name, ".wpe."), strings.Contains(t.Name, ".codebook."):
		return 0.5
	case t.Name == "codec.conv_out.weight":
		return 2.5 / math.Sqrt(inputs) // about 0.1 of full scale
	}
	return 1 / math.Sqrt(inputs)
}

// endOfSpeech sets the clock column in the tensors of the semantic model.
func endOfSpeech(s *schema.Semantic, t schema.Tensor, w []float32) {
	cols := int(t.Shape[len(t.Shape)-1])
	rows := len(w) / cols
	switch {
	case t.Name == "semantic.wpe.weight":
		for pos := range rows {
			generated := pos - s.MaxInputLength // tokens so far, negative inside the prefix
			w[pos*cols+clock] = float32(clockEnd * (2*float64(generated)/float64(s.MaxNewTokens) - 1))
		}
	case t.Name == "semantic.lm_head.weight":
		for row := range rows {
			w[row*cols+clock] = 0
		}
		eos := w[s.EOSToken*cols : (s.EOSToken+1)*cols]
		clear(eos)
		eos[clock] = eosGain
	case t.Name == "semantic.wte.weight":
		for row := range rows {
			w[row*cols+clock] = 0
		}
	case strings.HasSuffix(t.Name, ".c_proj.weight"):
		clear(w[clock*cols : (clock+1)*cols])
	case strings.HasSuffix(t.Name, ".c_proj.bias"), t.Name == "semantic.ln_f.bias":
		w[clock] = 0
	}
}
