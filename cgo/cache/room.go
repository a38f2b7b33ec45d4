package cache

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// This file has the owner's decisions about room: who begins to load, who has to go for it, who waits.

// advance starts what can start. It is called after every change that may give room or need it: first those in the
// queue, in order, then sessions that wait on residents, then whatever is beyond its budget.
func (o *owner[V]) advance(now time.Time) {
	o.claims = Bytes{}
	o.claimed = 0
	o.blocked = nil
	o.serveNested(now)
	o.queue.all(func(e *entry[V]) bool {
		if e.nested == 0 && o.serve(now, e) != served {
			o.claim(e)
		}
		return true
	})
	o.growSessions(now)
	o.correct(now)
}

// service is what became of an instance in the queue.
type service uint8

const (
	served  service = iota // it has no claim: its load began, it was refused, or it waits for itself
	coming                 // it waits for frees that have begun
	waiting                // it waits for leases
)

// serve does what can be done for an instance in the queue.
func (o *owner[V]) serve(now time.Time, e *entry[V]) service {
	if !e.sized || o.loads[e.key] > 0 {
		return served // those behind pass
	}
	if r := o.place(now, e); r != nil {
		o.fail(now, e, r)
		o.end(e)
		return served
	}
	e.after = slices.DeleteFunc(e.after, func(other *entry[V]) bool { return other.gone })
	if len(e.after) > 0 { // they were in its way
		return coming
	}
	if o.slots()-o.claimed > 0 && o.ledger.fits(o.ledger.cost(&e.footprint), o.claims) {
		o.start(now, e)
		return served
	}
	return o.makeRoom(now, e)
}

// claim keeps e's room from those who are served after it.
func (o *owner[V]) claim(e *entry[V]) {
	o.claims = o.claims.plus(o.ledger.cost(&e.footprint))
	o.claimed++
}

// makeRoom evicts for e, the first of those whose claims are not met.
func (o *owner[V]) makeRoom(now time.Time, e *entry[V]) service {
	idle := o.candidates()
	s := o.situation(idle, o.claims, o.claimed)
	found := choose(&s, &e.footprint)
	if found.ok {
		runnerUp := ""
		if found.runnerUp >= 0 {
			runnerUp = idle[found.runnerUp].key
		}
		for _, i := range found.victims {
			o.evict(now, idle[i], ReasonCapacity, e.key, runnerUp)
		}
		return coming
	}
	if r := o.impossible(e.key, &e.footprint); r != nil {
		o.fail(now, e, r)
		o.end(e)
		return served
	}
	if o.blocked == nil {
		if !e.waiting {
			e.waiting = true
			o.note(now, Event{Kind: EventWaiting, Key: e.key, Bytes: e.footprint.Whole().Total(), Blockers: o.blockers(now, e)})
		}
		o.blocked = e
	}
	return waiting
}

// slots is how many instances may be added.
func (o *owner[V]) slots() int {
	if o.opts.MaxEntries < 1 {
		return math.MaxInt32
	}
	return o.opts.MaxEntries - o.occupied
}

// candidates lists the idle residents that may be evicted, least recently used first.
func (o *owner[V]) candidates() []*entry[V] {
	out := make([]*entry[V], 0, o.idle.length)
	o.idle.all(func(e *entry[V]) bool {
		if !o.pinned(e.key) {
			out = append(out, e)
		}
		return true
	})
	return out
}

// leaving says that e takes room only until its last release, or the end of its free or stopped load.
func (e *entry[V]) leaving() bool {
	return e.state == Freeing || e.drain || e.state == Loading && e.stopped
}

// stays says that nothing but an unpin makes e leave.
func (o *owner[V]) stays(e *entry[V]) bool { return o.pinned(e.key) && !e.leaving() }

func (o *owner[V]) pinned(key string) bool {
	_, pinned := o.pins[key]
	return pinned
}

// situation is what will be when everything that leaves by itself has left: what is being freed, and stopped loads.
func (o *owner[V]) situation(idle []*entry[V], claims Bytes, slots int) situation {
	return o.situationWithout(func(e *entry[V]) bool {
		return e.state == Freeing || e.state == Loading && e.stopped
	}, idle, claims, slots)
}

// situationWithout is what will be when the instances that leave does name have left.
func (o *owner[V]) situationWithout(leaves func(*entry[V]) bool, idle []*entry[V], claims Bytes, slots int) situation {
	s := situation{ledger: &o.ledger, used: o.ledger.used().plus(claims), slots: o.slots() - slots,
		holders: make(map[string]int, len(o.ledger.components))}
	for id, h := range o.ledger.components {
		s.holders[id] = h.holders
	}
	for e := range o.entries {
		if e.state == Reserving || !leaves(e) {
			continue
		}
		s.used = s.used.minus(e.held())
		s.slots++
		for _, c := range e.footprint.Shared {
			if s.holders[c.ID]--; s.holders[c.ID] == 0 {
				s.used = s.used.minus(o.ledger.components[c.ID].bytes)
			}
		}
	}
	for _, e := range idle {
		s.idle = append(s.idle, candidate{held: e.held(), shared: e.footprint.Shared})
	}
	return s
}

