package native

// #include "shim.h"
import "C"

import (
	"context"

	"barkd/cgo"
)

// A cancel ties a native cancel token to a context.
type cancel struct {
	pointer *C.barkrt_cancel
	stop    func() bool
	ended   chan struct{} // closed when the trigger has returned
}

// newCancel returns a token that triggers when ctx ends; the caller must free it. For a ctx that never ends there
// is nothing to tie: the pointer is nil.
func newCancel(ctx context.Context) (*cancel, error) {
	if ctx.Done() == nil {
		return &cancel{}, nil
	}
	c := &cancel{pointer: C.barkrt_cancel_new(), ended: make(chan struct{})}
	if c.pointer == nil {
		return nil, &failure{cgo.ErrOutOfMemory, "out of memory: could not allocate a cancel token"}
	}
	c.stop = context.AfterFunc(ctx, func() {
		defer close(c.ended)
		C.barkrt_cancel_trigger(c.pointer)
	})
	return c, nil
}

// free waits for a trigger that has begun: it must not race with the free.
func (c *cancel) free() {
	if c.pointer == nil {
		return
	}
	if !c.stop() {
		<-c.ended
	}
	C.barkrt_cancel_free(c.pointer)
}
