package schema

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/x448/float16"

	"barkd/server/models/gguf"
)

// untile reads number (r, c) of a matrix of n columns as native/DESIGN.md says.
func untile(b []byte, n, r, c int) float64 {
	tile := b[(r/16*(n/64)+c/64)*576:]
	row, group, at := r%16, c%64/32, c%32
	q := tile[at/4*64+row*4+at%4] >> (4 * group) & 15
	scale := float16.Frombits(binary.LittleEndian.Uint16(tile[512+2*(16*group+row):]))
	return (float64(q) - 8) * float64(scale.Float32())
}

func TestFourBitTilesHoldWhatTheirDescriptionSays(t *testing.T) {
	const rows, cols = 48, 192
	tensor := Tensor{Name: "coarse.h.3.attn.c_attn.weight", Shape: []int64{rows, cols}, Matrix: true}
	r := rand.New(rand.NewPCG(1, 2))
	e, err := NewEncoder(tensor, Q4)
	require.NoError(t, err)
	var want [rows][cols]float32
	var b []byte
	for i := range want {
		for j := range want[i] {
			want[i][j] = float32(r.NormFloat64() * math.Pow(10, float64((i+j/32)%6-4)))
		}
		part, err := e.Row(want[i][:])
		require.NoError(t, err)
		assert.Equal(t, i%16 == 15, len(part) > 0)
		b = append(b, part...)
	}
	assert.Empty(t, e.Scales())
	declared := tensor.Declare(Q4)
	require.Len(t, declared, 1)
	assert.Equal(t, gguf.Tensor{Name: tensor.Name, Type: gguf.I8, Shape: []int64{3, 3 * 576}}, declared[0])
	require.Len(t, b, 3*3*576)
	for i := range want {
		for g := 0; g < cols; g += 32 {
			var peak, sum, size float64
			for j := g; j < g+32; j++ {
				v := float64(want[i][j])
				peak = max(peak, math.Abs(v))
				sum += math.Pow(v-untile(b, cols, i, j), 2)
				size += v * v
			}
			// Half a step of the scale that puts the largest number at 8 is the error of none of them, but at most one's.
			require.LessOrEqual(t, sum, 32*math.Pow(peak/16, 2), "row %d, group %d", i, g)
			require.Less(t, sum, size/20)
		}
	}
}

func TestTheScaleTriedIsNoWorseThanThePlainOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var ours, plain float64
	for range 500 {
		v := make([]float32, 32)
		peak := float32(0)
		for i := range v {
			v[i] = float32(r.NormFloat64())
			if math.Abs(float64(v[i])) > math.Abs(float64(peak)) {
				peak = v[i]
			}
		}
		q, d := roundGroup(v)
		for i, x := range v {
			ours += math.Pow(float64(x)-float64(d.Float32())*(float64(q[i])-8), 2)
		}
		sum, _ := groupError(v, float64(peak)/-8)
		plain += sum
	}
	assert.Less(t, ours, 0.92*plain)
}

func TestFourBitGroupsOfEdgeValues(t *testing.T) {
	zeros := make([]float32, 32)
	q, d := roundGroup(zeros)
	assert.Zero(t, d)
	assert.Equal(t, byte(8), q[31])
	tiny := append([]float32{1e-30, -1e-38}, zeros[:30]...) // no half is so small
	q, d = roundGroup(tiny)
	assert.Zero(t, d)
	assert.Equal(t, byte(8), q[0])
	exact := make([]float32, 32) // every q of the scale −1/4, as it is
	for i := range exact {
		exact[i] = float32(i%16-8) * -0.25
	}
	q, d = roundGroup(exact)
	for i, n := range q {
		assert.InDelta(t, exact[i], float64(d.Float32())*(float64(n)-8), 1e-9)
	}
}

func TestAValueTooLargeForFourBitsNamesTheTensor(t *testing.T) {
	tensor := Tensor{Name: "semantic.h.0.attn.c_proj.weight", Shape: []int64{64, 64}, Matrix: true}
	e, err := NewEncoder(tensor, Q4)
	require.NoError(t, err)
	row := make([]float32, 64)
	row[3] = 4e5
	_, err = e.Row(row)
	assert.ErrorContains(t, err, tensor.Name)
}
