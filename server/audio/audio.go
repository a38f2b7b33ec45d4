// Package audio turns the mono float samples of a speech model into the bytes of an audio format,
// block by block: nothing waits for the end of the speech, nothing keeps what was written.
package audio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrNotFinite is wrapped by every error about a sample that is NaN or infinite: such audio is
// the sign of a broken model, and players differ in what they make of it.
var ErrNotFinite = errors.New("sample is not a finite number")

// UnknownLength is the sample count of an encoder whose audio has no known end yet.
const UnknownLength int64 = -1

// Encoder writes consecutive samples in one format. It is used by one goroutine and must be closed or
// aborted. An error is final: what the writer holds then is not a valid file.
type Encoder interface {
	// Write appends samples, nominally -1..1; all formats but the float one clamp. A sample that is not
	// finite is an error that wraps ErrNotFinite, and nothing of its block is written.
	Write(samples []float32) error
	// Close completes the audio (sizes in the header) and frees the encoder, also when it fails. It
	// does not close the writer.
	Close() error
	// Abort frees the encoder without completing the audio. After Close it does nothing.
	Abort()
}

// NewEncoder starts audio on w. samples is the exact count when it is known, else UnknownLength: then
// audio is written as it is encoded, with a header that does not know its length. A WAV header gets its
// sizes at Close all the same if w can seek (io.Seeker), and otherwise says 0xFFFFFFFF, which players
// read as "until the stream ends". Audio of known length that is compressed is written at Close.
// Samples of another rate than the format's own are resampled.
// A format that cannot be had, here or at this rate, is an error that wraps ErrUnavailable.
func NewEncoder(w io.Writer, f Format, rateHz int, samples int64) (Encoder, error) {
	if rateHz <= 0 || rateHz > math.MaxInt32/8 {
		return nil, fmt.Errorf("audio: a sample rate of %d Hz is impossible", rateHz)
	}
	if samples < UnknownLength {
		return nil, fmt.Errorf("audio: a length of %d samples is impossible", samples)
	}
	if out := f.RateHz(rateHz); out != rateHz {
		return newResampled(w, f, rateHz, out, samples)
	}
	p := promise{samples: samples}
	switch f.codec {
	case codecSndfile:
		return newCompressed(w, f, rateHz, p)
	case codecFFmpeg:
		return newFFmpeg(w, f, rateHz, p)
	}
	e := &encoder{promise: p, w: w, format: f, rateHz: rateHz}
	if f.header {
		if err := e.start(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Encode returns complete audio as one slice.
func Encode(f Format, rateHz int, samples []float32) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(len(samples)*f.sampleBytes() + maxHeaderBytes)
	e, err := NewEncoder(&out, f, rateHz, int64(len(samples)))
	if err != nil {
		return nil, err
	}
	defer e.Abort()
	if err := e.Write(samples); err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// promise is what an encoder was told of its audio, and what it got.
type promise struct {
	samples int64 // or UnknownLength
	written int64 // samples
	err     error // the first failure; later calls repeat it
}

// take counts a block that is about to be written, if it is fit for that.
func (p *promise) take(block []float32) error {
	if p.err != nil {
		return p.err
	}
	if p.samples >= 0 && p.written+int64(len(block)) > p.samples {
		p.err = fmt.Errorf("audio: more than the promised %d samples", p.samples)
		return p.err
	}
	for i, x := range block {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			p.err = fmt.Errorf("audio: sample %d is %v: %w", p.written+int64(i), x, ErrNotFinite)
			return p.err
		}
	}
	p.written += int64(len(block))
	return nil
}

// keep ends the audio: nothing may come after it, and all must have come.
func (p *promise) keep() error {
	if p.err != nil {
		return p.err
	}
	p.err = errors.New("audio: the encoder is closed")
	if p.samples >= 0 && p.written != p.samples {
		return fmt.Errorf("audio: %d samples instead of the promised %d", p.written, p.samples)
	}
	return nil
}

// encoder writes samples as they are, with or without a header.
type encoder struct {
	promise
	w      io.Writer
	format Format
	rateHz int
	origin int64 // where the header lies in seek
	seek   io.WriteSeeker
	block  []byte
}

func (e *encoder) Write(samples []float32) error {
	if err := e.take(samples); err != nil {
		return err
	}
	e.block = e.block[:0]
	for _, x := range samples {
		if e.format.float {
			e.block = binary.LittleEndian.AppendUint32(e.block, math.Float32bits(x))
		} else {
			e.block = binary.LittleEndian.AppendUint16(e.block, uint16(toInt16(x)))
		}
	}
	if _, err := e.w.Write(e.block); err != nil {
		e.err = fmt.Errorf("audio: write %s: %w", e.format.Name, err)
	}
	return e.err
}

func (e *encoder) Close() error {
	if err := e.keep(); err != nil || e.seek == nil {
		return err
	}
	return e.patchHeader()
}

// Abort has nothing to free.
func (e *encoder) Abort() {}

// toInt16 rounds to the nearest 16-bit sample and clamps. The scale is 2^15, the one decoders
// divide by, so a decoded file has the level of the samples; only +1.0 itself is clipped, by one step.
func toInt16(x float32) int16 {
	scaled := math.Round(float64(x) * 32768)
	return int16(max(math.MinInt16, min(math.MaxInt16, scaled)))
}
