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
