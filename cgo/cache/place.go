package cache

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// This file has where a value goes when there are several places for it, and what becomes of a pool that is lost.

// A lostPool takes nothing any more.
type lostPool struct {
	why   string
	since time.Time
}

// lose closes a pool for good: what lives there is given up, and what is being loaded there is loaded elsewhere once
// its load has failed. It is false for a pool that is lost already.
func (o *owner[V]) lose(now time.Time, pool int, why string) bool {
	if _, lost := o.lost[pool]; lost {
		return false
	}
	o.lost[pool] = lostPool{why: why, since: now}
	o.note(now, Event{Kind: EventLost, Pool: o.ledger.pools[pool].Name, Error: why})
	for _, e := range o.byUse() {
		if e.footprint.Home == pool && e.state != Loading {
			o.retire(now, e, ReasonLost)
		}
	}
	o.growths.all(func(g *growth[V]) bool {
		if g.entry.footprint.Home == pool {
			o.answerGrowth(g, o.lostRefusal(g.entry.key, pool))
		}
		return true
	})
	o.advance(now)
	return true
}

// isLost says that the pool f lives in is lost.
func (o *owner[V]) isLost(f *Footprint) bool {
	_, lost := o.lost[f.Home]
	return lost
}

func (o *owner[V]) lostRefusal(key string, pool int) *Refusal {
	return &Refusal{Key: key, Code: RefusedLost, Pool: o.ledger.pools[pool].Name, Why: o.lost[pool].why, Err: ErrLost}
}

// elsewhere sends a load that failed because its pool was lost back to the head of the queue; false when nobody waits.
func (o *owner[V]) elsewhere(now time.Time, e *entry[V]) bool {
	if !o.isLost(&e.footprint) || e.state != Loading || e.waiters.length == 0 || o.closed {
		return false
	}
	e.state = Reserving
	e.progress = Progress{}
	o.queue.pushFirst(e)
	o.advance(now)
	return true
}

// open returns the places that e can have now at all, those of the lowest rank that has any, or why there is none.
func (o *owner[V]) open(now time.Time, e *entry[V]) (places []*Footprint, why *Refusal) {
	for i := range e.places {
		f := &e.places[i]
		if len(places) > 0 && f.Rank > places[0].Rank {
			break
		}
		r := o.heldBack(now, e.key, f)
		if r == nil && len(e.places) > 1 { // of a single one it is asked when it does not fit
			r = o.impossible(e.key, f)
		}
		if r == nil {
			places = append(places, f)
		}
		why = cmp.Or(why, r)
	}
	return places, why
}

// place decides where e is to go, by what there is now. It refuses e when there is no place.
func (o *owner[V]) place(now time.Time, e *entry[V]) *Refusal {
	open, why := o.open(now, e)
	switch len(open) {
	case 0:
		return why
	case 1:
		e.footprint = *open[0]
		return nil
	}
	idle := o.candidates()
	s := o.situation(idle, o.claims, o.claimed)
	best, grades := open[0], o.grade(e, open[0], &s, idle)
	for _, f := range open[1:] {
		if g := o.grade(e, f, &s, idle); g.step < grades.step || g.step == grades.step && g.more > grades.more {
			best, grades = f, g
		}
	}
	e.footprint = *best
	return nil
}

// A grade is how well a place suits: the steps in order, then what counts within one.
type grade struct {
	step placeStep
	more int64 // the larger, the better
}

type placeStep uint8

const (
	placeFits   placeStep = iota // most room in its pool first
	placeComes                   // by what is being freed; likewise
	placeEvicts                  // whose victims have been used longest ago first
	placeWaits                   // for leases; where e waited before first, then most room
)

func (o *owner[V]) grade(e *entry[V], f *Footprint, s *situation, idle []*entry[V]) grade {
	room := o.roomIn(f.Home)
	if o.slots()-o.claimed > 0 && o.ledger.fits(o.ledger.cost(f), o.claims) {
		return grade{placeFits, room}
	}
	found := choose(s, f)
	switch {
	case found.ok && len(found.victims) == 0:
		return grade{placeComes, room}
	case found.ok:
		var used uint64
		for _, i := range found.victims {
			used = max(used, idle[i].use)
		}
		return grade{placeEvicts, -int64(used)}
	case f.Home == e.footprint.Home && e.waiting:
		return grade{placeWaits, math.MaxInt64}
	}
	return grade{placeWaits, room}
}

// roomIn is what a pool has left, which may be less than nothing.
func (o *owner[V]) roomIn(pool int) int64 {
	if pool >= len(o.ledger.pools) {
		return 0
	}
	budget := o.ledger.pools[pool].Budget
	if budget < 1 {
		budget = math.MaxInt64 / 2
	}
	return budget - o.ledger.used()[pool] - o.claims[pool]
}

// byRank checks the places that an estimate gave, and sorts them.
func byRank(places []Footprint) ([]Footprint, error) {
	if len(places) == 0 {
		return nil, errNoPlace
	}
	for i := range places {
		if err := places[i].check(); err != nil {
			return nil, err
		}
	}
	return slices.SortedStableFunc(slices.Values(places), func(a, b Footprint) int { return cmp.Compare(a.Rank, b.Rank) }), nil
}

// pinPlace is where a pinned key is counted beside the others in sum: where it lives, else the first place that fits.
func (o *owner[V]) pinPlace(key string, places []Footprint, sum *ledger) *Footprint {
	if e := o.current[key]; e != nil && e.resident() {
		return &e.footprint
	}
	var first *Footprint
	for i := range places {
		f := &places[i]
		if o.isLost(f) {
			continue
		}
		if sum.fits(sum.cost(f), Bytes{}) {
			return f
		}
		if first == nil {
			first = f
		}
	}
	return first
}
