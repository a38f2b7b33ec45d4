// Package tempo makes speech faster or slower without changing its pitch, block by block, by libsonic: it finds the
// pitch periods of a voice and leaves out or repeats whole ones. It is built with cgo only.
package tempo

import "errors"

// The speeds there are; 1 is the model's own pace.
const (
	Slowest = 0.25
	Fastest = 4.0
)

// ErrMissing is the error of a build without cgo.
var ErrMissing = errors.New("tempo: this build has no libsonic: it was made without cgo")
