package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by a cache that is closed or closing.
var ErrClosed = errors.New("cache is closed")

// Options of a Cache. Load and Free are required.
type Options[V any] struct {
	// MaxEntries limits the instances that exist at one time, those being loaded and freed included.
	// Below 1 there is no limit.
	MaxEntries int
	// Load makes the value of key. It runs on a goroutine of the cache, for one key at most once at a time; its
	// ctx ends when nobody waits for it any more or the cache closes. A panic becomes the load's error.
	Load func(ctx context.Context, key string) (V, error)
	// Free releases a value that nobody uses. It runs once per value, outside every lock.
	Free func(key string, value V) error
	// Bytes tells what a value takes, for the statistics; nil counts nothing.
	Bytes func(value V) int64
	// Report receives errors that no caller waits for: those of Free. May be nil.
	Report func(key string, err error)
	// Patience bounds how long a key can wait for room that busy residents never give up: once the first in the
	// queue has waited this long, a resident that is asked for again drains instead of taking a new lease.
	// 0 is no bound.
	Patience time.Duration
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time
}

// Cache holds loaded values by key. Its methods may be called from any goroutine.
type Cache[V any] struct {
	opts Options[V]

	base     context.Context // ends when the cache closes; every load's context descends from it
	stopBase context.CancelFunc
	running  sync.WaitGroup // loads and frees

	mu       sync.Mutex             // guards everything below
	current  map[string]*entry[V]   // what Acquire finds: reserving, loading, ready, leased
	entries  map[*entry[V]]struct{} // all instances, those that drain and free included
	loading  map[string]int         // keys whose load runs: 0 or 1
	queue    []*entry[V]            // reserving, in order of arrival
	idle     idleList[V]            // ready
	occupied int                    // instances that take room: loading to freeing
	leaving  [exits]int             // instances that will give up their room by themselves, by exit
	uses     uint64
	counters Counters
	closed   bool
	empty    chan struct{} // closed when closed and no instance is left
}

