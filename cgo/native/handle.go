//go:build cgo

package native

import (
	goruntime "runtime"
	"sync"

	"barkd/cgo"
)

// A handle owns one native pointer. Calls hold it with begin and end; close frees it, or the last call that holds
// it does.
type handle[P comparable] struct {
	kind    string // for messages
	log     *logSink
	release func(P)

	mu      sync.Mutex // guards the rest
	pointer P
	calls   int
	closed  bool
}

// begin returns the pointer for one call. The caller must call end when the call is over.
func (h *handle[P]) begin() (P, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		var none P
		return none, &failure{cgo.ErrClosed, h.kind + " is closed"}
	}
	h.calls++
	return h.pointer, nil
}

func (h *handle[P]) end() {
	h.mu.Lock()
	h.calls--
	last := h.closed && h.calls == 0
	h.mu.Unlock()
	if last {
		h.release(h.pointer)
	}
}

// close says whether this was the first close.
func (h *handle[P]) close() bool {
	h.mu.Lock()
	first := !h.closed
	h.closed = true
	last := first && h.calls == 0
	h.mu.Unlock()
	if last {
		h.release(h.pointer)
	}
	return first
}

// guardLeak frees h when owner is dropped without Close, and says so: memory that waits for the garbage collector
// is memory nobody accounts for. The owner's Close must stop the returned cleanup.
func guardLeak[T any, P comparable](owner *T, h *handle[P]) goruntime.Cleanup {
	return goruntime.AddCleanup(owner, func(h *handle[P]) {
		if h.close() {
			h.log.write(logWarn, "a "+h.kind+" was dropped without Close; the garbage collector freed it")
		}
	}, h)
}
