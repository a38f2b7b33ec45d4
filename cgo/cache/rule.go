package cache

import (
	"slices"
	"time"
)

// This file has what the owner is told from outside: clear, pressure, pins, limits, time, and the end.

// Cleared says what Clear, Remove and Relieve did.
type Cleared struct {
	Freed    []string // idle ones, freed when the call returned; least recently used first
	Draining []string // in use or being loaded: freed at their last release
	Revoked  []string // of them, those whose leases were asked back
	Pinned   []string // left alone
	Bytes    int64    // of those freed
}

// clear takes the chosen instances out of use, and returns those whose free has begun.
func (o *owner[V]) clear(now time.Time, chosen func(key string) bool, revoke bool, why Reason) (Cleared, []*entry[V]) {
	var cleared Cleared
	var freeing []*entry[V]
	gone := make(map[*entry[V]]bool)
	for _, e := range o.byUse() {
		if e.state == Reserving || e.state == Freeing || !chosen(e.key) {
			continue
		}
		if e.state == Ready {
			freeing = append(freeing, e)
			cleared.Freed = append(cleared.Freed, e.key)
			gone[e] = true
		} else {
			cleared.Draining = append(cleared.Draining, e.key)
			if revoke && e.revoke() {
				cleared.Revoked = append(cleared.Revoked, e.key)
			}
		}
		o.retire(now, e, why)
	}
	cleared.Bytes = o.heldBy(gone).Total()
	o.advance(now)
	return cleared, freeing
}

// heldBy is what the books lose when the given instances are gone, components that nobody else holds included.
func (o *owner[V]) heldBy(gone map[*entry[V]]bool) Bytes {
	after := o.situationWithout(func(e *entry[V]) bool { return gone[e] }, nil, Bytes{}, 0)
	return o.ledger.used().minus(after.used)
}

// revoke asks the leases of e back; false when that has been done.
func (e *entry[V]) revoke() bool {
	select {
	case <-e.revoked:
		return false
	default:
		close(e.revoked)
		return true
	}
}

// byUse lists the instances, least recently used first.
func (o *owner[V]) byUse() []*entry[V] {
	out := make([]*entry[V], 0, len(o.entries))
	for e := range o.entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *entry[V]) int {
		if a.use < b.use {
			return -1
		}
		return 1
	})
	return out
}

// relieve evicts idle values until bytes of a pool are on their way back, or nothing is left that may go.
func (o *owner[V]) relieve(now time.Time, pool int, bytes int64) (Cleared, []*entry[V]) {
	var done Cleared
	var freeing []*entry[V]
	idle := o.candidates()
	s := o.situation(idle, Bytes{}, 0)
	s.slots = 0
	target := newLedger(make([]Pool, len(o.ledger.pools))) // no limit but this
	target.components = o.ledger.components
	target.pools[pool].Budget = 1
	s.used[pool] = 1 + bytes
	s.ledger = &target
	gone := make(map[*entry[V]]bool)
	for _, i := range least(s).victims {
		e := idle[i]
		gone[e] = true
		done.Freed = append(done.Freed, e.key)
		freeing = append(freeing, e)
		o.evict(now, e, ReasonPressure, "", "")
	}
	done.Bytes = o.heldBy(gone)[pool]
	if done.Bytes < bytes {
		o.idle.all(func(e *entry[V]) bool {
			if e.footprint.Whole()[pool] > 0 {
				done.Pinned = append(done.Pinned, e.key)
			}
			return true
		})
	}
	o.advance(now)
	return done, freeing
}

// refusing is why a pool takes no loads.
type refusing struct {
	why   string
	until time.Time // the estimate that Retry-After is made of
}

// hold makes a pool take no loads, or take them again when why is empty.
func (o *owner[V]) hold(now time.Time, pool int, why string, retryAfter time.Duration) {
	_, held := o.refusing[pool]
	if why == "" {
		delete(o.refusing, pool)
	} else {
		o.refusing[pool] = refusing{why: why, until: now.Add(retryAfter)}
	}
	if held != (why != "") {
		o.note(now, Event{Kind: EventPressure, Pool: o.ledger.pools[pool].Name, Error: why, Took: retryAfter})
	}
	o.advance(now)
}

// heldBack refuses key as f if a pool it needs takes no loads.
func (o *owner[V]) heldBack(now time.Time, key string, f *Footprint) *Refusal {
	if o.isLost(f) {
		return o.lostRefusal(key, f.Home)
	}
	if len(o.refusing) == 0 {
		return nil
	}
	whole := f.Whole()
	for i, pool := range o.ledger.pools {
		if r, held := o.refusing[i]; held && whole[i] > 0 {
			return &Refusal{Key: key, Code: RefusedPressure, Pool: pool.Name, Need: whole[i], Budget: pool.Budget,
				RetryAfter: max(time.Second, r.until.Sub(now)), Why: r.why}
		}
	}
	return nil
}

