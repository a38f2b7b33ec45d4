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
	"strings"
)

// ErrNotFinite is wrapped by every error about a sample that is NaN or infinite: such audio is
// the sign of a broken model, and players differ in what they make of it.
var ErrNotFinite = errors.New("sample is not a finite number")

// ErrUnknownFormat is wrapped by the error of ParseFormat.
var ErrUnknownFormat = errors.New("unknown audio format")

// UnknownLength is the sample count of an encoder whose audio has no known end yet.
const UnknownLength int64 = -1

// Format is one way to write samples.
type Format struct {
	Name        string // what a request calls it
	ContentType string
	Extension   string // of a file, with the dot

	float  bool // IEEE float32 samples, else signed 16-bit
	header bool // a RIFF header comes first
}

// The formats. PCM is what OpenAI's API calls so: signed 16-bit little-endian mono without a
// header, at the model's rate, which for Bark is 24 kHz.
var (
	WAV      = Format{Name: "wav", ContentType: "audio/wav", Extension: ".wav", header: true}
	WAVFloat = Format{Name: "wav-f32", ContentType: "audio/wav", Extension: ".wav", header: true, float: true}
	PCM      = Format{Name: "pcm", ContentType: "audio/pcm", Extension: ".pcm"}
)

// Formats returns every format, in the order in which to name them to a user.
func Formats() []Format { return []Format{WAV, WAVFloat, PCM} }

// ParseFormat returns the format of that name; the error names those there are.
func ParseFormat(name string) (Format, error) {
	names := make([]string, 0, 3)
	for _, f := range Formats() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Format{}, fmt.Errorf("%w %q: choose one of %s", ErrUnknownFormat, name, strings.Join(names, ", "))
}

// sampleBytes is the width of one sample on disk.
func (f Format) sampleBytes() int {
	if f.float {
		return 4
	}
	return 2
}

// Encoder writes consecutive samples in one format. It is used by one goroutine. An error is
// final: what the writer holds then is not a valid file.
type Encoder interface {
	// Write appends samples, nominally -1..1; the 16-bit formats clamp. A sample that is not
	// finite is an error that wraps ErrNotFinite, and nothing of its block is written.
	Write(samples []float32) error
	// Close completes the audio (sizes in the header). It does not close the writer.
	Close() error
}

// NewEncoder starts audio on w. samples is the exact count when it is known, else UnknownLength:
// then a WAV header gets its sizes at Close if w can seek (io.Seeker), and otherwise says
// 0xFFFFFFFF, which players read as "until the stream ends".
func NewEncoder(w io.Writer, f Format, rateHz int, samples int64) (Encoder, error) {
	if rateHz <= 0 || rateHz > math.MaxInt32/8 {
		return nil, fmt.Errorf("audio: a sample rate of %d Hz is impossible", rateHz)
	}
	if samples < UnknownLength {
		return nil, fmt.Errorf("audio: a length of %d samples is impossible", samples)
	}
	e := &encoder{w: w, format: f, rateHz: rateHz, promised: samples}
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
	if err := e.Write(samples); err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

type encoder struct {
	w        io.Writer
	format   Format
	rateHz   int
	promised int64 // samples, or UnknownLength
	written  int64 // samples
	origin   int64 // where the header lies in seek
	seek     io.WriteSeeker
	block    []byte
	err      error // the first failure; later calls repeat it
}

func (e *encoder) Write(samples []float32) error {
	if e.err != nil {
		return e.err
	}
	if e.promised >= 0 && e.written+int64(len(samples)) > e.promised {
		e.err = fmt.Errorf("audio: more than the promised %d samples", e.promised)
		return e.err
	}
	e.block = e.block[:0]
	for i, x := range samples {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			e.err = fmt.Errorf("audio: sample %d is %v: %w", e.written+int64(i), x, ErrNotFinite)
			return e.err
		}
		if e.format.float {
			e.block = binary.LittleEndian.AppendUint32(e.block, math.Float32bits(x))
		} else {
			e.block = binary.LittleEndian.AppendUint16(e.block, uint16(toInt16(x)))
		}
	}
	if _, err := e.w.Write(e.block); err != nil {
		e.err = fmt.Errorf("audio: write %s: %w", e.format.Name, err)
		return e.err
	}
	e.written += int64(len(samples))
	return nil
}

func (e *encoder) Close() error {
	if e.err != nil {
		return e.err
	}
	e.err = errors.New("audio: the encoder is closed")
	if e.promised >= 0 && e.written != e.promised {
		return fmt.Errorf("audio: %d samples instead of the promised %d", e.written, e.promised)
	}
	if e.seek == nil {
		return nil
	}
	return e.patchHeader()
}

// toInt16 rounds to the nearest 16-bit sample and clamps. The scale is 2^15, the one decoders
// divide by, so a decoded file has the level of the samples; only +1.0 itself is clipped, by one step.
func toInt16(x float32) int16 {
	scaled := math.Round(float64(x) * 32768)
	return int16(max(math.MinInt16, min(math.MaxInt16, scaled)))
}
