package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// owner has all state of a cache. Its methods never wait and call nothing outside; whoever calls them holds the lock
// (or is alone), passes the time, and runs the effects they leave.
type owner[V any] struct {
	opts Options[V]

	current   map[string]*entry[V]   // what acquire finds: reserving, loading, ready, leased
	entries   map[*entry[V]]struct{} // all instances, those that drain and are freed included
	loads     map[string]int         // keys whose load runs: 0 or 1
	queue     list[entry[V]]         // reserving, in order of arrival
	idle      list[entry[V]]         // ready, least recently used first
	occupied  int                    // instances that take room: loading to freeing
	growths   list[growth[V]]        // leases that wait for room for a session, in order of arrival
	ledger    ledger
	claims    Bytes // by those in the queue: nobody behind may take it
	claimed   int   // instances, likewise
	residues  map[*residue]struct{}
	pins      map[string][]Footprint // their places
	cooling   map[string]*cooling
	refusing  map[int]refusing // pool → why it takes no loads
	lost      map[int]lostPool
	nested    int             // waiters that hold leases
	blocked   *entry[V]       // the first in the queue when only busy residents could make room for it
	beyond    bool            // a limit is exceeded until a resident becomes idle
	spare     list[record[V]] // records without a lease
	uses      uint64
	arrivals  uint64 // of waiters
	closed    bool
	empty     chan struct{} // closed when closed, no instance is left and nothing runs
	counters  counters
	journal   *journal
	curve     *curve
	loadPace  pace // seconds a byte
	holdPace  pace // seconds a lease
	expiresAt time.Time
	effects   []effect[V]
	running   int // effects that have not reported
}

// An effect is what has to happen outside.
type effect[V any] struct {
	kind  effectKind
	entry *entry[V]
	ctx   context.Context
}

type effectKind uint8

const (
	doEstimate effectKind = iota
	doLoad
	doFree
)

// counters may be read without the lock.
type counters struct {
	hits, misses, joins, loads, loadFailures, removals, frees, freeFailures, yields, refusals atomic.Uint64
	evictions                                                                                 [4]atomic.Uint64 // by evictionReasons
}

// evictionReasons are the reasons that count as evictions: not what people or a shutdown ask for.
var evictionReasons = [...]Reason{ReasonCapacity, ReasonTTL, ReasonPressure, ReasonConfig}

// pace is a moving average of measured times.
type pace struct{ mean float64 }

func (p *pace) add(x float64) {
	if p.mean == 0 {
		p.mean = x
	} else {
		p.mean += (x - p.mean) / 8
	}
}

func newOwner[V any](opts Options[V]) *owner[V] {
	opts.fill()
	o := &owner[V]{
		opts:     opts,
		current:  make(map[string]*entry[V]),
		entries:  make(map[*entry[V]]struct{}),
		loads:    make(map[string]int),
		queue:    newList(func(e *entry[V]) *link[entry[V]] { return &e.queued }),
		idle:     newList(func(e *entry[V]) *link[entry[V]] { return &e.idle }),
		growths:  newList(func(g *growth[V]) *link[growth[V]] { return &g.link }),
		spare:    newList(func(r *record[V]) *link[record[V]] { return &r.link }),
		ledger:   newLedger(opts.Pools),
		residues: make(map[*residue]struct{}),
		pins:     make(map[string][]Footprint),
		cooling:  make(map[string]*cooling),
		refusing: make(map[int]refusing),
		lost:     make(map[int]lostPool),
		empty:    make(chan struct{}),
		journal:  newJournal(opts.Journal),
		curve:    newCurve(opts.Ghosts),
	}
	o.curve.remember(opts.Demand)
	return o
}

// acquire gives a lease, or a waiter that will be answered, or an error. outer are leases that the caller holds.
func (o *owner[V]) acquire(now time.Time, key string, ask Ask, outer []Lease[V]) (Lease[V], *waiter[V], error) {
	if o.closed {
		return Lease[V]{}, nil, ErrClosed
	}
	e := o.current[key]
	o.demand(now, key, e, ask)
	if e != nil && (e.state == Ready || e.state == Leased) && len(outer) == 0 && o.mustYield(now, e) {
		o.counters.yields.Add(1)
		o.retire(now, e, ReasonPatience)
		e = nil
	}
	if e != nil && (e.state == Ready || e.state == Leased) {
		if !ask.Background {
			o.counters.hits.Add(1)
		}
		return o.lease(now, e, ask, Hit, 0), nil, nil
	}
	if !ask.Background {
		o.counters.misses.Add(1)
	}
	how := Join
	if e == nil {
		how = Miss
		if r := o.coolingDown(now, key); r != nil {
			o.counters.refusals.Add(1) // the journal has the failure and how long it counts
			return Lease[V]{}, nil, r
		}
		e = o.arrive(now, key)
	} else if !ask.Background {
		o.counters.joins.Add(1)
	}
	w := o.join(now, e, ask, how, outer)
	o.advance(now)
	return Lease[V]{}, w, nil
}

// demand books a request on the curve.
func (o *owner[V]) demand(now time.Time, key string, e *entry[V], ask Ask) {
	if ask.Background {
		return
	}
	if e == nil {
		o.curve.touch(now, key, nil)
		return
	}
	e.node = o.curve.touch(now, key, e.node)
}