// start begins e's load.
func (o *owner[V]) start(now time.Time, e *entry[V]) {
	o.queue.remove(e)
	o.ledger.reserve(&e.footprint)
	e.state = Loading
	e.startedAt = now
	o.occupied++
	o.loads[e.key]++
	o.counters.loads.Add(1)
	o.note(now, Event{Kind: EventLoading, Key: e.key, Bytes: e.footprint.Whole().Total(), Took: now.Sub(e.queuedAt)})
	o.do(doLoad, e)
}

// correct evicts idle values while a pool, or the number of instances, is beyond its limit: a value took more than
// estimated, or a limit was lowered.
func (o *owner[V]) correct(now time.Time) {
	_, over := o.ledger.over(o.ledger.used())
	o.beyond = over || o.slots() < 0
	if !o.beyond {
		return
	}
	idle := o.candidates()
	for _, i := range least(o.situation(idle, Bytes{}, 0)).victims {
		o.evict(now, idle[i], ReasonConfig, "", "")
	}
}

// impossible says that key would not fit as f if everything that is not pinned were gone.
func (o *owner[V]) impossible(key string, f *Footprint) *Refusal {
	var pinned []string
	s := o.situationWithout(func(other *entry[V]) bool {
		if o.stays(other) {
			pinned = append(pinned, other.key)
			return false
		}
		return true
	}, nil, Bytes{}, 0)
	s.used = s.used.minus(o.ledger.unreturned) // it may come back
	w := weighing{situation: &s, f: f}
	over, fits := w.lack()
	if fits {
		return nil
	}
	r := &Refusal{Key: key, Code: RefusedTooLarge}
	whole := f.Whole()
	if _, alone := o.ledger.over(whole); !alone {
		slices.Sort(pinned)
		r.Code, r.Pinned = RefusedPinned, pinned
	}
	for i, pool := range o.ledger.pools {
		if over[i] > 0 {
			r.Pool, r.Need, r.Budget = pool.Name, whole[i], pool.Budget
			break
		}
	}
	return r
}

// mustYield says whether a resident that is asked for again is to go instead, a busy one at its last release: the first
// who waits for leases has waited long enough, the resident takes room that the first could use, and the first would
// still not fit when all that drain already have left.
func (o *owner[V]) mustYield(now time.Time, resident *entry[V]) bool {
	first := o.blocked
	if o.opts.Patience <= 0 || first == nil || now.Sub(first.queuedAt) < o.opts.Patience ||
		o.pinned(resident.key) || !o.inTheWay(first, resident) {
		return false
	}
	s := o.situationWithout((*entry[V]).leaving, o.candidates(), Bytes{}, 0)
	return !choose(&s, &first.footprint).ok
}

// blockers lists the leases that keep e, or the first in the queue, from its room, longest held first.
func (o *owner[V]) blockers(now time.Time, e *entry[V]) []Blocker {
	if e.state != Reserving || !e.sized {
		return nil
	}
	var out []Blocker
	for other := range o.entries {
		if !o.inTheWay(e, other) {
			continue
		}
		if other.leases.length == 0 { // it is being loaded, or pinned
			out = append(out, Blocker{Key: other.key, Holder: other.state.String()})
		}
		out = append(out, o.holders(now, other)...)
	}
	slices.SortFunc(out, func(a, b Blocker) int { return cmp.Compare(b.Held, a.Held) })
	return out
}

// inTheWay says whether other takes room that e could use.
func (o *owner[V]) inTheWay(e, other *entry[V]) bool {
	if other.state == Reserving || other == e {
		return false
	}
	if o.slots() <= 0 {
		return true
	}
	over, _ := o.ledger.short(o.ledger.used().plus(o.ledger.cost(&e.footprint)), e.footprint.Whole())
	held := other.footprint.Whole()
	for i := range over {
		if over[i] > 0 && held[i] > 0 {
			return true
		}
	}
	return false
}

func (o *owner[V]) holders(now time.Time, e *entry[V]) []Blocker {
	var out []Blocker
	e.leases.all(func(r *record[V]) bool {
		out = append(out, Blocker{Key: e.key, Holder: r.holder, Held: now.Sub(r.since)})
		return true
	})
	return out
}

// expectedWait is how long e may still take, by what was measured; at least a second, for nobody retries sooner.
func (o *owner[V]) expectedWait(now time.Time, e *entry[V]) time.Duration {
	load := o.loadPace.mean * float64(e.footprint.Whole().Total())
	var wait float64
	switch e.state {
	case Loading:
		wait = load - now.Sub(e.startedAt).Seconds()
	case Reserving:
		wait = load + o.holdPace.mean
	}
	return max(time.Second, time.Duration(wait*float64(time.Second)))
}
