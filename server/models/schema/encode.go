package schema

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// Encoder turns rows of a tensor into bytes of its storage type: rounded to nearest, ties to even, never to infinity.
type Encoder struct {
	kind   Type
	tensor string
	row    []byte
	scales []byte // F32 per row, Q8 and q8Tiles only
	tiles  tiles  // Q4 and q8Tiles only
}

// NewEncoder returns an encoder for one tensor of a file whose matrices are in the given type.
func NewEncoder(t Tensor, matrices Type) (*Encoder, error) {
	kind := t.storage(matrices)
	switch kind {
	case F32, F16, BF16, Q8, q8Tiles, Q4:
		return &Encoder{kind: kind, tensor: t.Name}, nil
	}
	return nil, fmt.Errorf("tensor %q: cannot store weights as %q", t.Name, kind)
}

// Scales returns the scales of the rows encoded so far, as F32 bytes: what the tensor ScaleName holds. It is empty for
// tensors that have none.
func (e *Encoder) Scales() []byte { return e.scales }

// Row encodes one row. The result is valid until the next call; in tiles it is that of sixteen rows together, with the
// last of them. A value that is not finite, or that the type cannot hold, is an error.
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
	case F32:
		for _, v := range values {
			e.row = binary.LittleEndian.AppendUint32(e.row, math.Float32bits(v))
		}
	case F16:
		if peak >= 65520 { // rounds to infinity
			return nil, fmt.Errorf("tensor %q: value %v does not fit f16: use bf16 or f32", e.tensor, peak)
		}
		for _, v := range values {
			e.row = binary.LittleEndian.AppendUint16(e.row, float16.Fromfloat32(v).Bits())
		}
	case BF16:
		for _, v := range values {
			b := bf16(v)
			if b&0x7FFF == 0x7F80 {
				return nil, fmt.Errorf("tensor %q: value %v does not fit bf16: use f32", e.tensor, v)
			}
			e.row = binary.LittleEndian.AppendUint16(e.row, b)
		}
	case Q8:
		e.quantise(values, peak)
	case q8Tiles:
		e.quantise(values, peak)
		return e.tiles.add(len(values), eightBitTileBytes, putEightBits(e.row)), nil
	case Q4:
		if peak >= fourBitsLimit {
			return nil, fmt.Errorf("tensor %q: value %v does not fit q4: use bf16 or f32", e.tensor, peak)
		}
		return e.tiles.add(len(values), fourBitTileBytes, putFourBits(values)), nil
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

// bf16 rounds a finite number to the upper half of a float32, nearest, ties to even.
func bf16(v float32) uint16 {
	b := math.Float32bits(v)
	return uint16((b + 0x7FFF + b>>16&1) >> 16)
}
