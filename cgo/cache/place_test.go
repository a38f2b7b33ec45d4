package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// on is a place: so many bytes in the pool it lives in.
func on(home int, bytes int64) Footprint { return Footprint{Own: In(home, bytes), Home: home} }

// last is a place of a higher rank.
func last(home int, bytes int64) Footprint {
	f := on(home, bytes)
	f.Rank = 1
	return f
}

// either are two devices, and host memory where neither can be had.
func either(bytes int64) []Footprint { return []Footprint{last(0, bytes), on(1, bytes), on(2, bytes)} }

func newPlaces(t *testing.T, opts Options[int], places map[string][]Footprint) *rig {
	r := newRig(t, opts, nil)
	r.places = places
	return r
}

// homes are the pools that residents live in.
func (r *rig) homes() map[string]string {
	out := make(map[string]string)
	for _, e := range r.o.snapshot(r.now).Entries {
		if e.State == Ready || e.State == Leased {
			out[e.Key] = e.Pool
		}
	}
	return out
}

func TestPlaceWithMostRoomIsTaken(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 20)}, map[string][]Footprint{"a": either(8), "b": either(7), "c": either(4)})
	for _, key := range []string{"a", "b", "c"} {
		r.release(r.resident(key, Ask{}))
	}
	assert.Equal(t, map[string]string{"a": "cuda1", "b": "cuda1", "c": "cuda0"}, r.homes())
}

func TestLoadsAtOneTimeSpread(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 10)}, map[string][]Footprint{"a": either(4), "b": either(4)})
	a, b := r.ask("a", Ask{}), r.ask("b", Ask{})
	r.settle()
	r.served(a)
	r.served(b)
	assert.Equal(t, map[string]string{"a": "cuda0", "b": "cuda1"}, r.homes())
}

func TestWhatWasUsedLongestAgoIsEvictedOnWhicheverDevice(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 10)}, map[string][]Footprint{"a": either(8), "b": either(8), "c": either(8)})
	a, b := r.resident("a", Ask{}), r.resident("b", Ask{})
	r.release(b, a)
	r.release(r.resident("c", Ask{}))
	assert.Equal(t, map[string]string{"a": "cuda0", "c": "cuda1"}, r.homes(), "b has rested longest")
}

func TestHigherRankIsTakenOnlyWhereNoLowerOneCanBeHad(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 10)},
		map[string][]Footprint{"a": either(8), "b": either(8), "c": either(8), "large": either(30)})
	a, b := r.resident("a", Ask{}), r.resident("b", Ask{})
	c := r.ask("c", Ask{})
	r.settle()
	r.waits(c) // for a lease: busy devices are no reason to be slow for long
	r.release(r.resident("large", Ask{}))
	assert.Equal(t, "ram", r.homes()["large"], "no device ever has the room")
	r.release(a)
	r.settle()
	r.served(c)
	assert.Equal(t, "cuda0", r.homes()["c"])
	r.release(b)
}

func TestPlaceOfAWaiterStaysWhileItWaits(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 12)}, map[string][]Footprint{"a": either(8), "b": either(8), "c": either(9)})
	r.resident("a", Ask{})
	r.resident("b", Ask{})
	c := r.ask("c", Ask{})
	r.settle()
	r.waits(c)
	assert.Equal(t, 2, r.o.queue.first.footprint.Home)
	r.o.setBudget(r.now, 1, 16) // more room than in the other one by now, but not enough
	r.waits(c)
	assert.Equal(t, 2, r.o.queue.first.footprint.Home, "whoever drains for it drains for something")
}

func TestLoadOutOfMemoryEvictsOnItsOwnDeviceOnly(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 10)}, map[string][]Footprint{"a": {on(1, 2)}, "b": {on(2, 2)}, "c": {on(2, 2)}})
	r.release(r.resident("a", Ask{}), r.resident("b", Ask{}))
	c := r.ask("c", Ask{})
	r.estimate("c")
	r.load("c", Footprint{}, errNoRoom)
	assert.Equal(t, map[string]string{"a": "cuda0"}, r.homes())
	r.settle()
	r.served(c)
}

func TestPlanSaysWhere(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 20)}, map[string][]Footprint{"a": either(15)})
	places, err := byRank(either(15))
	require.NoError(t, err)
	p := r.o.plan(r.now, "a", places)
	assert.Equal(t, "cuda1", p.Pool)
	assert.True(t, p.Fits)
	assert.EqualValues(t, 15, p.Needs[2])
}

func TestPinsAreSpreadOverPlaces(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(5, 10, 10)}, nil)
	require.NoError(t, r.o.pin(r.now, "a", either(8)))
	require.NoError(t, r.o.pin(r.now, "b", either(8)))
	var refused *Refusal
	require.ErrorAs(t, r.o.pin(r.now, "c", either(8)), &refused)
	assert.Equal(t, []string{"a", "b"}, refused.Pinned)
}

func TestEstimateWithoutAPlaceFails(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(5)}, map[string][]Footprint{"a": {}})
	a := r.ask("a", Ask{})
	r.estimate("a")
	require.True(t, a.poll())
	assert.ErrorIs(t, a.err, errNoPlace)
}
