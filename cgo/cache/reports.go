package cache

import (
	"fmt"
	"time"
)

// This file has the owner's reports: how the effects say that they have ended.

// Progress is how far a load is.
type Progress struct {
	Done, Total int64 // bytes; Total 0: not known yet
}

// estimated ends e's estimate.
func (o *owner[V]) estimated(now time.Time, e *entry[V], places []Footprint, err error) {
	o.running--
	if e.gone {
		o.finish()
		return
	}
	e.cancel()
	e.cancel = nil
	if err == nil {
		places, err = byRank(places)
	}
	if err != nil {
		o.failed(now, e, err)
		return
	}
	e.sized = true
	e.places, e.footprint = places, places[0]
	o.advance(now)
}

// loading books a step of e's load and tells those who follow it.
func (o *owner[V]) loading(e *entry[V], p Progress) {
	e.progress = p
	for _, steps := range e.followers {
		select {
		case steps <- struct{}{}:
		default: // one is due already, and it will see this
		}
	}
}

// loaded ends e's load: it hands a lease to everyone who waits, or the error.
func (o *owner[V]) loaded(now time.Time, e *entry[V], value V, actual Footprint, err error) {
	o.running--
	if o.loads[e.key]--; o.loads[e.key] == 0 {
		delete(o.loads, e.key)
	}
	e.cancel()
	e.cancel = nil
	if err == nil {
		err = actual.check()
	}
	if err != nil {
		o.ledger.unreserve(&e.footprint)
		o.occupied--
		o.failed(now, e, err)
		return
	}
	o.book(now, e, actual)
	e.value, e.loadedAt, e.loadTook = value, now, now.Sub(e.startedAt)
	bytes := actual.Whole().Total()
	if bytes > 0 {
		o.loadPace.add(e.loadTook.Seconds() / float64(bytes))
	}
	delete(o.cooling, e.key)
	if e.node == nil {
		e.node = o.curve.nodes[e.key]
	}
	o.curve.size(e.node, bytes)
	o.note(now, Event{Kind: EventLoaded, Key: e.key, Bytes: bytes, Took: e.loadTook})
	o.opts.Trace(TraceEvent{At: e.startedAt, Key: e.key, Load: e.loadTook, Footprint: &actual})
	e.state = Leased
	if e.drain {
		e.state = Draining
	}
	e.waiters.all(func(w *waiter[V]) bool {
		o.answer(w, o.lease(now, e, w.ask, w.how, now.Sub(w.at)), nil)
		return true
	})
	if e.leases.length == 0 { // everyone left while it was being loaded
		e.drain = true
		o.rest(now, e)
	} else if o.isLost(&e.footprint) {
		o.retire(now, e, ReasonLost)
	}
	o.advance(now)
}

// book replaces e's reservation by what it really takes.
func (o *owner[V]) book(now time.Time, e *entry[V], actual Footprint) {
	before := o.ledger.used()
	actual.Home, actual.Rank = e.footprint.Home, e.footprint.Rank
	o.ledger.book(&e.footprint, &actual)
	e.footprint = actual
	if drift := o.ledger.used().minus(before); drift != (Bytes{}) {
		o.note(now, Event{Kind: EventCorrected, Key: e.key, Bytes: drift.Total()})
	}
}

// failed ends an instance that has no value: everyone is told, unless it is worth one more try.
func (o *owner[V]) failed(now time.Time, e *entry[V], err error) {
	if o.elsewhere(now, e) {
		return
	}
	kind := o.opts.Classify(err)
	if kind == FailureNoRoom && e.state == Loading && !e.retried && e.waiters.length > 0 && !o.closed {
		o.tryAgain(now, e)
		return
	}
	event := Event{Kind: EventFailed, Key: e.key, Error: err.Error()}
	if e.stopped {
		event.Kind, event.Reason = EventStopped, e.reason
	} else {
		o.counters.loadFailures.Add(1)
		if kind != FailurePlain {
			event.Took = o.coolDown(now, e.key, err)
		}
	}
	o.note(now, event)
	o.fail(now, e, fmt.Errorf("load %q: %w", e.key, err))
	o.end(e)
	o.advance(now)
}

