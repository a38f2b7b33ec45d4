package audio

import (
	"fmt"

	"barkd/server/audio/tempo"
)

// AtSpeed returns an encoder that makes speech speed times as fast, at the same pitch, and hands it to e. It owns e:
// closing or aborting it does the same to e.
func AtSpeed(e Encoder, rateHz int, speed float64) (Encoder, error) {
	if speed == 1 {
		return e, nil
	}
	stretcher, err := tempo.New(rateHz, speed)
	if err != nil {
		return nil, fmt.Errorf("audio: %w", err)
	}
	return &paced{inner: e, stretcher: stretcher, input: promise{samples: UnknownLength}}, nil
}

// paced changes the speed of what it hands to inner.
type paced struct {
	inner     Encoder
	stretcher *tempo.Stretcher
	input     promise
}

func (e *paced) Write(samples []float32) error {
	if err := e.input.take(samples); err != nil {
		return err
	}
	out, err := e.stretcher.Write(samples)
	if err == nil {
		err = e.inner.Write(out)
	}
	e.input.err = err
	return err
}

func (e *paced) Close() error {
	defer e.Abort()
	if err := e.input.keep(); err != nil {
		return err
	}
	rest, err := e.stretcher.Flush()
	if err != nil {
		return err
	}
	if err := e.inner.Write(rest); err != nil {
		return err
	}
	return e.inner.Close()
}

func (e *paced) Abort() {
	e.stretcher.Close()
	e.inner.Abort()
}

// ChangeSpeed returns speech speed times as fast, at the same pitch. A sample that is not finite is an error that
// wraps ErrNotFinite.
func ChangeSpeed(samples []float32, rateHz int, speed float64) ([]float32, error) {
	var out collector
	e, err := AtSpeed(&out, rateHz, speed)
	if err != nil {
		return nil, err
	}
	if err := e.Write(samples); err != nil {
		e.Abort()
		return nil, err
	}
	err = e.Close() // hands over the rest
	return out.samples, err
}

// collector is an encoder that keeps the samples.
type collector struct{ samples []float32 }

func (c *collector) Write(samples []float32) error {
	c.samples = append(c.samples, samples...)
	return nil
}

func (c *collector) Close() error { return nil }
func (c *collector) Abort()       {}
