//go:build !cgo

package tempo

// Available says whether this build can change the speed.
const Available = false

// Stretcher cannot be made.
type Stretcher struct{}

// New fails.
func New(int, float64) (*Stretcher, error) { return nil, ErrMissing }

// Write fails.
func (*Stretcher) Write([]float32) ([]float32, error) { return nil, ErrMissing }

// Flush fails.
func (*Stretcher) Flush() ([]float32, error) { return nil, ErrMissing }

// Close does nothing.
func (*Stretcher) Close() {}
