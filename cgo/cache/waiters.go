package cache

import "time"

// This file has those who wait for an instance: how they come, are answered, and leave.

// join makes a waiter for e.
func (o *owner[V]) join(now time.Time, e *entry[V], ask Ask, how Outcome, outer []Lease[V]) *waiter[V] {
	o.arrivals++
	w := &waiter[V]{entry: e, ask: ask, outer: outer, how: how, at: now, arrival: o.arrivals, answered: make(chan struct{})}
	e.waiters.push(w)
	if len(outer) > 0 {
		e.nested++
		o.nested++
	}
	return w
}

// part takes a waiter from its instance.
func (o *owner[V]) part(w *waiter[V]) {
	w.entry.waiters.remove(w)
	if len(w.outer) > 0 {
		w.entry.nested--
		o.nested--
	}
}

// answer answers one waiter.
func (o *owner[V]) answer(w *waiter[V], l Lease[V], err error) {
	o.part(w)
	w.lease, w.err = l, err
	close(w.answered)
}

// fail tells everyone who waits for e that it will not come.
func (o *owner[V]) fail(now time.Time, e *entry[V], err error) {
	o.forget(e)
	if r, ok := err.(*Refusal); ok {
		o.counters.refusals.Add(uint64(e.waiters.length))
		o.noteRefusal(now, r, e.waiters.first)
	}
	e.waiters.all(func(w *waiter[V]) bool {
		o.answer(w, Lease[V]{}, err)
		return true
	})
}

func (o *owner[V]) noteRefusal(now time.Time, r *Refusal, first *waiter[V]) {
	event := Event{Kind: EventRefused, Key: r.Key, Pool: r.Pool, Bytes: r.Need, Took: r.RetryAfter, Blockers: r.Blockers,
		Error: r.Error()}
	if first != nil {
		event.Holder = first.ask.Holder
	}
	o.note(now, event)
}

// leave takes back a waiter whose context ended with cause. If it was answered meanwhile its lease is given back.
func (o *owner[V]) leave(now time.Time, w *waiter[V], cause error) error {
	select {
	case <-w.answered:
		if w.err != nil {
			return w.err
		}
		o.release(now, w.lease)
		if cause == nil {
			return nil
		}
		return &Refusal{Key: w.entry.key, Code: RefusedWaiting, RetryAfter: time.Second, Err: cause}
	default:
	}
	e := w.entry
	err := &Refusal{Key: e.key, Code: RefusedWaiting, RetryAfter: o.expectedWait(now, e), Blockers: o.blockers(now, e), Err: cause}
	o.part(w)
	switch {
	case e.waiters.length == 0:
		o.abandon(now, e)
	case len(w.outer) > 0: // the others wait in order of arrival again
		o.advance(now)
	}
	return err
}

// abandon gives up an instance that nobody waits for any more.
func (o *owner[V]) abandon(now time.Time, e *entry[V]) {
	o.forget(e)
	e.stopped = true
	e.reason = ReasonAbandoned
	if e.cancel != nil {
		e.cancel()
	}
	if e.state == Reserving {
		o.end(e)
	}
	o.advance(now) // what it claimed is there for those behind it
}
