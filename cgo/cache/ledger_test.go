package cache

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Values are reserved, booked, and taken out again in random legal orders; after each step the ledger equals a recount.
func TestLedgerEqualsARecount(t *testing.T) {
	type held struct {
		f      Footprint
		booked bool
	}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 12))
		l := newLedger(pool(50, 50))
		var all []*held
		for range 60 {
			switch n := r.IntN(4); {
			case n < 2 || len(all) == 0:
				h := &held{f: randomFootprint(r)}
				l.reserve(&h.f)
				all = append(all, h)
			default:
				at := r.IntN(len(all))
				h := all[at]
				if !h.booked && n == 3 { // its load ends, with another size
					actual := randomFootprint(r)
					l.book(&h.f, &actual)
					h.f, h.booked = actual, true
					break
				}
				if h.booked {
					l.unbook(&h.f)
				} else {
					l.unreserve(&h.f)
				}
				all = slices.Delete(all, at, at+1)
			}
			var booked, reserved Bytes
			loaded := map[string]bool{}
			for _, h := range all {
				bytes := h.f.Own.plus(h.f.Session)
				if h.booked {
					booked = booked.plus(bytes)
				} else {
					reserved = reserved.plus(bytes)
				}
				for _, c := range h.f.Shared {
					loaded[c.ID] = loaded[c.ID] || h.booked
				}
			}
			for id, is := range loaded {
				if is {
					booked = booked.plus(partSizes[id])
				} else {
					reserved = reserved.plus(partSizes[id])
				}
			}
			if !assert.Equal(t, booked, l.booked, "seed %d", seed) || !assert.Equal(t, reserved, l.reserved, "seed %d", seed) {
				return
			}
		}
		for _, h := range all {
			if h.booked {
				l.unbook(&h.f)
			} else {
				l.unreserve(&h.f)
			}
		}
		assert.Zero(t, l.used(), "seed %d", seed)
		assert.Empty(t, l.components, "seed %d", seed)
	}
}

func TestComponentOfAFailedLoadStaysForTheOtherLoad(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(100)},
		map[string]Footprint{"a": with(own(10), "codec", 5), "b": with(own(20), "codec", 5)})
	r.ask("a", Ask{})
	b := r.ask("b", Ask{})
	r.estimate("a")
	r.estimate("b")
	assert.Equal(t, [3]int64{0, 35, 0}, r.books())
	r.load("a", Footprint{}, assert.AnError)
	assert.Equal(t, [3]int64{0, 25, 0}, r.books())
	r.settle()
	assert.Equal(t, [3]int64{25, 0, 0}, r.books())
	r.release(r.served(b))
}

func TestComponentOfAFreedValueIsKeptForALoadThatCountsOnIt(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(100)},
		map[string]Footprint{"a": with(own(10), "codec", 5), "b": with(own(20), "codec", 5)})
	a := r.resident("a", Ask{KeepAlive: AtOnce})
	b := r.ask("b", Ask{})
	r.estimate("b")
	r.release(a)
	r.free("a", Bytes{})
	assert.Equal(t, [3]int64{0, 25, 0}, r.books())
	r.settle()
	assert.Equal(t, [3]int64{25, 0, 0}, r.books())
	r.served(b)
}

func TestUnreturnedMemoryIsKeptOutOfTheBudgetUntilItIsBack(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"a": own(8), "b": own(5)})
	a := r.resident("a", Ask{KeepAlive: AtOnce})
	b := r.ask("b", Ask{})
	r.estimate("b")
	r.release(a)
	r.free("a", In(0, 6))
	r.settle()
	assert.Equal(t, [3]int64{0, 0, 6}, r.books())
	r.waits(b)
	for res := range r.o.residues {
		r.o.returned(r.now, res, In(0, 6))
		r.waits(b)
		r.o.returned(r.now, res, In(0, 1))
		r.o.returned(r.now, res, Bytes{})
		r.o.returned(r.now, res, In(0, 3)) // too late: it is closed
	}
	r.settle()
	r.served(b)
	assert.Equal(t, [3]int64{5, 0, 0}, r.books())
	assert.Equal(t, []EventKind{EventUnreturned, EventReturned, EventReturned}, kinds(r, EventUnreturned, EventReturned))
}

// kinds lists the events of some kinds, oldest first.
func kinds(r *rig, of ...EventKind) []EventKind {
	var out []EventKind
	for _, e := range r.o.journal.since(0) {
		if slices.Contains(of, e.Kind) {
			out = append(out, e.Kind)
		}
	}
	return out
}
