package audio

import (
	"fmt"
	"io"

	"barkd/server/audio/resample"
)

// resampled changes the rate of what it hands to inner.
type resampled struct {
	promise
	inner     Encoder
	resampler *resample.Resampler
}

func newResampled(w io.Writer, f Format, fromHz, toHz int, samples int64) (Encoder, error) {
	resampler, err := resample.New(fromHz, toHz)
	if err != nil {
		return nil, fmt.Errorf("audio: %w", err)
	}
	length := samples
	if samples >= 0 {
		length = resample.Length(samples, fromHz, toHz)
	}
	inner, err := NewEncoder(w, f, toHz, length)
	if err != nil {
		resampler.Close()
		return nil, err
	}
	return &resampled{promise: promise{samples: samples}, inner: inner, resampler: resampler}, nil
}

func (e *resampled) Write(samples []float32) error {
	if err := e.take(samples); err != nil {
		return err
	}
	out, err := e.resampler.Write(samples)
	if err == nil {
		err = e.inner.Write(out)
	}
	e.err = err
	return err
}

func (e *resampled) Close() error {
	defer e.Abort()
	if err := e.keep(); err != nil {
		return err
	}
	rest, err := e.resampler.Flush()
	if err == nil {
		err = e.inner.Write(rest)
	}
	if err != nil {
		return err
	}
	return e.inner.Close()
}

func (e *resampled) Abort() {
	e.resampler.Close()
	e.inner.Abort()
}
