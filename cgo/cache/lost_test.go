package cache

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errBroken = errors.New("unspecified launch failure")

func devices(t *testing.T) *rig {
	return newPlaces(t, Options[int]{Pools: pool(50, 20, 10), CoolDown: epochStep},
		map[string][]Footprint{"a": either(4), "b": either(4), "c": {on(1, 4)}})
}

func lostCode(t *testing.T, err error) *Refusal {
	t.Helper()
	refused := new(Refusal)
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, RefusedLost, refused.Code)
	assert.ErrorIs(t, err, ErrLost)
	return refused
}

func TestValuesOfALostPoolGoAndAreLoadedElsewhere(t *testing.T) {
	r := devices(t)
	r.release(r.resident("a", Ask{}))
	b := r.resident("b", Ask{})
	assert.Equal(t, map[string]string{"a": "cuda0", "b": "cuda0"}, r.homes())
	require.True(t, r.o.lose(r.now, 1, "burnt"))
	require.False(t, r.o.lose(r.now, 1, "again"))
	r.collect()
	r.free("a", Bytes{}) // the idle one goes at once
	assert.Equal(t, []string{"b:draining"}, r.states())
	again := r.resident("b", Ask{})
	assert.Equal(t, map[string]string{"b": "cuda1"}, r.homes())
	r.release(b, again)
	r.settle()
	s := r.o.snapshot(r.now)
	assert.Equal(t, [2]string{"burnt", ""}, [2]string{s.Pools[1].Lost, s.Pools[2].Lost})
	assert.Equal(t, r.now, s.Pools[1].LostAt)
	assert.Zero(t, s.Pools[1].Booked)
}

func TestLoadOfALostPoolBeginsAgainElsewhere(t *testing.T) {
	r := devices(t)
	a := r.ask("a", Ask{})
	r.estimate("a")
	r.o.lose(r.now, 1, "burnt")
	r.waits(a)
	r.load("a", Footprint{}, errBroken)
	r.settle()
	r.release(r.served(a))
	assert.Equal(t, map[string]string{"a": "cuda1"}, r.homes())
	assert.Empty(t, r.o.cooling, "it was not the key's fault")
}

func TestValueThatIsReadyTooLateIsGivenOutAndNotKept(t *testing.T) {
	r := devices(t)
	a := r.ask("a", Ask{})
	r.estimate("a")
	r.o.lose(r.now, 1, "burnt")
	r.load("a", on(1, 4), nil)
	old := r.served(a)
	assert.Equal(t, []string{"a:draining"}, r.states())
	r.release(old)
	r.settle()
	assert.Empty(t, r.states())
}

func TestWaiterFindsTheNextPlaceAndTheLastOneIsRefused(t *testing.T) {
	r := devices(t)
	r.o.setBudget(r.now, 0, 1) // no room in host memory
	held := r.resident("a", Ask{})
	r.o.setBudget(r.now, 1, 4)
	r.o.setBudget(r.now, 2, 4)
	b := r.resident("b", Ask{})
	assert.Equal(t, map[string]string{"a": "cuda0", "b": "cuda1"}, r.homes())
	c := r.ask("c", Ask{}) // on cuda0 only
	r.settle()
	r.waits(c)
	r.o.lose(r.now, 1, "burnt")
	require.True(t, c.poll())
	assert.Equal(t, "cuda0", lostCode(t, c.err).Pool)
	assert.ErrorContains(t, c.err, "burnt")
	a := r.ask("a", Ask{})
	r.settle()
	r.waits(a) // for b's lease
	r.o.lose(r.now, 2, "burnt, too")
	require.True(t, a.poll())
	lostCode(t, a.err)
	r.release(held, b)
	r.settle()
	assert.Empty(t, r.states())
}

func TestSessionIsNotWaitedForInALostPool(t *testing.T) {
	place := on(1, 4)
	place.Session = In(1, 6)
	r := newPlaces(t, Options[int]{Pools: pool(50, 10, 10)}, map[string][]Footprint{"a": {place}})
	l := r.resident("a", Ask{})
	g, ok := r.o.enterSession(r.now, l)
	require.True(t, ok)
	require.Nil(t, g, "there is room for one")
	waits, _ := r.o.enterSession(r.now, l)
	require.NotNil(t, waits)
	r.o.lose(r.now, 1, "burnt")
	<-waits.answered
	lostCode(t, waits.err)
	later, _ := r.o.enterSession(r.now, l)
	<-later.answered
	lostCode(t, later.err)
	r.release(l)
	r.settle()
	assert.Equal(t, Bytes{}, r.o.ledger.used())
}

func TestPinnedKeyOfALostPoolIsCountedElsewhere(t *testing.T) {
	r := newPlaces(t, Options[int]{Pools: pool(5, 10, 10)}, nil)
	require.NoError(t, r.o.pin(r.now, "a", either(8)))
	r.o.lose(r.now, 1, "burnt")
	require.Error(t, r.o.pin(r.now, "b", either(8)), "a is to be on the other one now")
	lostCode(t, r.o.pin(r.now, "c", []Footprint{on(1, 1)}))
}

func TestNestedAskForALostPlaceIsToldSo(t *testing.T) {
	r := devices(t)
	r.o.lose(r.now, 1, "burnt")
	a := r.resident("a", Ask{})
	c := r.ask("c", Ask{}, a) // on cuda0 only
	r.settle()
	require.True(t, c.poll())
	lostCode(t, c.err) // and not that its own lease is in the way
	r.release(a)
}
