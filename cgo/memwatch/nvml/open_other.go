//go:build !cgo || !linux

package nvml

import "fmt"

// Open returns ErrUnavailable.
func Open() (*GPUs, error) { return nil, fmt.Errorf("%w: no NVML in this build", ErrUnavailable) }
