//go:build cgo

package native

import (
	"context"
	"errors"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func TestCloseDuringCallsFreesOnceAfterTheLast(t *testing.T) {
	for range 200 {
		var inUse, freed atomic.Int64
		h := &handle[*int]{kind: "thing", pointer: new(int), release: func(*int) {
			assert.Zero(t, inUse.Load(), "freed while in use")
			freed.Add(1)
		}}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if _, err := h.begin(); err == nil {
					inUse.Add(1)
					goruntime.Gosched()
					inUse.Add(-1)
					h.end()
				}
			})
			all.Go(func() { h.close() })
		}
		all.Wait()
		require.EqualValues(t, 1, freed.Load())
		_, err := h.begin()
		require.ErrorIs(t, err, cgo.ErrClosed)
	}
}

func TestDroppedObjectIsFreedAndReported(t *testing.T) {
	logged := make(chan string, 8)
	log := &logSink{log: func(_ int, text string) { logged <- text }}
	freed := make(chan struct{})
	func() {
		owner := &struct{ h *handle[*int] }{&handle[*int]{
			kind: "thing", log: log, pointer: new(int), release: func(*int) { close(freed) },
		}}
		guardLeak(owner, owner.h)
		goruntime.KeepAlive(owner)
	}()
	for range 2 { // the cleanup runs after the collection that finds the owner dead
		goruntime.GC()
	}
	<-freed
	assert.Contains(t, <-logged, "a thing was dropped without Close")
}

func TestPanicOfTheLogIsReportedByTheNextLoad(t *testing.T) {
	r := &runtime{log: &logSink{log: func(int, string) { panic("boom") }}}
	r.log.write(logWarn, "text")
	r.log.write(logWarn, "not written any more")
	_, err := r.Load(context.Background(), cgo.Source{Embedded: true}, cgo.LoadOptions{})
	assert.ErrorIs(t, err, cgo.ErrInternal)
	assert.ErrorContains(t, err, "boom")
}

func TestEmbeddedModelIsAligned(t *testing.T) {
	at, err := newPlace(cgo.Source{Embedded: true})
	require.NoError(t, err)
	assert.Zero(t, uintptr(at.data)%64)
	assert.Positive(t, int64(at.bytes))
}

func TestCallbackKeepsItsFirstError(t *testing.T) {
	c := &callback{log: &logSink{}, ctx: context.Background()}
	first := errors.New("first")
	assert.EqualValues(t, goOn, c.guard(func() error { return nil }))
	assert.EqualValues(t, stop, c.guard(func() error { return first }))
	assert.EqualValues(t, stop, c.guard(func() error { t.Error("called again"); return nil }))
	assert.Equal(t, first, c.outcome(context.Background(), nil))
}
