package audio

import (
	"fmt"
	"io"

	"barkd/server/audio/sndfile"
)

// compressed encodes through libsndfile.
type compressed struct {
	promise
	file   *sndfile.Writer
	format Format
	floats []float32
	ints   []int16
}

func newCompressed(w io.Writer, f Format, rateHz int, p promise) (Encoder, error) {
	file, err := sndfile.NewWriter(w, f.kind, rateHz, f.kbit, p.samples == UnknownLength)
	if err != nil {
		return nil, fmt.Errorf("%w: %s at %d Hz: %w", ErrUnavailable, f.Name, rateHz, err)
	}
	return &compressed{promise: p, file: file, format: f}, nil
}

func (e *compressed) Write(samples []float32) error {
	if err := e.take(samples); err != nil {
		return err
	}
	switch e.format.kind {
	case sndfile.FLAC, sndfile.ULaw, sndfile.ALaw: // libsndfile would scale by 2^15-1: not the samples of the WAV
		e.ints = e.ints[:0]
		for _, x := range samples {
			e.ints = append(e.ints, toInt16(x))
		}
		return e.wrote(e.file.WriteInt16(e.ints))
	}
	e.floats = e.floats[:0]
	for _, x := range samples {
		e.floats = append(e.floats, max(-1, min(1, x)))
	}
	return e.wrote(e.file.WriteFloat(e.floats))
}

func (e *compressed) wrote(err error) error {
	if err != nil {
		e.err = fmt.Errorf("audio: write %s: %w", e.format.Name, err)
	}
	return e.err
}

func (e *compressed) Close() error {
	defer e.file.Abort()
	if err := e.keep(); err != nil {
		return err
	}
	if e.written == 0 {
		return fmt.Errorf("audio: there is no %s of no samples", e.format.Name)
	}
	if err := e.file.Close(); err != nil {
		return fmt.Errorf("audio: complete %s: %w", e.format.Name, err)
	}
	return nil
}

func (e *compressed) Abort() { e.file.Abort() }
