package native

// #include <stdint.h>
// #include "barkrt.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	rtcgo "runtime/cgo"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"barkd/cgo"
)

// goOn and stop are the answers of a callback.
const (
	goOn = 0
	stop = 1
)

// A callback is one native call that calls back. It remembers why Go stopped it, until the call has returned.
type callback struct {
	log      *logSink
	ctx      context.Context // checked here too: its cancel token is triggered on another goroutine, a bit later
	err      error           // the receiver's own
	panicked *panicked
}

type panicked struct{ value any }

// guard runs f. A panic must not unwind through C++ frames, whose destructors would not run: it waits in the
// callback. After the first error or panic nothing is called any more.
func (c *callback) guard(f func() error) (answer C.int32_t) {
	if c.stopped() || c.ctx.Err() != nil {
		return stop
	}
	defer func() {
		if value := recover(); value != nil {
			c.panicked = &panicked{value}
			c.log.write(logWarn, fmt.Sprintf("a callback panicked: %v\n%s", value, debug.Stack()))
			answer = stop
		}
	}()
	if c.err = f(); c.err != nil {
		return stop
	}
	return goOn
}

func (c *callback) stopped() bool { return c.err != nil || c.panicked != nil }

// outcome decides what the caller hears, after the native call has returned err: first what its own callback
// said, then that ctx ended.
func (c *callback) outcome(ctx context.Context, err error) error {
	if c.panicked != nil {
		panic(c.panicked.value)
	}
	if c.err != nil {
		return c.err
	}
	if errors.Is(err, errStopped) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A progressCall is a running load.
type progressCall struct {
	callback
	progress func(done, total int64)
}

//export barkdProgress
func barkdProgress(user C.uintptr_t, done, total C.int64_t) C.int32_t {
	c := rtcgo.Handle(user).Value().(*progressCall)
	return c.guard(func() error {
		if c.progress != nil {
			c.progress(int64(done), int64(total))
		}
		return c.ctx.Err()
	})
}

// A sinkCall is a running request.
type sinkCall struct {
	callback
	sink cgo.Sink
}

//export barkdSink
func barkdSink(user C.uintptr_t, event *C.barkrt_event) C.int32_t {
	c := rtcgo.Handle(user).Value().(*sinkCall)
	return c.guard(func() error { return c.receive(event) })
}

func (c *sinkCall) receive(e *C.barkrt_event) error {
	stage := cgo.Stage(e.stage)
	switch {
	case e.kind == C.BARKRT_EVENT_PROGRESS && c.sink.Progress != nil:
		return c.sink.Progress(stage, int64(e.done), int64(e.total))
	case e.kind == C.BARKRT_EVENT_TOKENS && c.sink.Tokens != nil:
		tokens := unsafe.Slice((*int32)(unsafe.Pointer(e.tokens)), int(e.rows*e.cols))
		return c.sink.Tokens(stage, tokens, int(e.rows), int(e.cols))
	case e.kind == C.BARKRT_EVENT_AUDIO && c.sink.Audio != nil:
		return c.sink.Audio(unsafe.Slice((*float32)(unsafe.Pointer(e.pcm)), int(e.n_samples)))
	}
	return nil // nobody listens, or an event of a newer library
}

const logWarn = 2 // BARKRT_LOG_WARN

// A logSink passes the library's messages on.
type logSink struct {
	log      func(level int, text string)
	panicked atomic.Pointer[panicked]
}

func (s *logSink) write(level int, text string) {
	if s.log == nil || s.panicked.Load() != nil {
		return
	}
	defer func() { // the thread may be one of the library's: there is no Go caller to tell
		if value := recover(); value != nil {
			s.panicked.Store(&panicked{value})
		}
	}()
	s.log(level, text)
}

// failure reports a log function that panicked; it is not called again.
func (s *logSink) failure() error {
	if p := s.panicked.Load(); p != nil {
		return &failure{cgo.ErrInternal, fmt.Sprintf("the log function panicked: %v", p.value)}
	}
	return nil
}

//export barkdLog
func barkdLog(user C.uintptr_t, level C.int32_t, text *C.char) {
	rtcgo.Handle(user).Value().(*logSink).write(int(level), C.GoString(text))
}
