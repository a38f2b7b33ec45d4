package audio

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// WAVE format codes, and the size that says "not known".
const (
	wavePCM        = 1
	waveFloat      = 3
	unknownSize    = math.MaxUint32
	maxHeaderBytes = 58
)

// start writes the header. It promises the sizes if they are known, else remembers where to
// patch them. A pipe is an *os.File too, so only a seek that works tells the two apart.
func (e *encoder) start() error {
	if e.samples < 0 {
		if s, ok := e.w.(io.WriteSeeker); ok {
			if origin, err := s.Seek(0, io.SeekCurrent); err == nil {
				e.seek, e.origin = s, origin
			}
		}
	} else if !e.fits(e.samples) {
		return fmt.Errorf("audio: %d samples do not fit a WAV file of 4 GiB", e.samples)
	}
	if _, err := e.w.Write(e.header(e.samples)); err != nil {
		return fmt.Errorf("audio: write the WAV header: %w", err)
	}
	return nil
}

// patchHeader writes the header again, now that the length is known, and returns to the end.
// Audio beyond 4 GiB keeps the unknown size it started with.
func (e *encoder) patchHeader() error {
	if !e.fits(e.written) {
		return nil
	}
	if _, err := e.seek.Seek(e.origin, io.SeekStart); err != nil {
		return fmt.Errorf("audio: complete the WAV header: %w", err)
	}
	header := e.header(e.written)
	if _, err := e.seek.Write(header); err != nil {
		return fmt.Errorf("audio: complete the WAV header: %w", err)
	}
	end := e.origin + int64(len(header)) + e.written*int64(e.format.sampleBytes())
	if _, err := e.seek.Seek(end, io.SeekStart); err != nil {
		return fmt.Errorf("audio: complete the WAV header: %w", err)
	}
	return nil
}

// fits says whether the sizes of so many samples can be written in 32 bits.
func (e *encoder) fits(samples int64) bool {
	return samples <= (unknownSize-maxHeaderBytes)/int64(e.format.sampleBytes())
}

// header returns the RIFF header: 44 bytes for 16-bit PCM; 58 for float, where the standard asks for
// an extension size in "fmt " and a "fact" chunk with the sample count.
func (e *encoder) header(samples int64) []byte {
	width := e.format.sampleBytes()
	headerBytes, fmtBytes, code := 44, 16, wavePCM
	if e.format.float {
		headerBytes, fmtBytes, code = maxHeaderBytes, 18, waveFloat
	}
	riffSize, dataSize, count := uint32(unknownSize), uint32(unknownSize), uint32(unknownSize)
	if samples >= 0 {
		count = uint32(samples)
		dataSize = uint32(samples * int64(width))
		riffSize = dataSize + uint32(headerBytes) - 8
	}
	le := binary.LittleEndian
	h := make([]byte, 0, headerBytes)
	h = le.AppendUint32(append(h, "RIFF"...), riffSize)
	h = le.AppendUint32(append(h, "WAVEfmt "...), uint32(fmtBytes))
	h = le.AppendUint16(h, uint16(code))
	h = le.AppendUint16(h, 1) // channels
	h = le.AppendUint32(h, uint32(e.rateHz))
	h = le.AppendUint32(h, uint32(e.rateHz*width))
	h = le.AppendUint16(h, uint16(width))
	h = le.AppendUint16(h, uint16(width*8))
	if e.format.float {
		h = le.AppendUint16(h, 0) // no format extension
		h = le.AppendUint32(append(h, "fact"...), 4)
		h = le.AppendUint32(h, count)
	}
	return le.AppendUint32(append(h, "data"...), dataSize)
}
