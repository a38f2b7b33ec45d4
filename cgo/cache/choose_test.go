package cache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A small random situation, whose every set of victims can be tried.
type puzzle struct {
	ledger ledger
	busy   []Footprint
	idle   []Footprint
	limit  int
	f      Footprint
}

var partSizes = map[string]Bytes{"codec": In(0, 3), "voices": {2, 4}}

func randomFootprint(r *rand.Rand) Footprint {
	f := own(int64(r.IntN(6)), int64(r.IntN(6)))
	f.Session = In(r.IntN(2), int64(r.IntN(2)))
	for id, bytes := range partSizes {
		if r.IntN(3) == 0 {
			f.Shared = append(f.Shared, Component{ID: id, Bytes: bytes})
		}
	}
	return f
}

func newPuzzle(r *rand.Rand) *puzzle {
	p := &puzzle{ledger: newLedger(pool(int64(5+r.IntN(20)), int64(r.IntN(25)))), limit: r.IntN(7), f: randomFootprint(r)}
	for range r.IntN(3) {
		p.busy = append(p.busy, randomFootprint(r))
	}
	for range r.IntN(7) {
		p.idle = append(p.idle, randomFootprint(r))
	}
	for _, f := range append(p.busy, p.idle...) {
		p.ledger.reserve(&f)
		p.ledger.book(&f, &f)
	}
	return p
}

func (p *puzzle) situation() *situation {
	s := &situation{ledger: &p.ledger, used: p.ledger.used(), holders: map[string]int{}, slots: 1000}
	if p.limit > 0 {
		s.slots = p.limit - len(p.busy) - len(p.idle)
	}
	for id, h := range p.ledger.components {
		s.holders[id] = h.holders
	}
	for _, f := range p.idle {
		s.idle = append(s.idle, candidate{held: f.Own.plus(f.Session), shared: f.Shared})
	}
	return s
}

// fits adds everything up again: the bytes of those that stay and of f, each component once.
func (p *puzzle) fits(out int, f *Footprint) bool {
	stay := append([]Footprint{}, p.busy...)
	for i, idle := range p.idle {
		if out>>i&1 == 0 {
			stay = append(stay, idle)
		}
	}
	touched := Bytes{1, 1}
	if f != nil {
		stay = append(stay, *f)
		touched = f.Whole()
	}
	if p.limit > 0 && len(stay) > p.limit {
		return false
	}
	var used Bytes
	seen := map[string]bool{}
	for _, each := range stay {
		used = used.plus(each.Own).plus(each.Session)
		for _, c := range each.Shared {
			if !seen[c.ID] {
				seen[c.ID] = true
				used = used.plus(c.Bytes)
			}
		}
	}
	for i, pool := range p.ledger.pools {
		if touched[i] > 0 && pool.Budget > 0 && used[i] > pool.Budget {
			return false
		}
	}
	return true
}

func TestChoiceFitsIsMinimalAndMissesNothing(t *testing.T) {
	for seed := range uint64(20_000) {
		p := newPuzzle(rand.New(rand.NewPCG(seed, 9)))
		f := &p.f
		if seed%4 == 0 {
			f = nil
		}
		found := choose(p.situation(), f)
		possible := false
		for out := range 1 << len(p.idle) {
			possible = possible || p.fits(out, f)
		}
		if !assert.Equal(t, possible, found.ok, "seed %d: a solution exists", seed) || !found.ok {
			continue
		}
		set := 0
		for _, i := range found.victims {
			set |= 1 << i
		}
		assert.True(t, p.fits(set, f), "seed %d: the victims suffice", seed)
		for _, i := range found.victims {
			assert.False(t, p.fits(set&^(1<<i), f), "seed %d: victim %d is needed", seed, i)
		}
		assert.Equal(t, set == 1<<len(p.idle)-1, found.runnerUp < 0, "seed %d", seed)
		if found.runnerUp >= 0 {
			assert.Zero(t, set>>found.runnerUp&1, "seed %d: the runner-up is spared", seed)
			assert.Equal(t, 1<<found.runnerUp-1, set&(1<<found.runnerUp-1), "seed %d: all before it go", seed)
		}
	}
}

func TestEqualValuesGoLeastRecentlyUsedFirst(t *testing.T) {
	for seed := range uint64(2_000) {
		r := rand.New(rand.NewPCG(seed, 10))
		n, each := 1+r.IntN(8), int64(1+r.IntN(5))
		p := &puzzle{ledger: newLedger(pool(int64(n) * each)), f: own(int64(1 + r.IntN(n*int(each))))}
		for range n {
			f := own(each)
			p.idle = append(p.idle, f)
			p.ledger.reserve(&f)
			p.ledger.book(&f, &f)
		}
		found := choose(p.situation(), &p.f)
		var first []int
		for i := range int((p.f.Own[0] + each - 1) / each) {
			first = append(first, i)
		}
		assert.Equal(t, first, found.victims, "seed %d", seed)
	}
}

func TestLeastLeavesAsLittleAsPossibleBeyondTheLimits(t *testing.T) {
	for seed := range uint64(20_000) {
		p := newPuzzle(rand.New(rand.NewPCG(seed, 11)))
		s := p.situation()
		found := least(*s)
		assert.True(t, found.ok, "seed %d", seed)
		all := weighing{situation: s, out: make([]bool, len(s.idle)), dropped: map[string]int{}}
		chosen := weighing{situation: s, out: make([]bool, len(s.idle)), dropped: map[string]int{}}
		for i := range s.idle {
			all.set(i, true)
		}
		for _, i := range found.victims {
			chosen.set(i, true)
		}
		best, _ := all.lack()
		got, _ := chosen.lack()
		assert.Equal(t, best, got, "seed %d", seed)
	}
}

func TestVictimThatHoldsTheNewcomersComponentFreesOnlyTheRest(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)},
		map[string]Footprint{"old": with(own(4), "codec", 5), "new": with(own(5), "codec", 5)})
	r.release(r.resident("old", Ask{}))
	r.release(r.resident("new", Ask{}))
	assert.Equal(t, []string{"new:ready"}, r.states())
	assert.Equal(t, [3]int64{10, 0, 0}, r.books())
	r.sizes["larger"] = with(own(6), "codec", 5)
	larger := r.ask("larger", Ask{})
	r.settle()
	assert.True(t, larger.poll())
	assert.ErrorContains(t, larger.err, "whose budget is 10", fmt.Sprint(r.states()))
}
