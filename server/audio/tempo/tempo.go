//go:build cgo

package tempo

// #cgo LDFLAGS: -l:libsonic.a
// #include <sonic.h>
import "C"

import (
	"errors"
	"fmt"
	"math"
)

// Available says whether this build can change the speed.
const Available = true

var (
	errMemory = errors.New("tempo: no memory")
	errClosed = errors.New("tempo: the stretcher is closed")
)

// Stretcher changes the speed of one stream of samples. It is used by one goroutine and must be closed.
type Stretcher struct {
	stream C.sonicStream
	speed  float64
	read   int64 // samples taken in
	given  int64 // samples returned
	block  []C.short
}

// New returns a stretcher that makes speech speed times as fast.
func New(rateHz int, speed float64) (*Stretcher, error) {
	if !(speed >= Slowest && speed <= Fastest) {
		return nil, fmt.Errorf("tempo: a speed of %v is not between %v and %v", speed, Slowest, Fastest)
	}
	stream := C.sonicCreateStream(C.int(rateHz), 1)
	if stream == nil {
		return nil, errMemory
	}
	C.sonicSetSpeed(stream, C.float(speed))
	return &Stretcher{stream: stream, speed: speed}, nil
}

// Write takes finite samples in, those beyond -1..1 clipped, and returns what has come out so far: in 16 bits of
// resolution, which is what libsonic works in.
func (s *Stretcher) Write(samples []float32) ([]float32, error) {
	if s.stream == nil {
		return nil, errClosed
	}
	s.block = s.block[:0]
	for _, x := range samples {
		s.block = append(s.block, C.short(max(math.MinInt16, min(math.MaxInt16, math.Round(float64(x)*32768)))))
	}
	if len(s.block) > 0 && C.sonicWriteShortToStream(s.stream, &s.block[0], C.int(len(s.block))) == 0 {
		return nil, errMemory
	}
	s.read += int64(len(samples))
	return s.take(), nil
}

// Flush returns the rest. The whole is as long as the samples taken in divided by the speed, within 1 %: libsonic
// rounds each pitch period to a sample. The silence it pads the end with is cut off.
func (s *Stretcher) Flush() ([]float32, error) {
	if s.stream == nil {
		return nil, errClosed
	}
	if C.sonicFlushStream(s.stream) == 0 {
		return nil, errMemory
	}
	left := int64(math.Round(float64(s.read)/s.speed)) - s.given
	rest := s.take()
	return rest[:max(0, min(int64(len(rest)), left))], nil
}

func (s *Stretcher) take() []float32 {
	n := int(C.sonicSamplesAvailable(s.stream))
	if n == 0 {
		return nil
	}
	block := make([]C.short, n)
	n = int(C.sonicReadShortFromStream(s.stream, &block[0], C.int(n)))
	out := make([]float32, n)
	for i, x := range block[:n] {
		out[i] = float32(x) / 32768
	}
	s.given += int64(n)
	return out
}

// Close frees the stretcher. Closing twice does nothing.
func (s *Stretcher) Close() {
	if s.stream != nil {
		C.sonicDestroyStream(s.stream)
		s.stream = nil
	}
}
