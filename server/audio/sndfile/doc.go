// Package sndfile binds libsndfile, which encodes and decodes compressed audio in memory. It is built with cgo only;
// without it every call fails with ErrMissing.
package sndfile

import "errors"

// ErrMissing is the error of a build without cgo.
var ErrMissing = errors.New("sndfile: this build has no libsndfile: it was made without cgo")

// Kind is an encoding of mono audio.
type Kind int

// The encodings.
const (
	MP3  Kind = iota // MPEG layer III
	Opus             // in Ogg; 8, 12, 16, 24 or 48 kHz
	FLAC             // 16 bits
	ULaw             // G.711 without a header
	ALaw             // G.711 without a header
)
