package cache

import (
	"context"
	"time"
)

// Clear takes everything out of use: idle values are freed before it returns, leased ones and those being loaded at
// their last release; with revoke their holders are asked to release at once. Whatever is acquired after Clear was
// loaded after Clear. Pins do not protect from it: a pin is a promise about eviction. When ctx ends it returns although
// some frees still run.
func (c *Cache[V]) Clear(ctx context.Context, revoke bool) Cleared {
	return c.clear(ctx, func(string) bool { return true }, revoke)
}

// Remove does for one key what Clear does for all. An absent key is not an error.
func (c *Cache[V]) Remove(ctx context.Context, key string, revoke bool) Cleared {
	return c.clear(ctx, func(k string) bool { return k == key }, revoke)
}

func (c *Cache[V]) clear(ctx context.Context, chosen func(key string) bool, revoke bool) Cleared {
	c.mu.Lock()
	cleared, freeing := c.own.clear(c.opts.Clock(), chosen, revoke, ReasonAdmin)
	c.unlock()
	await(ctx, freeing)
	return cleared
}

// await waits until the frees have ended, or ctx has.
func await[V any](ctx context.Context, freeing []*entry[V]) {
	for _, e := range freeing {
		select {
		case <-e.freed:
		case <-ctx.Done():
			return
		}
	}
}

// Relieve evicts idle values, least recently used first, until bytes of the pool are free or nothing is left that may
// go; it returns when they are freed, or when ctx ends.
func (c *Cache[V]) Relieve(ctx context.Context, pool int, bytes int64) Cleared {
	c.mu.Lock()
	done, freeing := c.own.relieve(c.opts.Clock(), pool, bytes)
	c.unlock()
	await(ctx, freeing)
	return done
}

// Hold makes a pool take no more loads: those that ask or wait are refused, with why and retryAfter.
func (c *Cache[V]) Hold(pool int, why string, retryAfter time.Duration) {
	c.mu.Lock()
	c.own.hold(c.opts.Clock(), pool, why, retryAfter)
	c.unlock()
}

// Lose closes a pool for good, with why: nothing is loaded there any more, idle values that live there are freed, leased
// ones at their last release, and who waits for one waits for it in another of its places, or is refused. It is false
// for a pool that is lost already. There is no way back.
func (c *Cache[V]) Lose(pool int, why string) bool {
	c.mu.Lock()
	first := c.own.lose(c.opts.Clock(), pool, why)
	c.unlock()
	return first
}

// Admit ends Hold.
func (c *Cache[V]) Admit(pool int) { c.Hold(pool, "", 0) }

// Pin keeps a key from being evicted once it is loaded; it does not load it. It fails with a *Refusal when the pinned
// values would not all fit, or with the estimate's error.
func (c *Cache[V]) Pin(ctx context.Context, key string) error {
	places, err := c.estimate(ctx, key)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.unlock()
	return c.own.pin(c.opts.Clock(), key, places)
}

// Unpin lets a key be evicted again; false when it was not pinned.
func (c *Cache[V]) Unpin(key string) bool {
	c.mu.Lock()
	defer c.unlock()
	return c.own.unpin(c.opts.Clock(), key)
}

func (c *Cache[V]) estimate(ctx context.Context, key string) ([]Footprint, error) {
	if c.opts.Estimate == nil {
		return []Footprint{{}}, nil
	}
	places, err := c.opts.Estimate(ctx, key)
	if err != nil {
		return nil, err
	}
	return byRank(places)
}

// SetBudget changes a pool's budget (below 1: no limit); idle values go if it is exceeded.
func (c *Cache[V]) SetBudget(pool int, bytes int64) {
	c.mu.Lock()
	c.own.setBudget(c.opts.Clock(), pool, bytes)
	c.unlock()
}

// SetMaxEntries changes the limit of instances (below 1: none); idle values go if it is exceeded.
func (c *Cache[V]) SetMaxEntries(n int) {
	c.mu.Lock()
	c.own.setMaxEntries(c.opts.Clock(), n)
	c.unlock()
}

// SetKeepAlive changes the default of Ask.KeepAlive, for the values that are asked for from now on.
func (c *Cache[V]) SetKeepAlive(d time.Duration) {
	c.mu.Lock()
	c.own.opts.KeepAlive = d
	c.unlock()
}

// Plan says what a load of key would do now, without doing it.
func (c *Cache[V]) Plan(ctx context.Context, key string) (Plan, error) {
	places, err := c.estimate(ctx, key)
	if err != nil {
		return Plan{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own.plan(c.opts.Clock(), key, places), nil
}

// Events returns the kept decisions after seq, oldest first.
func (c *Cache[V]) Events(seq uint64) []Event { return c.own.journal.since(seq) }

// Listen returns the kept decisions after seq, and a listener for those that follow without a gap.
func (c *Cache[V]) Listen(seq uint64) (*Listener, []Event) { return c.own.journal.listen(seq) }

// Curve returns the miss-ratio curve of the requests so far.
func (c *Cache[V]) Curve() Curve {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own.curve.snapshot()
}

// Demand returns the access pattern, most wanted first.
func (c *Cache[V]) Demand() []Demand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own.curve.demands(c.opts.Clock())
}
