// Package resample changes the sample rate of audio, block by block, by the resampler of libspeexdsp. It is built with
// cgo only.
package resample

import "errors"

// ErrMissing is the error of a build without cgo.
var ErrMissing = errors.New("resample: this build has no libspeexdsp: it was made without cgo")

// Length is how many samples n samples become.
func Length(n int64, fromHz, toHz int) int64 {
	from, to := int64(fromHz), int64(toHz)
	return n/from*to + (n%from*to+from/2)/from
}
