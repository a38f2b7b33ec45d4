package cache

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Cache holds loaded values by key. Its methods may be called from any goroutine.
type Cache[V any] struct {
	opts    Options[V]
	running sync.WaitGroup // effects

	mu    sync.Mutex // guards own and timer; nothing waits under it
	own   *owner[V]
	timer *time.Timer // of the next expiry; nil before the first
	due   time.Time   // when it fires; zero for not at all
	pings pings
}

// New returns an empty cache. The caller must Close it.
func New[V any](opts Options[V]) *Cache[V] {
	opts.fill()
	return &Cache[V]{opts: opts, own: newOwner(opts)}
}

// unlock ends a section that may have changed something: it runs the effects that the owner left.
func (c *Cache[V]) unlock() {
	effects := c.own.effects
	c.own.effects = nil
	if at := c.own.expiresAt; !at.Equal(c.due) {
		c.schedule(at)
	}
	c.running.Add(len(effects))
	c.mu.Unlock()
	for _, what := range effects {
		go c.run(what)
	}
}

// schedule sets the timer for the next expiry.
func (c *Cache[V]) schedule(at time.Time) {
	c.due = at
	switch {
	case at.IsZero():
		if c.timer != nil {
			c.timer.Stop()
		}
	case c.timer == nil:
		c.timer = time.AfterFunc(at.Sub(c.opts.Clock()), c.expire)
	default:
		c.timer.Reset(at.Sub(c.opts.Clock()))
	}
}

func (c *Cache[V]) expire() {
	c.mu.Lock()
	c.own.expire(c.opts.Clock())
	c.due = time.Time{}
	c.unlock()
}

// Acquire returns a lease on the value for key, loading it if needed. It waits until there is room and the load has
// ended, or until ctx ends: then it returns a *Refusal that wraps ctx.Err() and names what it waited for, and nobody
// else notices, except that a load nobody waits for any more is stopped. A key that cannot be had now is a *Refusal,
// too. The caller must Release the lease exactly once.
func (c *Cache[V]) Acquire(ctx context.Context, key string, ask Ask) (Lease[V], error) {
	if err := ctx.Err(); err != nil {
		return Lease[V]{}, err
	}
	c.mu.Lock()
	lease, w, err := c.own.acquire(c.opts.Clock(), key, ask, outer[V](ctx))
	c.unlock()
	if w == nil {
		lease.cache = c
		return lease, err
	}
	if ask.Waits != nil {
		ask.Waits()
	}
	return c.wait(ctx, w)
}

// wait waits for w's answer.
func (c *Cache[V]) wait(ctx context.Context, w *waiter[V]) (Lease[V], error) {
	select {
	case <-w.answered:
	case <-ctx.Done():
		c.mu.Lock()
		err := c.own.leave(c.opts.Clock(), w, ctx.Err())
		c.unlock()
		return Lease[V]{}, err
	}
	if w.err != nil {
		return Lease[V]{}, w.err
	}
	w.lease.cache = c
	return w.lease, nil
}

// Preload loads key, or returns when it is loaded. progress (nil for none) hears how far the load is, on the calling
// goroutine.
func (c *Cache[V]) Preload(ctx context.Context, key string, ask Ask, progress func(Progress)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ask.Background = true
	c.mu.Lock()
	lease, w, err := c.own.acquire(c.opts.Clock(), key, ask, outer[V](ctx))
	var steps chan struct{}
	if w != nil && progress != nil {
		steps = make(chan struct{}, 1)
		w.entry.followers = append(w.entry.followers, steps)
	}
	c.unlock()
	if w != nil {
		return c.follow(ctx, w, steps, progress)
	}
	if err == nil {
		lease.cache = c
		lease.Release()
	}
	return err
}

// follow tells progress of w's load until it is answered or ctx ends, and gives the lease back. A progress that panics
// leaves nothing behind.
func (c *Cache[V]) follow(ctx context.Context, w *waiter[V], steps chan struct{}, progress func(Progress)) (err error) {
	defer func() {
		c.mu.Lock()
		cause := c.own.leave(c.opts.Clock(), w, ctx.Err())
		c.unlock()
		if err == nil {
			err = cause
		}
	}()
	for {
		select {
		case <-w.answered:
			return w.err
		case <-ctx.Done():
			return nil
		case <-steps:
			c.mu.Lock()
			at := w.entry.progress
			c.mu.Unlock()
			progress(at)
		}
	}
}

