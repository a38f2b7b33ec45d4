package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

// source is a tensor of the file that is read; next reads the next row of a matrix.
type source struct {
	tensor schema.Tensor
	data   io.Reader
	next   func(row []float32) error
}

func open(in *gguf.File, t gguf.Tensor) (source, error) {
	s := source{tensor: schema.Tensor{Name: t.Name, Shape: t.Shape, Matrix: isMatrix(t), Voice: t.Type == gguf.I32}, data: in.Data(t)}
	switch {
	case !s.tensor.Matrix:
		return s, nil
	case t.Type == gguf.F32:
		s.next = func(row []float32) error { return binary.Read(s.data, binary.LittleEndian, row) }
		return s, nil
	case t.Type == gguf.I8:
		if scale, ok := in.Find(schema.ScaleName(t.Name)); ok {
			return s.eightBits(t, scale, in.Data(scale))
		}
		return s, fmt.Errorf("tensor %q is 4-bit: want f32 or 8-bit matrices", t.Name)
	}
	return s, fmt.Errorf("tensor %q is %s: want f32 or 8-bit matrices", t.Name, t.Type)
}

// eightBits reads rows as they lie, or sixteen of them in a row of tiles.
func (s source) eightBits(t, scale gguf.Tensor, scaleData io.Reader) (source, error) {
	rows, together := scale.Elements(), int64(1)
	if t.Shape[0] != rows {
		together = 16
	}
	if scale.Type != gguf.F32 || rows != together*t.Shape[0] || t.Shape[1]%together != 0 {
		return s, fmt.Errorf("tensor %q of shape %v does not fit its scales: %s of shape %v", t.Name, t.Shape, scale.Type, scale.Shape)
	}
	scales := make([]float32, rows)
	if err := binary.Read(scaleData, binary.LittleEndian, scales); err != nil {
		return s, err
	}
	s.tensor.Shape = []int64{rows, t.Shape[1] / together}
	bytes, q, at := make([]byte, t.Shape[1]), make([]byte, s.tensor.Shape[1]), 0
	s.next = func(row []float32) error {
		if at%int(together) == 0 {
			if _, err := io.ReadFull(s.data, bytes); err != nil {
				return err
			}
		}
		if together == 1 {
			copy(q, bytes)
		} else {
			schema.EightBitRow(q, bytes, at%16)
		}
		for i, n := range q {
			row[i] = scales[at] * float32(int8(n))
		}
		at++
		return nil
	}
	return s, nil
}

// isMatrix tells the tensors that native/DESIGN.md marks M.
func isMatrix(t gguf.Tensor) bool {
	stage, rest, _ := strings.Cut(t.Name, ".")
	return (stage == "semantic" || stage == "coarse" || stage == "fine") && len(t.Shape) == 2 && !strings.HasPrefix(rest, "wpe.")
}

// isScale tells the scales of an 8-bit matrix.
func isScale(in *gguf.File, t gguf.Tensor) bool {
	weight, ok := strings.CutSuffix(t.Name, ".scale")
	if !ok {
		return false
	}
	_, ok = in.Find(weight + ".weight")
	return ok
}