// pin keeps a key from being evicted once it is loaded. It is refused when the pinned values would not all fit.
func (o *owner[V]) pin(now time.Time, key string, places []Footprint) error {
	if o.pinned(key) {
		return nil
	}
	sum := newLedger(o.ledger.pools)
	keys := []string{}
	for other := range o.pins {
		keys = append(keys, other)
	}
	slices.Sort(keys)
	for _, other := range keys {
		if f := o.pinPlace(other, o.pins[other], &sum); f != nil {
			sum.reserve(f)
		}
	}
	f := o.pinPlace(key, places, &sum)
	if f == nil {
		return o.lostRefusal(key, places[0].Home)
	}
	sum.reserve(f)
	over, tooMuch := sum.over(sum.used())
	if !tooMuch && (o.opts.MaxEntries < 1 || len(o.pins) < o.opts.MaxEntries) {
		o.pins[key] = places
		o.note(now, Event{Kind: EventPinned, Key: key, Bytes: f.Whole().Total()})
		if e := o.current[key]; e != nil {
			e.expires = time.Time{}
		}
		o.advance(now) // it is in the way of others now
		return nil
	}
	r := &Refusal{Key: key, Code: RefusedPinned, Pinned: keys}
	for i, pool := range o.ledger.pools {
		if over[i] > 0 {
			r.Pool, r.Need, r.Budget = pool.Name, f.Whole()[i], pool.Budget
			break
		}
	}
	return r
}

// unpin lets a key be evicted again; false when it was not pinned.
func (o *owner[V]) unpin(now time.Time, key string) bool {
	if !o.pinned(key) {
		return false
	}
	delete(o.pins, key)
	o.note(now, Event{Kind: EventUnpinned, Key: key})
	if e := o.current[key]; e != nil && e.state == Ready {
		o.expireAfter(now, e)
	}
	o.advance(now)
	return true
}

// setBudget changes a pool's budget; idle values go if it is exceeded.
func (o *owner[V]) setBudget(now time.Time, pool int, bytes int64) {
	o.ledger.pools[pool].Budget = bytes
	o.advance(now)
}

func (o *owner[V]) setMaxEntries(now time.Time, n int) {
	o.opts.MaxEntries = n
	o.advance(now)
}

// expireAfter books when e, which has just become idle, goes by itself.
func (o *owner[V]) expireAfter(now time.Time, e *entry[V]) {
	e.expires = time.Time{}
	if e.keepAlive < 0 || o.pinned(e.key) {
		return
	}
	if e.keepAlive <= AtOnce {
		o.evict(now, e, ReasonTTL, "", "")
		return
	}
	e.expires = now.Add(e.keepAlive)
	if o.expiresAt.IsZero() || e.expires.Before(o.expiresAt) {
		o.expiresAt = e.expires
	}
}

// expire evicts what has been idle for its keep-alive, and finds out when to look again: o.expiresAt, or never.
func (o *owner[V]) expire(now time.Time) {
	o.expiresAt = time.Time{}
	o.idle.all(func(e *entry[V]) bool {
		switch {
		case e.expires.IsZero():
		case !e.expires.After(now):
			o.evict(now, e, ReasonTTL, "", "")
		case o.expiresAt.IsZero() || e.expires.Before(o.expiresAt):
			o.expiresAt = e.expires
		}
		return true
	})
	o.advance(now)
}

// shut refuses new leases, stops loads, answers everyone who waits for one with ErrClosed and frees what is idle.
func (o *owner[V]) shut(now time.Time) {
	if o.closed {
		return
	}
	o.pins = make(map[string][]Footprint)
	for _, e := range o.byUse() {
		switch e.state {
		case Reserving:
			if e.cancel != nil {
				e.cancel()
			}
			o.fail(now, e, ErrClosed)
			o.end(e)
		case Loading: // it ends when it hears of it; its room is kept until then
			e.stopped = true
			e.reason = ReasonShutdown
			e.cancel()
			o.fail(now, e, ErrClosed)
		default:
			o.retire(now, e, ReasonShutdown)
		}
	}
	o.growths.all(func(g *growth[V]) bool {
		o.answerGrowth(g, ErrClosed)
		return true
	})
	o.expiresAt = time.Time{}
	o.closed = true
	o.finish()
}
