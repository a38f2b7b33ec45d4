package cache

import (
	"cmp"
	"slices"
	"time"
)

// This file has the waiters that hold leases while they wait (Lease.Context). Others may wait for those leases, so
// the order of arrival alone could make two wait for each other for ever:
//
//	one holds a; the first in the queue waits for a; one asks for b, behind it
//	one holds a and asks for c, two holds b and asks for d; there is room for two

// serveNested serves the instances that such waiters wait for: before all others, and without regard to the claims of
// those among them that wait for leases.
func (o *owner[V]) serveNested(now time.Time) {
	if o.nested == 0 {
		return
	}
	o.untangle(now)
	var later []*entry[V]
	o.queue.all(func(e *entry[V]) bool {
		if e.nested > 0 {
			switch o.serve(now, e) {
			case coming:
				o.claim(e)
			case waiting:
				later = append(later, e)
			}
		}
		return true
	})
	for _, e := range later {
		o.claim(e)
	}
}

// untangle answers waiters, the latest first, until the others can all be served.
func (o *owner[V]) untangle(now time.Time) {
	for stuck := o.stuck(now); len(stuck) > 0; stuck = o.stuck(now) {
		w := slices.MaxFunc(stuck, func(a, b *waiter[V]) int { return cmp.Compare(a.arrival, b.arrival) })
		e := w.entry
		o.counters.refusals.Add(1)
		o.note(now, Event{Kind: EventRefused, Key: e.key, Holder: w.ask.Holder, Error: ErrSelfBlocked.Error()})
		o.answer(w, Lease[V]{}, ErrSelfBlocked)
		if e.waiters.length == 0 {
			o.end(e)
		}
	}
}

// stuck returns the waiters that cannot be served in any order, if each releases its leases only after it was served
// and all other leases are released in time (the banker's algorithm).
func (o *owner[V]) stuck(now time.Time) []*waiter[V] {
	var left []*waiter[V]
	o.queue.all(func(e *entry[V]) bool {
		if e.sized && e.nested > 0 {
			e.waiters.all(func(w *waiter[V]) bool {
				if len(w.outer) > 0 {
					left = append(left, w)
				}
				return true
			})
		}
		return true
	})
	for {
		at := slices.IndexFunc(left, func(w *waiter[V]) bool { return o.fitsBesideLeases(now, w.entry, left) })
		if at < 0 {
			return left
		}
		left = slices.Delete(left, at, at+1)
	}
}

// fitsBesideLeases says whether e fits when only what is pinned and what the waiters hold is left.
func (o *owner[V]) fitsBesideLeases(now time.Time, e *entry[V], waiters []*waiter[V]) bool {
	held := make(map[*entry[V]]bool)
	for _, w := range waiters {
		for _, l := range w.outer {
			if l.holds() {
				held[l.entry] = true
			}
		}
	}
	s := o.situationWithout(func(other *entry[V]) bool { return !held[other] && !o.stays(other) }, nil, Bytes{}, 0)
	s.used = s.used.minus(o.ledger.unreturned) // it may come back
	open, _ := o.open(now, e)
	return len(open) == 0 || slices.ContainsFunc(open, func(f *Footprint) bool { // or it is refused
		w := weighing{situation: &s, f: f}
		_, fits := w.lack()
		return fits
	})
}
