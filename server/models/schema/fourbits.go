package schema

import (
	"encoding/binary"
	"math"

	"github.com/x448/float16"
)

const (
	groupCols = 32 // numbers with a scale of their own

	fourBitTileNumbers = tileRows * tileCols / 2
	fourBitTileBytes   = fourBitTileNumbers + 2*tileRows*tileCols/groupCols
)

// putFourBits rounds the part of a row that lies in the tile at the column, one group in each half of the bytes.
func putFourBits(values []float32) func(tile []byte, row, col int) {
	return func(tile []byte, row, col int) {
		for group := range tileCols / groupCols {
			q, scale := roundGroup(values[col+group*groupCols:][:groupCols])
			for i, n := range q {
				tile[place(row, i)] |= n << (4 * group)
			}
			binary.LittleEndian.PutUint16(tile[fourBitTileNumbers+2*(group*tileRows+row):], scale.Bits())
		}
	}
}

// fourBitsLimit is what every group's scale fits half precision below.
const fourBitsLimit = 6 * 65504

// roundGroup returns q + 8, q from −8 to 7, and the scale d for which the squared error of q·d is the least of those
// tried: eleven around the one that puts the largest number at −8, and from the best of them on what is best for its q.
func roundGroup(v []float32) (q [groupCols]byte, d float16.Float16) {
	peak := float32(0)
	for _, x := range v {
		if math.Abs(float64(x)) > math.Abs(float64(peak)) {
			peak = x
		}
	}
	least, next := math.Inf(1), 0.0
	try := func(scale float64) bool {
		half := float16.Fromfloat32(float32(scale))
		if half.Bits()&0x7FFF == 0 {
			return false // zeros, or too small for any scale
		}
		sum, fit := groupError(v, float64(half.Float32()))
		if sum >= least {
			return false
		}
		least, next, d = sum, fit, half
		return true
	}
	for i := range 11 {
		try(float64(peak) / (-6.4 - 0.32*float64(i)))
	}
	for range 2 {
		if !try(next) {
			break
		}
	}
	for i, x := range v {
		q[i] = 8
		if scale := float64(d.Float32()); scale != 0 {
			q[i] = byte(8 + fourBits(float64(x)/scale))
		}
	}
	return q, d
}

// groupError returns the squared error of the group with scale d, and the scale that would make it least for the same
// whole numbers.
func groupError(v []float32, d float64) (sum, fit float64) {
	var xq, qq float64
	for _, x := range v {
		q := fourBits(float64(x) / d)
		e := float64(x) - float64(d*q)
		sum += float64(e * e)
		xq += float64(float64(x) * q)
		qq += float64(q * q)
	}
	return sum, xq / qq // qq is 0 for numbers far below d: NaN, which no scale is
}

// fourBits rounds to nearest, ties to even, within −8 and 7.
func fourBits(x float64) float64 {
	const wholes = 0x1.8p52 // beside it the last place of a float64 is 1
	x = float64(x+wholes) - wholes
	switch {
	case x < -8:
		return -8
	case x > 7:
		return 7
	}
	return x
}