// tryAgain sends a load that ran out of memory back to the head of the queue, and everything idle there away.
func (o *owner[V]) tryAgain(now time.Time, e *entry[V]) {
	e.retried = true
	e.state = Reserving
	o.queue.pushFirst(e)
	o.idle.all(func(victim *entry[V]) bool {
		if !o.pinned(victim.key) && victim.footprint.Home == e.footprint.Home {
			o.evict(now, victim, ReasonCapacity, e.key, "")
		}
		return true
	})
	for other := range o.entries {
		if other.state == Freeing {
			e.after = append(e.after, other)
		}
	}
	o.advance(now)
}

// A residue is what a freed value has not given back.
type residue struct {
	key   string
	since time.Time
	bytes Bytes
	ask   func() Bytes
}

// freedNow ends e's free. What has not come back stays in the books until it has.
func (o *owner[V]) freedNow(now time.Time, e *entry[V], left Bytes, ask func() Bytes, err error) {
	o.running--
	o.counters.frees.Add(1)
	if err != nil {
		o.counters.freeFailures.Add(1)
	}
	held := e.held()
	o.ledger.unbook(&e.footprint)
	o.ledger.booked = o.ledger.booked.minus(e.footprint.Session.times(e.rooms - 1))
	event := Event{Kind: EventFreed, Key: e.key, Reason: e.reason, Bytes: held.Total()}
	if left != (Bytes{}) {
		o.ledger.unreturned = o.ledger.unreturned.plus(left)
		o.residues[&residue{key: e.key, since: now, bytes: left, ask: ask}] = struct{}{}
		event.Kind, event.Bytes = EventUnreturned, left.Total()
	}
	if err != nil {
		event.Error = err.Error()
	}
	o.note(now, event)
	o.occupied--
	o.end(e)
	close(e.freed)
	o.advance(now)
}

// returned books what a residue still holds.
func (o *owner[V]) returned(now time.Time, r *residue, left Bytes) {
	if _, open := o.residues[r]; !open || left == r.bytes {
		return
	}
	o.ledger.unreturned = o.ledger.unreturned.minus(r.bytes).plus(left)
	back := r.bytes.minus(left)
	r.bytes = left
	if left == (Bytes{}) {
		delete(o.residues, r)
	}
	o.note(now, Event{Kind: EventReturned, Key: r.key, Bytes: back.Total()})
	o.advance(now)
}

// cooling is a key whose load failed.
type cooling struct {
	until time.Time
	delay time.Duration
	err   error
}

// maxCooling bounds the keys remembered: a storm of failures must not fill the memory.
const maxCooling = 1024

// coolDown makes a key rest, each time twice as long as the time before.
func (o *owner[V]) coolDown(now time.Time, key string, err error) time.Duration {
	if o.opts.CoolDown <= 0 {
		return 0
	}
	c := o.cooling[key]
	if c == nil {
		if len(o.cooling) >= maxCooling {
			o.dropCooling(now)
		}
		c = &cooling{}
		o.cooling[key] = c
	}
	c.delay = max(o.opts.CoolDown, 2*c.delay)
	if o.opts.MaxCoolDown > 0 {
		c.delay = min(c.delay, o.opts.MaxCoolDown)
	}
	c.until, c.err = now.Add(c.delay), err
	return c.delay
}

// dropCooling forgets those that have rested, else the one that has soonest.
func (o *owner[V]) dropCooling(now time.Time) {
	soonest := ""
	for key, c := range o.cooling {
		if !c.until.After(now) {
			delete(o.cooling, key)
		} else if soonest == "" || c.until.Before(o.cooling[soonest].until) {
			soonest = key
		}
	}
	if len(o.cooling) >= maxCooling {
		delete(o.cooling, soonest)
	}
}

// coolingDown refuses a key that rests. One that has rested may be tried; its next failure counts on.
func (o *owner[V]) coolingDown(now time.Time, key string) *Refusal {
	c := o.cooling[key]
	if c == nil || !c.until.After(now) {
		return nil
	}
	return &Refusal{Key: key, Code: RefusedCooling, RetryAfter: c.until.Sub(now), Err: c.err}
}
