//go:build cgo

package sndfile

import (
	"encoding/binary"
	"hash/fnv"
	"math"
)

// An Ogg page begins with a header (RFC 3533): the capture pattern, its fields, and a table of segment lengths.
const (
	oggHeader   = 27
	oggSerialAt = 14
	oggSumAt    = 22
	oggTableAt  = 26
)

// oggSerial is the serial number of a stream that begins with the samples. libsndfile draws one at random: then the same
// audio would not be the same bytes. Different streams must differ, or a chain of them would be taken for one.
func oggSerial(first []float32) uint32 {
	h := fnv.New32a()
	var word [4]byte
	for _, x := range first {
		binary.LittleEndian.PutUint32(word[:], math.Float32bits(x))
		h.Write(word[:])
	}
	return h.Sum32()
}

// setOggSerial writes a serial number into whole pages.
func setOggSerial(pages []byte, serial uint32) {
	for len(pages) >= oggHeader && string(pages[:4]) == "OggS" {
		segments := int(pages[oggTableAt])
		end := oggHeader + segments
		if end > len(pages) {
			return
		}
		for _, n := range pages[oggHeader:end] {
			end += int(n)
		}
		if end > len(pages) {
			return
		}
		page := pages[:end]
		binary.LittleEndian.PutUint32(page[oggSerialAt:], serial)
		binary.LittleEndian.PutUint32(page[oggSumAt:], 0)
		binary.LittleEndian.PutUint32(page[oggSumAt:], oggSum(page))
		pages = pages[end:]
	}
}

// oggSum is Ogg's CRC: the polynomial of Ethernet, but the highest bit first and no inversions, which hash/crc32 has not.
func oggSum(page []byte) uint32 {
	var sum uint32
	for _, b := range page {
		sum = sum<<8 ^ oggTable[byte(sum>>24)^b]
	}
	return sum
}

var oggTable = func() (table [256]uint32) {
	for i := range table {
		sum := uint32(i) << 24
		for range 8 {
			high := sum >> 31
			sum = sum<<1 ^ high*0x04c11db7
		}
		table[i] = sum
	}
	return table
}()
