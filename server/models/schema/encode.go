package schema

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"

	"barkd/server/models/gguf"
)

// Encoder turns rows of a tensor into bytes of its storage type: rounded to nearest, ties to even, never to infinity.
type Encoder struct {
	kind   gguf.Type
	tensor string
	row    []byte
	scales []byte // F32 per row, I8 only
}

// NewEncoder returns an encoder for one tensor in the type F32, F16, BF16 or I8. The tensor's name is for errors.
func NewEncoder(kind gguf.Type, tensor string) (*Encoder, error) {
	switch kind {
	case gguf.F32, gguf.F16, gguf.BF16, gguf.I8:
		return &Encoder{kind: kind, tensor: tensor}, nil
	}
	return nil, fmt.Errorf("tensor %q: cannot store weights as %s", tensor, kind)
}

// Scales returns the scales of the I8 rows encoded so far, as F32 bytes.
func (e *Encoder) Scales() []byte { return e.scales }

// Row encodes one row. The result is valid until the next call. A value that is not finite, or that the type cannot
// hold, is an error.
func (e *Encoder) Row(values []float32) ([]byte, error) {
	e.row = e.row[:0]
	peak := float32(0)
	for i, v := range values {
		a := float32(math.Abs(float64(v)))
		if !(a <= math.MaxFloat32) {
			return nil, fmt.Errorf("tensor %q: value %v at column %d is not finite", e.tensor, v, i)
		}
		peak = max(peak, a)
	}
	switch e.kind {
	case gguf.F32:
		for _, v := range values {
			e.row = binary.LittleEndian.AppendUint32(e.row, math.Float32bits(v))
		}
	case gguf.F16:
		if peak >= 65520 { // rounds to infinity
			return nil, fmt.Errorf("tensor %q: value %v does not fit f16: use bf16 or f32", e.tensor, peak)
		}
		for _, v := range values {
			e.row = binary.LittleEndian.AppendUint16(e.row, float16.Fromfloat32(v).Bits())
		}
	case gguf.BF16:
		for _, v := range values {
			b := BF16(v)
			if b&0x7FFF == 0x7F80 {
				return nil, fmt.Errorf("tensor %q: value %v does not fit bf16: use f32", e.tensor, v)
			}
			e.row = binary.LittleEndian.AppendUint16(e.row, b)
		}
	case gguf.I8:
		e.quantise(values, peak)
	}
	return e.row, nil
}

// quantise maps the row to −127..127; half a step is the largest error.
func (e *Encoder) quantise(values []float32, peak float32) {
	scale := peak / 127
	e.scales = binary.LittleEndian.AppendUint32(e.scales, math.Float32bits(scale))
	for _, v := range values {
		q := 0.0
		if scale > 0 { // a row of zeros, or of numbers too small for any scale, is zero
			q = math.RoundToEven(float64(v) / float64(scale))
		}
		e.row = append(e.row, byte(int8(max(-127, min(127, q)))))
	}
}

// BF16 rounds a finite number to the upper half of a float32, nearest, ties to even.
func BF16(v float32) uint16 {
	b := math.Float32bits(v)
	return uint16((b + 0x7FFF + b>>16&1) >> 16)
}
