//go:build cgo

package resample

// #cgo LDFLAGS: -l:libspeexdsp.a -lm
// #include <speex/speex_resampler.h>
import "C"

import (
	"errors"
	"fmt"
)

// Available says whether this build can resample.
const Available = true

// quality 5 of 0 to 10 keeps tones within 1e-3, in 2.5 ms for a second of audio from 24 to 44.1 kHz; 10 takes five
// times as long.
const quality = C.SPEEX_RESAMPLER_QUALITY_DESKTOP

var errClosed = errors.New("resample: the resampler is closed")

// Resampler changes the rate of one stream of samples. It is used by one goroutine and must be closed.
type Resampler struct {
	state        *C.SpeexResamplerState
	fromHz, toHz int
	read         int64 // samples taken in
	given        int64 // samples returned
}

// New returns a resampler; both rates are of 1 Hz to 384 kHz.
func New(fromHz, toHz int) (*Resampler, error) {
	const most = 384000
	if fromHz < 1 || fromHz > most || toHz < 1 || toHz > most {
		return nil, fmt.Errorf("resample: from %d to %d Hz; a rate is 1 to %d Hz", fromHz, toHz, most)
	}
	var code C.int
	state := C.speex_resampler_init(1, C.spx_uint32_t(fromHz), C.spx_uint32_t(toHz), quality, &code)
	if state == nil {
		return nil, fmt.Errorf("resample: %s", C.GoString(C.speex_resampler_strerror(code)))
	}
	C.speex_resampler_skip_zeros(state) // the filter's delay
	return &Resampler{state: state, fromHz: fromHz, toHz: toHz}, nil
}

// Write takes samples in and returns what has come out so far.
func (r *Resampler) Write(samples []float32) ([]float32, error) {
	if r.state == nil {
		return nil, errClosed
	}
	r.read += int64(len(samples))
	return r.push(nil, samples)
}

// Flush returns the rest: the whole is Length of what was taken in.
func (r *Resampler) Flush() ([]float32, error) {
	if r.state == nil {
		return nil, errClosed
	}
	want := Length(r.read, r.fromHz, r.toHz)
	var rest []float32
	for r.given < want {
		var err error
		if rest, err = r.push(rest, make([]float32, 256)); err != nil { // silence pushes out what is in the filter
			return nil, err
		}
	}
	extra := r.given - want
	r.given = want
	return rest[:int64(len(rest))-extra], nil
}

// push appends to out what comes out for samples.
func (r *Resampler) push(out, samples []float32) ([]float32, error) {
	block := make([]float32, 4096)
	for {
		n, room := C.spx_uint32_t(len(samples)), C.spx_uint32_t(len(block))
		var in *C.float
		if n > 0 {
			in = (*C.float)(&samples[0])
		}
		if code := C.speex_resampler_process_float(r.state, 0, in, &n, (*C.float)(&block[0]), &room); code != 0 {
			return nil, fmt.Errorf("resample: %s", C.GoString(C.speex_resampler_strerror(code)))
		}
		samples = samples[n:]
		out = append(out, block[:room]...)
		r.given += int64(room)
		if len(samples) == 0 && int(room) < len(block) {
			return out, nil
		}
	}
}

// Close frees the resampler. Closing twice does nothing.
func (r *Resampler) Close() {
	if r.state != nil {
		C.speex_resampler_destroy(r.state)
		r.state = nil
	}
}