// Lease is the right to use a value. It must be released exactly once; more is harmless. The zero Lease is none.
type Lease[V any] struct {
	cache   *Cache[V]
	entry   *entry[V]
	record  *record[V]
	ticket  uint64
	outcome Outcome
}

// Outcome says how the key was come by.
func (l Lease[V]) Outcome() Outcome { return l.outcome }

// Key returns the key the lease was acquired for.
func (l Lease[V]) Key() string { return l.entry.key }

// Value returns the leased value. It must not be used after Release.
func (l Lease[V]) Value() V { return l.entry.value }

// Revoked is closed when the value is wanted back at once (Clear with force): the holder should stop and release.
func (l Lease[V]) Revoked() <-chan struct{} { return l.entry.revoked }

// Release gives the lease back, with the sessions it entered. Only the first call counts.
func (l Lease[V]) Release() {
	c := l.cache
	c.mu.Lock()
	c.own.release(c.opts.Clock(), l)
	c.unlock()
}

// EnterSession reserves room for one session of the value, waiting for it if needed until ctx ends. Release gives it
// back; so does ExitSession.
func (l Lease[V]) EnterSession(ctx context.Context) error {
	c := l.cache
	c.mu.Lock()
	g, ok := c.own.enterSession(c.opts.Clock(), l)
	c.unlock()
	switch {
	case !ok:
		return fmt.Errorf("session of %q: the lease was released", l.entry.key)
	case g == nil:
		return nil
	}
	select {
	case <-g.answered:
		return g.err
	case <-ctx.Done():
		c.mu.Lock()
		c.own.leaveGrowth(c.opts.Clock(), l, g)
		c.unlock()
		return fmt.Errorf("session of %q: waited for room: %w", l.entry.key, ctx.Err())
	}
}

// ExitSession gives the room of one session back, when its memory is.
func (l Lease[V]) ExitSession() {
	c := l.cache
	c.mu.Lock()
	c.own.exitSession(c.opts.Clock(), l)
	c.unlock()
}

type outerKey struct{}

// Context returns a context for work that runs under the lease. A nested Acquire with it never waits for the caller's
// own leases: a resident value is leased at once, those who wait and hold no lease are overtaken, and where the
// caller's leases, or those of others who wait like this, are in the way for ever it returns ErrSelfBlocked.
func (l Lease[V]) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, outerKey{}, append(outer[V](ctx), l))
}

func outer[V any](ctx context.Context) []Lease[V] {
	held, _ := ctx.Value(outerKey{}).([]Lease[V])
	return held[:len(held):len(held)]
}

// Ping returns when the owner of the state has answered, or with ctx's error: then something holds it for ever.
func (c *Cache[V]) Ping(ctx context.Context) error {
	select {
	case <-c.pings.send(c.visit):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the cache's owner does not answer: %w", ctx.Err())
	}
}

// visit returns when it has had the lock.
func (c *Cache[V]) visit() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// pings share one goroutine that visits the owner, however many ask.
type pings struct {
	mu     sync.Mutex
	answer chan struct{} // of the ping under way; nil for none
}

func (p *pings) send(visit func()) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answer == nil {
		answer := make(chan struct{})
		p.answer = answer
		go func() {
			visit()
			p.mu.Lock()
			p.answer = nil
			p.mu.Unlock()
			close(answer)
		}()
	}
	return p.answer
}

// Close refuses new leases, stops loads, answers everyone who waits with ErrClosed, frees what is idle and waits
// until the last lease is released and freed, or until ctx ends: then the error names what is still in use. It may be
// called again to go on waiting.
func (c *Cache[V]) Close(ctx context.Context) error {
	c.mu.Lock()
	c.own.shut(c.opts.Clock())
	empty := c.own.empty
	c.unlock()
	select {
	case <-empty:
		c.running.Wait() // their last statements
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close cache: still in use: %s: %w", strings.Join(c.remaining(), ", "), ctx.Err())
	}
}

func (c *Cache[V]) remaining() []string {
	var keys []string
	for _, e := range c.Snapshot().Entries {
		keys = append(keys, fmt.Sprintf("%s (%s, %d leases)", e.Key, e.State, e.Leases))
	}
	if keys == nil {
		keys = append(keys, "an estimate nobody waits for")
	}
	return keys
}
