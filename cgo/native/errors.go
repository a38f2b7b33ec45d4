package native

// #include "shim.h"
import "C"

import (
	"fmt"
	"math"
	"strings"

	"barkd/cgo"
)

// A failure is what a barkrt_status and its text say: the text, and the sentinel that callers branch on.
type failure struct {
	sentinel error
	text     string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.sentinel }

// errStopped is a BARKRT_CANCELLED of which only the caller knows the reason.
var errStopped = &failure{cgo.ErrInternal, "the native call stopped, but nobody asked it to"}

// toError turns a status into an error; nil for BARKRT_OK. ErrInternal stands for statuses of a newer library too.
func toError(status C.int32_t, err *C.barkrt_error) error {
	if status == C.BARKRT_OK {
		return nil
	}
	if status == C.BARKRT_CANCELLED {
		return errStopped
	}
	sentinel := cgo.ErrInternal
	switch status {
	case C.BARKRT_INVALID_ARGUMENT:
		sentinel = cgo.ErrInvalidArgument
	case C.BARKRT_NOT_FOUND:
		sentinel = cgo.ErrNotFound
	case C.BARKRT_BAD_MODEL:
		sentinel = cgo.ErrBadModel
	case C.BARKRT_OUT_OF_MEMORY:
		sentinel = cgo.ErrOutOfMemory
	case C.BARKRT_DEVICE:
		sentinel = cgo.ErrDevice
	case C.BARKRT_UNSUPPORTED:
		sentinel = cgo.ErrUnsupported
	case C.BARKRT_BUSY:
		sentinel = cgo.ErrBusy
	}
	text := C.GoString(&err.text[0])
	if text == "" {
		text = sentinel.Error()
	}
	return &failure{sentinel, strings.ToValidUTF8(text, "\uFFFD")}
}

func invalid(format string, args ...any) error {
	return &failure{cgo.ErrInvalidArgument, fmt.Sprintf(format, args...)}
}

// cString copies s to C memory; the caller frees it. C strings end at the first NUL, so s must have none.
func cString(what, s string) (*C.char, error) {
	if i := strings.IndexByte(s, 0); i >= 0 {
		return nil, invalid("%s %q contains a NUL byte at %d", what, s, i)
	}
	return C.CString(s), nil
}

func toInt32(what string, n int) (int32, error) {
	if n < math.MinInt32 || n > math.MaxInt32 {
		return 0, invalid("%s %d is out of range", what, n)
	}
	return int32(n), nil
}