// arrive makes an instance that asks for its size.
func (o *owner[V]) arrive(now time.Time, key string) *entry[V] {
	e := &entry[V]{
		key: key, state: Reserving, queuedAt: now, rooms: 1, freed: make(chan struct{}), revoked: make(chan struct{}),
		waiters: newList(func(w *waiter[V]) *link[waiter[V]] { return &w.link }),
		leases:  newList(func(r *record[V]) *link[record[V]] { return &r.link }),
	}
	o.touch(e, now)
	o.current[key] = e
	o.entries[e] = struct{}{}
	o.queue.push(e)
	o.do(doEstimate, e)
	return e
}

// do leaves an effect; estimates and loads get a context that ends when nobody waits for them any more.
func (o *owner[V]) do(kind effectKind, e *entry[V]) {
	what := effect[V]{kind: kind, entry: e}
	if kind != doFree {
		what.ctx, e.cancel = context.WithCancel(context.Background())
	}
	o.effects = append(o.effects, what)
	o.running++
}

func (o *owner[V]) touch(e *entry[V], now time.Time) {
	o.uses++
	e.use = o.uses
	e.usedAt = now
}

// lease gives out a lease on a resident instance.
func (o *owner[V]) lease(now time.Time, e *entry[V], ask Ask, how Outcome, waited time.Duration) Lease[V] {
	if e.state == Ready {
		o.idle.remove(e)
		e.state = Leased
	}
	r := o.spare.first
	if r == nil {
		r = &record[V]{}
	} else {
		o.spare.remove(r)
	}
	r.entry, r.holder, r.background, r.since, r.waited = e, ask.Holder, ask.Background, now, waited
	r.ticket++
	e.leases.push(r)
	e.keepAlive = ask.KeepAlive
	if e.keepAlive == 0 {
		e.keepAlive = o.opts.KeepAlive
	}
	o.touch(e, now)
	return Lease[V]{entry: e, record: r, ticket: r.ticket, outcome: how}
}

// release takes a lease back; false when that has happened already.
func (o *owner[V]) release(now time.Time, l Lease[V]) bool {
	r, e := l.record, l.entry
	if !l.holds() {
		return false
	}
	r.ticket++
	held := now.Sub(r.since)
	o.holdPace.add(held.Seconds())
	if !r.background {
		o.opts.Trace(TraceEvent{At: r.since.Add(-r.waited), Key: e.key, Waited: r.waited, Held: held})
	}
	for ; r.sessions > 0; r.sessions-- {
		o.leaveSession(e)
	}
	if e.growing > 0 {
		o.growths.all(func(g *growth[V]) bool {
			if g.record == r {
				o.answerGrowth(g, fmt.Errorf("the lease on %q was released", e.key))
			}
			return true
		})
	}
	e.leases.remove(r)
	r.entry, r.holder = nil, ""
	o.spare.push(r)
	o.touch(e, now)
	if e.leases.length == 0 {
		o.rest(now, e)
	}
	if o.queue.length > 0 || o.growths.length > 0 || o.beyond {
		o.advance(now)
	}
	return true
}

// rest decides what becomes of an instance that nobody uses any more.
func (o *owner[V]) rest(now time.Time, e *entry[V]) {
	if e.drain {
		o.free(now, e)
		return
	}
	e.state = Ready
	o.idle.push(e)
	o.expireAfter(now, e)
}

// forget makes sure acquire does not find e any more.
func (o *owner[V]) forget(e *entry[V]) {
	if o.current[e.key] == e {
		delete(o.current, e.key)
	}
}

// retire takes e out of use: an idle one is freed now, one in use at its last release, one being loaded after those
// who wait for it have had it. One that waits for room is left alone: it will be loaded afresh anyway.
func (o *owner[V]) retire(now time.Time, e *entry[V], why Reason) {
	if e.state == Reserving || e.drain || e.state == Freeing {
		return
	}
	o.forget(e)
	e.reason = why
	if why == ReasonAdmin || why == ReasonShutdown {
		o.counters.removals.Add(1)
	}
	if e.state == Ready {
		o.free(now, e)
		return
	}
	e.drain = true
	if e.state == Leased {
		e.state = Draining
	}
	o.note(now, Event{Kind: EventDraining, Key: e.key, Reason: why, Bytes: e.held().Total(), Blockers: o.holders(now, e)})
}

// free begins e's free. Its room is given up when that has ended.
func (o *owner[V]) free(now time.Time, e *entry[V]) {
	o.idle.remove(e)
	o.forget(e)
	e.state = Freeing
	o.do(doFree, e)
}

// evict gives up an idle instance that could have stayed.
func (o *owner[V]) evict(now time.Time, e *entry[V], why Reason, forKey, runnerUp string) {
	for i, r := range evictionReasons {
		if r == why {
			o.counters.evictions[i].Add(1)
		}
	}
	o.note(now, Event{Kind: EventEvicted, Key: e.key, Reason: why, For: forKey, RunnerUp: runnerUp,
		Bytes: e.held().Total(), Took: now.Sub(e.usedAt)})
	e.reason = why
	o.free(now, e)
}

// end takes an instance out of the owner.
func (o *owner[V]) end(e *entry[V]) {
	o.forget(e)
	o.queue.remove(e)
	if o.blocked == e {
		o.blocked = nil
	}
	e.gone = true
	delete(o.entries, e)
	o.finish()
}

// finish tells Close when there is nothing left to wait for.
func (o *owner[V]) finish() {
	if o.closed && len(o.entries) == 0 && o.running == 0 {
		close(o.empty)
	}
}

func (o *owner[V]) note(now time.Time, e Event) {
	e.At = now
	o.opts.Observe(o.journal.add(e))
}
