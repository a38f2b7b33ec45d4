//go:build !cgo

package sndfile

import "io"

// Available says whether this build can encode.
const Available = false

// Writer cannot be made.
type Writer struct{}

// NewWriter fails.
func NewWriter(io.Writer, Kind, int, int, bool) (*Writer, error) { return nil, ErrMissing }

// WriteFloat fails.
func (*Writer) WriteFloat([]float32) error { return ErrMissing }

// WriteInt16 fails.
func (*Writer) WriteInt16([]int16) error { return ErrMissing }

// Close fails.
func (*Writer) Close() error { return ErrMissing }

// Abort does nothing.
func (*Writer) Abort() {}

// Decode fails.
func Decode([]byte) (samples []float32, rateHz int, err error) { return nil, 0, ErrMissing }
