package schema

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func matrix(name string) Tensor { return Tensor{Name: name, Matrix: true} }

func encoded16(t *testing.T, kind Type, v float32) uint16 {
	t.Helper()
	e, err := NewEncoder(matrix("w"), kind)
	require.NoError(t, err)
	b, err := e.Row([]float32{v})
	require.NoError(t, err)
	return binary.LittleEndian.Uint16(b)
}

func TestHalfPrecisionRoundsToNearestTiesToEven(t *testing.T) {
	for _, c := range []struct {
		v    float32
		f16  uint16
		bf16 uint16
	}{
		{0, 0, 0},
		{float32(math.Copysign(0, -1)), 0x8000, 0x8000},
		{1, 0x3C00, 0x3F80},
		{1 + 1.0/2048, 0x3C00, 0x3F80},             // halfway in f16: the even one below
		{1 + 3.0/2048, 0x3C02, 0x3F80},             // halfway in f16: the even one above
		{1 + 1.0/2048 + 1.0/65536, 0x3C01, 0x3F80}, // just above halfway
		{1 + 1.0/256, 0x3C04, 0x3F80},              // halfway in bf16: even below
		{1 + 3.0/256, 0x3C0C, 0x3F82},              // halfway in bf16: even above
		{-2.5, 0xC100, 0xC020},
		{65519, 0x7BFF, 0x4780},
		{5.9604645e-8, 0x0001, 0x3380}, // the smallest f16
		{2.9802322e-8, 0x0000, 0x3300}, // half of it: ties to zero
		{6.097555e-5, 0x03FF, 0x3880},  // the largest subnormal f16
	} {
		assert.Equalf(t, c.f16, encoded16(t, F16, c.v), "f16 of %v", c.v)
		assert.Equalf(t, c.bf16, encoded16(t, BF16, c.v), "bf16 of %v", c.v)
	}
}

func TestValuesTooLargeForTheTypeNameTheTensor(t *testing.T) {
	for _, c := range []struct {
		kind Type
		v    float32
	}{
		{F16, 65520},
		{F16, -1e30},
		{BF16, math.MaxFloat32},
		{F32, float32(math.NaN())},
		{F32, float32(math.Inf(-1))},
		{Q8, float32(math.Inf(1))},
	} {
		e, err := NewEncoder(matrix("semantic.wte.weight"), c.kind)
		require.NoError(t, err)
		_, err = e.Row([]float32{0, c.v})
		assert.ErrorContainsf(t, err, "semantic.wte.weight", "%s of %v", c.kind, c.v)
	}
}

func TestEightBitErrorIsAtMostHalfAStep(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	e, err := NewEncoder(matrix("w"), Q8)
	require.NoError(t, err)
	for row := range 200 {
		values := make([]float32, 1+row%67)
		for i := range values {
			values[i] = float32(r.NormFloat64() * math.Pow(10, float64(row%20-10)))
		}
		b, err := e.Row(values)
		require.NoError(t, err)
		scale := math.Float32frombits(binary.LittleEndian.Uint32(e.Scales()[4*row:]))
		for i, v := range values {
			q := int8(b[i])
			require.NotEqual(t, int8(-128), q)
			require.LessOrEqual(t, math.Abs(float64(v)-float64(scale)*float64(q)), float64(scale)*(0.5+1e-6))
		}
	}
}

func TestEightBitRowWithoutAScaleIsZero(t *testing.T) {
	e, err := NewEncoder(matrix("w"), Q8)
	require.NoError(t, err)
	b, err := e.Row([]float32{0, 0, 1e-45})
	require.NoError(t, err)
	assert.Equal(t, []byte{0, 0, 0}, b)
	assert.Equal(t, []byte{0, 0, 0, 0}, e.Scales())
}
