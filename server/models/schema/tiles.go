package schema

import "strings"

// A tile of 4- or 8-bit numbers, as native/DESIGN.md has it.
const (
	tileRows = 16
	tileCols = 64
)

// tiled tells the matrices that a q8 file has in tiles: those of the layers and the heads of the causal stages, where
// whole tiles fit. The others are tables, of which rows are looked up, and the fine stage's heads, most of which are tables.
func (t Tensor) tiled() bool {
	_, _, layer := strings.Cut(t.Name, ".h.")
	head := t.Name == "semantic.lm_head.weight" || t.Name == "coarse.lm_head.weight"
	return t.Matrix && !t.Rows && (layer || head) && t.Shape[0]%tileRows == 0 && t.Shape[1]%tileCols == 0
}

// FourBits tells the matrices that a q4 file has in 4 bits, in tiles: those of the layers of the two stages that are
// decoded step by step.
func (t Tensor) FourBits() bool {
	stage, _, layer := strings.Cut(t.Name, ".h.")
	return t.tiled() && layer && (stage == "semantic" || stage == "coarse")
}

// tiledShape is how the container declares tiles of so many bytes: a row of it is a row of tiles.
func (t Tensor) tiledShape(tileBytes int64) []int64 {
	return []int64{t.Shape[0] / tileRows, t.Shape[1] / tileCols * tileBytes}
}

// tiles collects rows into tiles, sixteen rows at a time.
type tiles struct {
	row   int // of the tiles
	bytes []byte
}

// add takes one row, which put writes into each of its tiles from the given column on: zeros till its first row. It
// returns the bytes of the row of tiles after the last one of sixteen, else nil.
func (t *tiles) add(cols, tileBytes int, put func(tile []byte, row, col int)) []byte {
	if t.row == 0 {
		size := cols / tileCols * tileBytes
		if cap(t.bytes) < size {
			t.bytes = make([]byte, size)
		}
		t.bytes = t.bytes[:size]
		clear(t.bytes)
	}
	for at := 0; at < cols/tileCols; at++ {
		put(t.bytes[at*tileBytes:][:tileBytes], t.row, at*tileCols)
	}
	t.row = (t.row + 1) % tileRows
	if t.row > 0 {
		return nil
	}
	return t.bytes
}

// place is the byte of a tile that holds number i of a row.
func place(row, i int) int { return i/4*4*tileRows + 4*row + i%4 }

const eightBitTileBytes = tileRows * tileCols

// putEightBits writes the part of a row that lies in the tile at the column.
func putEightBits(q []byte) func(tile []byte, row, col int) {
	return func(tile []byte, row, col int) {
		for i, n := range q[col : col+tileCols] {
			tile[place(row, i)] = n
		}
	}
}

// EightBitRow takes one row of sixteen out of the bytes of their tiles.
func EightBitRow(q, tiles []byte, row int) {
	for col := range q {
		q[col] = tiles[col/tileCols*eightBitTileBytes+place(row, col%tileCols)]
	}
}
