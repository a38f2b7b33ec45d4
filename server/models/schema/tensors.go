package schema

import (
	"fmt"
	"slices"

	"barkd/server/models/gguf"
)

// Type is the storage type of a file's matrices. Codec, norms, biases and positions are always F32.
type Type string

// The storage types.
const (
	F32  Type = "f32"  //
	BF16 Type = "bf16" // 8 bits of precision, the range of f32
	F16  Type = "f16"  // 11 bits of precision, at most 65504
	Q8   Type = "q8"   // 8-bit integers, one F32 scale per row
	Q4   Type = "q4"   // the layers of the decode stages 4-bit integers, one F16 scale per 32; the rest as Q8

	q8Tiles Type = "q8 in tiles" // what Q8 is of the matrices that are tiled
)

// Tensor is one tensor of a model file.
type Tensor struct {
	Name   string
	Shape  []int64 // row-major
	Matrix bool    // marked M in native/DESIGN.md: in the type of the file; all else is F32
	Rows   bool    // a head of which rows are read that do not begin a tile
	Voice  bool    // I32
}

// Tensors lists the tensors of the file in file order. The config must be valid.
func (c *Config) Tensors() []Tensor {
	var l list
	l.gpt("semantic", c.Semantic.GPT, c.Semantic.Bias, func() {
		l.matrix("semantic.wte.weight", c.Semantic.VocabIn, c.Semantic.Embd)
	})
	l.head("semantic.lm_head.weight", c.Semantic.GPT, c.Semantic.EOSToken)
	l.gpt("coarse", c.Coarse.GPT, c.Coarse.Bias, func() {
		l.matrix("coarse.wte.weight", c.Coarse.VocabIn, c.Coarse.Embd)
	})
	l.head("coarse.lm_head.weight", c.Coarse.GPT, c.Semantic.VocabSize, c.Semantic.VocabSize+c.CodebookSize)
	l.gpt("fine", c.Fine.GPT, true, func() {
		for q := range c.Fine.Tables {
			l.matrix(fmt.Sprintf("fine.wte.%d.weight", q), c.Fine.VocabIn, c.Fine.Embd)
		}
	})
	for i, untied := range c.Fine.Untied {
		if untied {
			l.matrix(fmt.Sprintf("fine.lm_head.%d.weight", i), c.Fine.VocabOut, c.Fine.Embd)
		}
	}
	l.codec(&c.Codec)
	for _, v := range c.Voices {
		l.voice("voice."+v.Name+".semantic", v.SemanticTokens)
		l.voice("voice."+v.Name+".coarse", c.Coarse.Codebooks, v.CoarseFrames)
		l.voice("voice."+v.Name+".fine", c.Fine.FineCodebooks, v.FineFrames)
	}
	return l
}

// storage returns the type that the tensor's numbers have in a file whose matrices are in the given type.
func (t Tensor) storage(matrices Type) Type {
	switch {
	case !t.Matrix:
		return F32
	case matrices == Q4 && t.FourBits():
		return Q4
	case matrices == Q8 || matrices == Q4:
		if t.tiled() {
			return q8Tiles
		}
		return Q8
	}
	return matrices
}

// Declare turns the tensor into the container's description: one tensor, or the matrix and its scales.
func (t Tensor) Declare(matrices Type) []gguf.Tensor {
	if t.Voice {
		return []gguf.Tensor{{Name: t.Name, Type: gguf.I32, Shape: t.Shape}}
	}
	switch t.storage(matrices) {
	case Q4:
		return []gguf.Tensor{{Name: t.Name, Type: gguf.I8, Shape: t.tiledShape(fourBitTileBytes)}}
	case q8Tiles:
		return []gguf.Tensor{
			{Name: t.Name, Type: gguf.I8, Shape: t.tiledShape(eightBitTileBytes)},
			{Name: ScaleName(t.Name), Type: gguf.F32, Shape: t.Shape[:1]},
		}
	case Q8:
		return []gguf.Tensor{
			{Name: t.Name, Type: gguf.I8, Shape: t.Shape},
			{Name: ScaleName(t.Name), Type: gguf.F32, Shape: t.Shape[:1]},
		}
	case F16:
		return []gguf.Tensor{{Name: t.Name, Type: gguf.F16, Shape: t.Shape}}
	case BF16:
		return []gguf.Tensor{{Name: t.Name, Type: gguf.BF16, Shape: t.Shape}}
	}
	return []gguf.Tensor{{Name: t.Name, Type: gguf.F32, Shape: t.Shape}}
}

