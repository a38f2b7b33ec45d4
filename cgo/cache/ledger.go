package cache

import (
	"fmt"
	"math"
)

// MaxPools is the most memory pools a cache can have: the host and sixteen devices.
const MaxPools = 17

// Bytes is an amount of memory in each pool, in the order of Options.Pools.
type Bytes [MaxPools]int64

// Total is the sum over all pools.
func (b Bytes) Total() int64 {
	var sum int64
	for _, n := range b {
		sum += n
	}
	return sum
}

func (b Bytes) plus(other Bytes) Bytes {
	for i, n := range other {
		b[i] += n
	}
	return b
}

func (b Bytes) minus(other Bytes) Bytes {
	for i, n := range other {
		b[i] -= n
	}
	return b
}

func (b Bytes) times(n int) Bytes {
	for i := range b {
		b[i] *= int64(n)
	}
	return b
}

// In returns n bytes in one pool.
func In(pool int, n int64) Bytes {
	var b Bytes
	b[pool] = n
	return b
}

// Pool is one kind of memory with a budget of its own: host RAM, or one device's.
type Pool struct {
	Name   string
	Budget int64 // bytes; below 1: no limit
}

// Component is a part that several values hold together: it takes its bytes once, however many have it.
type Component struct {
	ID    string // the same for the same content in the same place
	Bytes Bytes
}

// Footprint is what one value takes in one place.
type Footprint struct {
	Own     Bytes       // what it shares with nobody
	Shared  []Component // each ID once
	Session Bytes       // for one request at work; every resident value keeps room for one
	Home    int         // the pool it lives in and is lost with; it may take room in others, too
	Rank    int         // of several places: one of a higher rank is taken only where none of a lower one can be had
}

// Whole is what the value takes when nobody else holds its components, room for one session included.
func (f *Footprint) Whole() Bytes {
	sum := f.Own.plus(f.Session)
	for _, c := range f.Shared {
		sum = sum.plus(c.Bytes)
	}
	return sum
}

func (f *Footprint) check() error {
	valid := func(b Bytes) bool {
		for _, n := range b {
			if n < 0 || n > math.MaxInt64/1024 {
				return false
			}
		}
		return true
	}
	if f.Home < 0 || f.Home >= MaxPools {
		return fmt.Errorf("footprint in pool %d; there are at most %d", f.Home, MaxPools)
	}
	if !valid(f.Own) || !valid(f.Session) {
		return fmt.Errorf("footprint %v, session %v is out of range", f.Own, f.Session)
	}
	for i, c := range f.Shared {
		if !valid(c.Bytes) {
			return fmt.Errorf("component %s: %v bytes is out of range", c.ID, c.Bytes)
		}
		for _, other := range f.Shared[:i] {
			if other.ID == c.ID {
				return fmt.Errorf("component %s is listed twice", c.ID)
			}
		}
	}
	return nil
}

// holding is a component in the ledger.
type holding struct {
	bytes   Bytes
	holders int // instances that take room
	loaded  int // of them, those whose load has ended
}

// ledger books what takes room in each pool. It only counts; who may take room is decided in room.go.
type ledger struct {
	pools      []Pool
	booked     Bytes // resident values, their components and sessions
	reserved   Bytes // running loads: what they may take
	unreturned Bytes // what freed values still hold, by their own account
	components map[string]*holding
}

func newLedger(pools []Pool) ledger {
	return ledger{pools: append([]Pool(nil), pools...), components: make(map[string]*holding)}
}

func (l *ledger) used() Bytes { return l.booked.plus(l.reserved).plus(l.unreturned) }

// cost is what f would add now.
func (l *ledger) cost(f *Footprint) Bytes {
	sum := f.Own.plus(f.Session)
	for _, c := range f.Shared {
		if l.components[c.ID] == nil {
			sum = sum.plus(c.Bytes)
		}
	}
	return sum
}

// over returns the pools' bytes beyond their budgets if used were taken.
func (l *ledger) over(used Bytes) (over Bytes, any bool) {
	for i, pool := range l.pools {
		if pool.Budget > 0 && used[i] > pool.Budget {
			over[i] = used[i] - pool.Budget
			any = true
		}
	}
	return over, any
}

// short is over for somebody who touches only some pools: one that is beyond its budget is not the others' matter.
func (l *ledger) short(used, touched Bytes) (short Bytes, any bool) {
	over, _ := l.over(used)
	for i, n := range touched {
		if n > 0 && over[i] > 0 {
			short[i] = over[i]
			any = true
		}
	}
	return short, any
}

// fits says whether there is room for need beside the claims of others.
func (l *ledger) fits(need, claims Bytes) bool {
	_, short := l.short(l.used().plus(claims).plus(need), need)
	return !short
}

// reserve books f as a running load.
func (l *ledger) reserve(f *Footprint) {
	l.reserved = l.reserved.plus(f.Own).plus(f.Session)
	for _, c := range f.Shared {
		l.hold(c)
	}
}

// hold adds a holder of a component, which is reserved until the first one is loaded.
func (l *ledger) hold(c Component) *holding {
	h := l.components[c.ID]
	if h == nil {
		h = &holding{bytes: c.Bytes}
		l.components[c.ID] = h
		l.reserved = l.reserved.plus(c.Bytes)
	}
	h.holders++
	return h
}

// unreserve ends a reservation: its load failed, or its value is booked.
func (l *ledger) unreserve(f *Footprint) {
	l.reserved = l.reserved.minus(f.Own).minus(f.Session)
	for _, c := range f.Shared {
		h := l.components[c.ID]
		if h.holders--; h.holders == 0 {
			l.reserved = l.reserved.minus(h.bytes)
			delete(l.components, c.ID)
		}
	}
}

// book turns the reservation of f into what the value really takes. A component has the size it was first loaded with.
func (l *ledger) book(f, actual *Footprint) {
	l.booked = l.booked.plus(actual.Own).plus(actual.Session)
	for _, c := range actual.Shared {
		h := l.hold(c)
		if h.loaded++; h.loaded == 1 {
			l.reserved = l.reserved.minus(h.bytes)
			h.bytes = c.Bytes
			l.booked = l.booked.plus(h.bytes)
		}
	}
	l.unreserve(f)
}

// unbook takes a freed value out.
func (l *ledger) unbook(f *Footprint) {
	l.booked = l.booked.minus(f.Own).minus(f.Session)
	for _, c := range f.Shared {
		h := l.components[c.ID]
		h.holders--
		if h.loaded--; h.loaded == 0 {
			l.booked = l.booked.minus(h.bytes)
			if h.holders == 0 {
				delete(l.components, c.ID)
			} else { // a load that counts on it still runs and will take it
				l.reserved = l.reserved.plus(h.bytes)
			}
		}
	}
}
