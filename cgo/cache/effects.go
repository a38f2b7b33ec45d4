package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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

// run does what the owner cannot, and reports back.
func (c *Cache[V]) run(what effect[V]) {
	defer c.running.Done()
	switch what.kind {
	case doEstimate:
		c.runEstimate(what.ctx, what.entry)
	case doLoad:
		c.runLoad(what.ctx, what.entry)
	case doFree:
		c.runFree(what.entry)
	}
}

func (c *Cache[V]) runEstimate(ctx context.Context, e *entry[V]) {
	places := []Footprint{{}}
	guarded(func() (err error) {
		if c.opts.Estimate != nil {
			places, err = c.opts.Estimate(ctx, e.key)
		}
		return err
	}, func(err error) {
		c.mu.Lock()
		c.own.estimated(c.opts.Clock(), e, places, err)
		c.unlock()
	})
}

// runLoad is a chain of deferred calls: each runs even if the one before it ends the goroutine.
func (c *Cache[V]) runLoad(ctx context.Context, e *entry[V]) {
	var value V
	var failure error
	actual := e.footprint // the owner leaves it alone while the load runs
	defer func() {
		c.mu.Lock()
		c.own.loaded(c.opts.Clock(), e, value, actual, failure)
		c.unlock()
	}()
	defer func() {
		if failure == nil && c.opts.Measure != nil {
			actual = c.measure(e.key, value, actual)
		}
	}()
	guarded(func() (err error) {
		value, err = c.opts.Load(ctx, e.key, actual.Home, func(done, total int64) { c.step(e, Progress{done, total}) })
		return err
	}, func(err error) { failure = err })
}

// measure asks what a value really takes; where that fails its estimate stands.
func (c *Cache[V]) measure(key string, value V, estimate Footprint) (actual Footprint) {
	guarded(func() error {
		actual = c.opts.Measure(value)
		return actual.check()
	}, func(err error) {
		if err != nil {
			actual = estimate
			c.opts.Report(key, fmt.Errorf("measure %q, its estimate stands: %w", key, err))
		}
	})
	return actual
}

func (c *Cache[V]) step(e *entry[V], p Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own.loading(e, p)
}

// runFree frees e's value. Its memory counts as returned when the value's own account says so. Like runLoad it is a
// chain of deferred calls.
func (c *Cache[V]) runFree(e *entry[V]) {
	var ask func() Bytes
	var left Bytes
	var failures []error
	defer func() {
		var none V
		err := errors.Join(failures...)
		c.mu.Lock()
		e.value = none
		c.own.freedNow(c.opts.Clock(), e, left, ask, err)
		c.unlock()
		if err != nil {
			c.opts.Report(e.key, fmt.Errorf("free %q: %w", e.key, err))
		}
	}()
	defer func() {
		if ask == nil {
			return
		}
		account(ask, func(bytes Bytes, err error) {
			left = bytes
			if err != nil { // nothing proves that anything has come back
				left = e.held()
				failures = append(failures, err)
			}
		})
	}()
	guarded(func() (err error) {
		ask, err = c.opts.Free(e.key, e.value)
		return err
	}, func(err error) {
		if err != nil {
			failures = append(failures, err)
		}
	})
}

// account asks what a freed value still holds.
func account(ask func() Bytes, done func(left Bytes, err error)) {
	var left Bytes
	guarded(func() error {
		for i, n := range ask() {
			left[i] = max(0, n)
		}
		return nil
	}, func(err error) { done(left, err) })
}

// Sweep asks again what freed values have not given back. It is called from time to time.
func (c *Cache[V]) Sweep() {
	c.mu.Lock()
	open := make([]*residue, 0, len(c.own.residues))
	for r := range c.own.residues {
		open = append(open, r)
	}
	c.mu.Unlock()
	for _, r := range open {
		account(r.ask, func(left Bytes, err error) {
			if err != nil {
				c.opts.Report(r.key, fmt.Errorf("ask what %q has not returned: %w", r.key, err))
				return
			}
			c.mu.Lock()
			c.own.returned(c.opts.Clock(), r, left)
			c.unlock()
		})
	}
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