// New returns an empty cache. The caller must Close it.
func New[V any](opts Options[V]) *Cache[V] {
	if opts.Load == nil || opts.Free == nil {
		panic("cache: Options.Load and Options.Free are required")
	}
	if opts.Bytes == nil {
		opts.Bytes = func(V) int64 { return 0 }
	}
	if opts.Report == nil {
		opts.Report = func(string, error) {}
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	base, stop := context.WithCancel(context.Background())
	return &Cache[V]{
		opts:     opts,
		base:     base,
		stopBase: stop,
		current:  make(map[string]*entry[V]),
		entries:  make(map[*entry[V]]struct{}),
		loading:  make(map[string]int),
		empty:    make(chan struct{}),
	}
}

// Lease is the right to use a value. It must be released exactly once; more is harmless.
type Lease[V any] struct {
	cache    *Cache[V]
	entry    *entry[V]
	released atomic.Bool
}

// Key returns the key the lease was acquired for.
func (l *Lease[V]) Key() string { return l.entry.key }

// Value returns the leased value. It must not be used after Release.
func (l *Lease[V]) Value() V { return l.entry.value }

// Release gives the lease back. Only the first call counts.
func (l *Lease[V]) Release() {
	if l.released.CompareAndSwap(false, true) {
		l.cache.release(l.entry)
	}
}

// Acquire returns a lease on the value for key, loading it if needed. It waits until there is room and the load
// has ended, or until ctx ends: then it returns ctx.Err() and nobody else notices, except that a load nobody
// waits for any more is stopped. The caller must Release the lease exactly once.
func (c *Cache[V]) Acquire(ctx context.Context, key string) (*Lease[V], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	now := c.opts.Clock()
	e := c.current[key]
	if e != nil && e.state == Leased && c.mustYieldLocked(now) {
		c.retireLocked(e)
		c.counters.Evictions++
		e = nil
	}
	if e != nil && (e.state == Ready || e.state == Leased) {
		c.counters.Hits++
		c.leaseLocked(e, now)
		c.mu.Unlock()
		return &Lease[V]{cache: c, entry: e}, nil
	}
	c.counters.Misses++
	if e == nil {
		e = c.enqueueLocked(key, now)
	} else {
		c.counters.Joins++
	}
	e.waiters++
	c.advanceLocked()
	c.mu.Unlock()
	return c.wait(ctx, e)
}

// wait waits for e, which counts the caller among its waiters.
func (c *Cache[V]) wait(ctx context.Context, e *entry[V]) (*Lease[V], error) {
	select {
	case <-e.settled:
		if e.err != nil {
			return nil, e.err
		}
		return &Lease[V]{cache: c, entry: e}, nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	select {
	case <-e.settled: // both at once: the lease is already counted, give it back
		c.mu.Unlock()
		if e.err == nil {
			c.release(e)
		}
		return nil, ctx.Err()
	default:
	}
	e.waiters--
	if e.waiters == 0 {
		c.abandonLocked(e)
	}
	c.mu.Unlock()
	return nil, ctx.Err()
}

func (c *Cache[V]) release(e *entry[V]) {
	c.mu.Lock()
	e.leases--
	c.touchLocked(e, c.opts.Clock())
	if e.leases == 0 {
		if e.drain {
			c.freeLocked(e)
		} else {
			e.state = Ready
			c.idle.push(e)
		}
		c.advanceLocked()
	}
	c.mu.Unlock()
}

// mustYieldLocked says whether the first in the queue has waited long enough, and not enough instances are on
// their way out to serve the queue, so that a busy resident has to go.
func (c *Cache[V]) mustYieldLocked(now time.Time) bool {
	leaving := c.leaving[exitSoon] + c.leaving[exitAtRelease]
	return c.opts.Patience > 0 && len(c.queue) > leaving && now.Sub(c.queue[0].queuedAt) >= c.opts.Patience
}

func (c *Cache[V]) touchLocked(e *entry[V], now time.Time) {
	c.uses++
	e.use = c.uses
	e.usedAt = now
}

func (c *Cache[V]) leaseLocked(e *entry[V], now time.Time) {
	if e.state == Ready {
		c.idle.remove(e)
		e.state = Leased
	}
	e.leases++
	c.touchLocked(e, now)
}

func (c *Cache[V]) enqueueLocked(key string, now time.Time) *entry[V] {
	e := &entry[V]{key: key, state: Reserving, settled: make(chan struct{}), freed: make(chan struct{}), queuedAt: now}
	c.touchLocked(e, now)
	c.leaving[e.exit]++
	c.current[key] = e
	c.entries[e] = struct{}{}
	c.queue = append(c.queue, e)
	return e
}

// advanceLocked starts what can start: loads for which there is room, in order, then evictions for those that
// still wait. It is called after every change that may give room or need it.
func (c *Cache[V]) advanceLocked() {
	kept := c.queue[:0]
	for _, e := range c.queue {
		// A key whose stopped load has not returned yet lets those behind it pass: it waits for itself.
		if c.loading[e.key] > 0 || (c.opts.MaxEntries > 0 && c.occupied >= c.opts.MaxEntries) {
			kept = append(kept, e)
			continue
		}
		c.startLocked(e)
	}
	clear(c.queue[len(kept):])
	c.queue = kept
	if c.opts.MaxEntries < 1 {
		return
	}
	for c.leaving[exitSoon] < len(c.queue) && c.occupied >= c.opts.MaxEntries && c.idle.first != nil {
		victim := c.idle.first
		c.counters.Evictions++
		c.forgetLocked(victim)
		c.freeLocked(victim)
	}
}

func (c *Cache[V]) startLocked(e *entry[V]) {
	ctx, cancel := context.WithCancel(c.base)
	e.state = Loading
	e.cancel = cancel
	c.occupied++
	c.loading[e.key]++
	c.counters.Loads++
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		defer cancel()
		c.runLoad(ctx, e)
	}()
}

// abandonLocked gives up an entry that nobody waits for any more.
func (c *Cache[V]) abandonLocked(e *entry[V]) {
	c.forgetLocked(e)
	switch e.state {
	case Reserving:
		c.dequeueLocked(e)
		c.goneLocked(e)
	case Loading:
		c.exitLocked(e, exitSoon)
		e.cancel() // loaded takes it from here
	}
}

func (c *Cache[V]) dequeueLocked(e *entry[V]) {
	for i, other := range c.queue {
		if other == e {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return
		}
	}
}

// forgetLocked makes sure Acquire does not find e any more.
func (c *Cache[V]) forgetLocked(e *entry[V]) {
	if c.current[e.key] == e {
		delete(c.current, e.key)
	}
}

// retireLocked takes e out of use: a ready one is freed now, one in use at its last release, one being loaded
// after those who wait for it have had it.
func (c *Cache[V]) retireLocked(e *entry[V]) {
	c.forgetLocked(e)
	switch e.state {
	case Ready:
		c.freeLocked(e)
	case Leased:
		e.drain = true
		e.state = Draining
		c.exitLocked(e, exitAtRelease)
	case Loading:
		e.drain = true
		c.exitLocked(e, exitAtRelease)
	}
}

// exitLocked books how e will leave.
func (c *Cache[V]) exitLocked(e *entry[V], how exit) {
	c.leaving[e.exit]--
	e.exit = how
	c.leaving[how]++
}

// freeLocked starts e's free. Its room is given up when the free has returned.
func (c *Cache[V]) freeLocked(e *entry[V]) {
	if e.state == Ready {
		c.idle.remove(e)
	}
	c.forgetLocked(e)
	e.state = Freeing
	c.exitLocked(e, exitSoon)
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		c.runFree(e)
	}()
}

// failLocked tells everyone who waits for e that it will not come.
func (c *Cache[V]) failLocked(e *entry[V], err error) {
	c.forgetLocked(e)
	e.err = err
	e.waiters = 0
	close(e.settled)
}

// goneLocked ends an instance.
func (c *Cache[V]) goneLocked(e *entry[V]) {
	c.leaving[e.exit]--
	delete(c.entries, e)
	if c.closed && len(c.entries) == 0 {
		close(c.empty)
	}
}
