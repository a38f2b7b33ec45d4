//go:build !cgo

package resample

// Available says whether this build can resample.
const Available = false

// Resampler cannot be made.
type Resampler struct{}

// New fails.
func New(int, int) (*Resampler, error) { return nil, ErrMissing }

// Write fails.
func (*Resampler) Write([]float32) ([]float32, error) { return nil, ErrMissing }

// Flush fails.
func (*Resampler) Flush() ([]float32, error) { return nil, ErrMissing }

// Close does nothing.
func (*Resampler) Close() {}
