//go:build !linux

package memwatch

import (
	"context"
	"errors"
)

// Wake implements Waker: other systems than Linux have no events.
func (s *Source) Wake(_ context.Context, _ func(cause string), missing func(err error)) {
	missing(errors.New("this system has no events of memory pressure"))
}
