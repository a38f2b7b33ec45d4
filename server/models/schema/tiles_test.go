package schema

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/gguf"
)

func TestEightBitTilesHoldTheNumbersOfRows(t *testing.T) {
	const rows, cols = 48, 192
	tensor := Tensor{Name: "fine.h.3.attn.c_attn.weight", Shape: []int64{rows, cols}, Matrix: true}
	tiled, err := NewEncoder(tensor, Q8)
	require.NoError(t, err)
	plain, err := NewEncoder(matrix("fine.wte.0.weight"), Q8) // a table stays as it is
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	var b, want []byte
	for i := range rows {
		row := make([]float32, cols)
		for j := range row {
			row[j] = float32(r.NormFloat64() * math.Pow(10, float64(i%6-4)))
		}
		part, err := tiled.Row(row)
		require.NoError(t, err)
		assert.Equal(t, i%16 == 15, len(part) > 0)
		b = append(b, part...)
		part, err = plain.Row(row)
		require.NoError(t, err)
		want = append(want, part...)
	}
	require.Len(t, b, rows*cols)
	for i := range rows {
		for j := range cols { // the definition in native/DESIGN.md
			tile := b[(i/16*(cols/64)+j/64)*1024:]
			v, k := j%64/4, j%4
			require.Equal(t, want[i*cols+j], tile[64*v+4*(i%16)+k], "row %d, column %d", i, j)
		}
	}
	for i := range rows {
		q := make([]byte, cols)
		EightBitRow(q, b[i/16*16*cols:][:16*cols], i%16)
		require.Equal(t, want[i*cols:][:cols], q, "row %d", i)
	}
	assert.Equal(t, plain.Scales(), tiled.Scales())
	require.Len(t, tiled.Scales(), 4*rows)
	assert.Equal(t, []gguf.Tensor{
		{Name: tensor.Name, Type: gguf.I8, Shape: []int64{3, 16 * cols}},
		{Name: "fine.h.3.attn.c_attn.scale", Type: gguf.F32, Shape: []int64{rows}},
	}, tensor.Declare(Q8))
}

// The order of bytes, spelled out.
func TestFirstTileOfARamp(t *testing.T) {
	e, err := NewEncoder(Tensor{Name: "semantic.lm_head.weight", Shape: []int64{16, 64}, Matrix: true}, Q8)
	require.NoError(t, err)
	var b []byte
	for r := range 16 {
		row := make([]float32, 64)
		row[0], row[1], row[4], row[63] = 127, float32(r), float32(-r), float32(2*r) // the scale is 1
		if b, err = e.Row(row); r < 15 {
			require.Empty(t, b)
		}
		require.NoError(t, err)
	}
	require.Len(t, b, 1024)
	assert.Equal(t, []byte{127, 0, 0, 0, 127, 1, 0, 0, 127, 2, 0, 0}, b[:12])
	assert.Equal(t, []byte{0, 0, 0, 0, 0xff, 0, 0, 0, 0xfe, 0, 0, 0}, b[64:76])
	assert.Equal(t, []byte{0, 0, 0, 30}, b[1020:])
	assert.Equal(t, float32(1), math.Float32frombits(binary.LittleEndian.Uint32(e.Scales()[60:])))
}

func TestTilesAreForLayersAndCausalHeads(t *testing.T) {
	for name, c := range map[string]struct {
		rows, cols int64
		q8, q4     Type
	}{
		"semantic.h.0.attn.c_attn.weight": {192, 64, q8Tiles, Q4},
		"coarse.h.11.mlp.c_proj.weight":   {16, 64, q8Tiles, Q4},
		"coarse.h.1.mlp.c_fc.weight":      {64, 16, Q8, Q8}, // no whole tiles
		"coarse.h.2.mlp.c_fc.weight":      {24, 64, Q8, Q8},
		"fine.h.0.mlp.c_fc.weight":        {256, 64, q8Tiles, q8Tiles},
		"fine.h.1.mlp.c_fc.weight":        {256, 96, Q8, Q8},
		"semantic.lm_head.weight":         {256, 64, q8Tiles, q8Tiles},
		"coarse.lm_head.weight":           {256, 64, q8Tiles, q8Tiles},
		"fine.lm_head.2.weight":           {256, 64, Q8, Q8},
		"coarse.wte.weight":               {256, 64, Q8, Q8},
		"fine.wte.3.weight":               {256, 64, Q8, Q8},
	} {
		matrix := Tensor{Name: name, Shape: []int64{c.rows, c.cols}, Matrix: true}
		assert.Equal(t, c.q8, matrix.storage(Q8), name)
		assert.Equal(t, c.q4, matrix.storage(Q4), name)
		assert.Equal(t, F16, matrix.storage(F16), name)
		if c.q8 == Q8 {
			assert.Equal(t, matrix.Shape, matrix.Declare(Q8)[0].Shape, name)
		}
	}
	assert.Equal(t, F32, Tensor{Name: "semantic.h.0.ln_1.weight", Shape: []int64{64}}.storage(Q4))
}

func TestHeadsAreTiledWhereTheirLegalRowsBeginATile(t *testing.T) {
	of := func(eos, semantic, codebook int) (rows [2]bool) {
		c := Config{CodebookSize: codebook}
		c.Semantic.VocabSize, c.Semantic.EOSToken = semantic, eos
		for _, tensor := range c.Tensors() {
			switch tensor.Name {
			case "semantic.lm_head.weight":
				rows[0] = tensor.Rows
			case "coarse.lm_head.weight":
				rows[1] = tensor.Rows
			}
		}
		return rows
	}
	assert.Equal(t, [2]bool{false, false}, of(10000, 10000, 1024))
	assert.Equal(t, [2]bool{true, false}, of(10001, 10000, 1024))
	assert.Equal(t, [2]bool{false, true}, of(10000, 10008, 1024))
	assert.Equal(t, [2]bool{false, true}, of(10000, 10000, 1000))
	head := Tensor{Name: "coarse.lm_head.weight", Shape: []int64{256, 64}, Matrix: true, Rows: true}
	assert.Equal(t, Q8, head.storage(Q8))
}
