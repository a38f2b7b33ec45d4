//go:build !cgo

package native

import (
	"errors"

	"barkd/cgo"
)

// New reports that this program cannot run models.
func New(func(level int, text string)) (cgo.Runtime, error) {
	return nil, errors.New("this program was built without the native runtime (CGO_ENABLED=0)")
}

// LiveHandles counts the native handles not yet freed: there are none.
func LiveHandles() int64 { return 0 }

// DefaultModel returns the image of the model in the program: there is none.
func DefaultModel() []byte { return nil }