// ScaleName returns the name of the row scales of an I8 matrix: X.weight has X.scale.
func ScaleName(weight string) string { return weight[:len(weight)-len("weight")] + "scale" }

type list []Tensor

func shape(dims []int) []int64 {
	s := make([]int64, len(dims))
	for i, d := range dims {
		s[i] = int64(d)
	}
	return s
}

func (l *list) add(name string, dims ...int) {
	*l = append(*l, Tensor{Name: name, Shape: shape(dims)})
}

func (l *list) matrix(name string, rows, cols int) {
	*l = append(*l, Tensor{Name: name, Shape: shape([]int{rows, cols}), Matrix: true})
}

// head lists the head of a causal stage, whose legal rows begin at the first one and at the given ones.
func (l *list) head(name string, g GPT, first ...int) {
	l.matrix(name, g.VocabOut, g.Embd)
	(*l)[len(*l)-1].Rows = slices.ContainsFunc(first, func(row int) bool { return row%tileRows != 0 })
}

func (l *list) voice(name string, dims ...int) {
	*l = append(*l, Tensor{Name: name, Shape: shape(dims), Voice: true})
}

// gpt lists a transformer but for its heads; normBias is whether the LayerNorms have a bias.
func (l *list) gpt(stage string, g GPT, normBias bool, tables func()) {
	norm := func(name string) {
		l.add(name+".weight", g.Embd)
		if normBias {
			l.add(name+".bias", g.Embd)
		}
	}
	linear := func(name string, out, in int) {
		l.matrix(name+".weight", out, in)
		if g.Bias {
			l.add(name+".bias", out)
		}
	}
	tables()
	l.add(stage+".wpe.weight", g.BlockSize, g.Embd)
	for i := range g.Layers {
		h := fmt.Sprintf("%s.h.%d.", stage, i)
		norm(h + "ln_1")
		linear(h+"attn.c_attn", 3*g.Embd, g.Embd)
		linear(h+"attn.c_proj", g.Embd, g.Embd)
		norm(h + "ln_2")
		linear(h+"mlp.c_fc", 4*g.Embd, g.Embd)
		linear(h+"mlp.c_proj", g.Embd, 4*g.Embd)
	}
	norm(stage + ".ln_f")
}

func (l *list) codec(k *Codec) {
	conv := func(name string, out, kernel, in int) {
		l.add(name+".weight", out, kernel, in)
		l.add(name+".bias", out)
	}
	for q := range k.Codebooks {
		l.add(fmt.Sprintf("codec.codebook.%d.weight", q), k.CodebookSize, k.HiddenSize)
	}
	width := k.Width(0)
	conv("codec.conv_in", width, k.KernelSize, k.HiddenSize)
	for i := range k.LSTMLayers {
		p := fmt.Sprintf("codec.lstm.%d.", i)
		l.add(p+"weight_ih", 4*width, width)
		l.add(p+"weight_hh", 4*width, width)
		l.add(p+"bias", 4*width)
	}
	for i, stride := range k.Ratios {
		in, out := k.Width(i), k.Width(i+1)
		p := fmt.Sprintf("codec.up.%d.", i)
		l.add(p+"convtr.weight", stride, out, 2, in)
		l.add(p+"convtr.bias", out)
		for j := range k.ResidualLayers {
			r := fmt.Sprintf("%sres.%d.", p, j)
			conv(r+"conv1", out/k.Compress, k.ResidualKernelSize, out)
			conv(r+"conv2", out, 1, out/k.Compress)
			if k.ConvShortcut {
				conv(r+"shortcut", out, 1, out)
			}
		}
	}
	conv("codec.conv_out", 1, k.LastKernelSize, k.Filters)
}
