package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// PanicError is the error of a load or free that panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // where
}

// Error names the panic without its stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// runLoad runs e's load outside the lock and books its result.
func (c *Cache[V]) runLoad(ctx context.Context, e *entry[V]) {
	start := c.opts.Clock()
	var value V
	var bytes int64
	guarded(func() (err error) {
		value, err = c.opts.Load(ctx, e.key)
		return err
	}, func(err error) {
		if err == nil {
			guarded(func() error {
				bytes = c.opts.Bytes(value)
				return nil
			}, func(err error) {
				if err != nil {
					c.opts.Report(e.key, fmt.Errorf("count the bytes of %q: %w", e.key, err))
				}
			})
		}
		c.loaded(e, value, bytes, err, start)
	})
}

// loaded ends e's load: it hands a lease to everyone who waits, or the error.
func (c *Cache[V]) loaded(e *entry[V], value V, bytes int64, err error, start time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Clock()
	if c.loading[e.key]--; c.loading[e.key] == 0 {
		delete(c.loading, e.key)
	}
	e.cancel = nil
	answered := e.err != nil // the cache closed while it was loading
	if err != nil {
		c.counters.LoadFailures++
		if !answered {
			c.failLocked(e, fmt.Errorf("load %q: %w", e.key, err))
		}
		c.occupied--
		c.goneLocked(e)
		c.advanceLocked()
		return
	}
	e.value, e.bytes, e.loadedAt, e.loadTook = value, bytes, now, now.Sub(start)
	e.leases, e.waiters = e.waiters, 0
	c.touchLocked(e, now)
	if !answered {
		close(e.settled)
	}
	switch {
	case e.leases > 0 && !e.drain:
		e.state = Leased
	case e.leases > 0:
		e.state = Draining
	default: // everyone left while it was being loaded
		c.freeLocked(e)
	}
	c.advanceLocked()
}

// runFree runs e's free outside the lock and gives up its room.
func (c *Cache[V]) runFree(e *entry[V]) {
	guarded(func() error {
		return c.opts.Free(e.key, e.value)
	}, func(err error) {
		c.mu.Lock()
		c.counters.Frees++
		if err != nil {
			c.counters.FreeFailures++
		}
		c.occupied--
		c.goneLocked(e)
		c.advanceLocked()
		close(e.freed)
		c.mu.Unlock()
		if err != nil {
			c.opts.Report(e.key, fmt.Errorf("free %q: %w", e.key, err))
		}
	})
}

var errGoexit = errors.New("it ended its goroutine (runtime.Goexit)")

// guarded runs f so that its panic, or its end of the goroutine, is an error like any other.
func guarded(f func() error, done func(error)) {
	err := errGoexit
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
		done(err)
	}()
	err = f()
}
