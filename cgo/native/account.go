package native

// #include "shim.h"
import "C"

import (
	"sync"

	"barkd/cgo"
)

// An account has no Close, so it frees its handle by itself: when it reads zero. That happens once, after the last of
// the model, its sessions and its voices is freed, and never ends, for nothing can be made from the model any more.
// Each of them asks after its own free, so the last one finds the zero:
//  1. session: barkrt_session_free, model: barkrt_model_free, at the same time, the memory going with the later;
//  2. each then calls settle; the later one at least reads zero, and the first to read it frees the handle.
type account struct {
	mu      sync.Mutex // guards pointer
	pointer *C.barkrt_account
}

func newAccount(model *C.barkrt_model) (*account, error) {
	pointer := C.barkrt_model_account(model)
	if pointer == nil {
		return nil, &failure{cgo.ErrOutOfMemory, "no memory left for a model's account"}
	}
	return &account{pointer: pointer}, nil
}

// Live implements cgo.Account.
func (a *account) Live() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pointer == nil {
		return 0
	}
	var memory C.barkrt_memory
	C.barkrt_account_live(a.pointer, &memory, nil) // fails for NULL only
	return int64(memory.total_bytes)
}

// settle frees the handle when there is nothing left to count.
func (a *account) settle() {
	if a.Live() != 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	C.barkrt_account_free(a.pointer)
	a.pointer = nil
}
