package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIdleValueGoesAfterItsKeepAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		c := s.cache(Options[*thing]{KeepAlive: time.Minute})
		mustAcquire(t, c, "a").Release()
		time.Sleep(time.Minute - time.Second)
		mustAcquire(t, c, "a").Release()
		mustAcquire(t, c, "b").Release()
		acquireAs(t.Context(), c, "long", Ask{KeepAlive: time.Hour}).give(t).Release()
		time.Sleep(time.Minute - time.Second)
		assert.Empty(t, s.gone(), "each use begins it anew")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.ElementsMatch(t, []string{"a", "b"}, s.gone())
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Contains(t, s.gone(), "long")
		assert.EqualValues(t, 3, c.Counters().ByReason[ReasonTTL])
		closed(t, c)
	})
}

func TestLeasedValueDoesNotExpire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		c := s.cache(Options[*thing]{KeepAlive: time.Minute})
		mustAcquire(t, c, "a").Release()
		lease := mustAcquire(t, c, "a")
		time.Sleep(time.Hour)
		assert.Empty(t, s.gone())
		lease.Release()
		closed(t, c)
	})
}

func TestAtOnceFreesAtTheLastRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		c := s.cache(Options[*thing]{})
		once := acquireAs(t.Context(), c, "a", Ask{KeepAlive: AtOnce}).give(t)
		once.Release()
		synctest.Wait()
		assert.Equal(t, []string{"a"}, s.gone())
		closed(t, c)
	})
}

func TestForeverStaysAndMakesRoomForOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{KeepAlive: time.Minute})
		acquireAs(t.Context(), c, "a", Ask{KeepAlive: Forever}).give(t).Release()
		time.Sleep(1000 * time.Hour)
		assert.Empty(t, s.gone())
		mustAcquire(t, c, "b").Release()
		assert.Equal(t, []string{"a"}, s.gone())
		closed(t, c)
	})
}

func TestPinnedValueStaysAndUnpinnedOneExpires(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{KeepAlive: time.Minute})
		require.NoError(t, c.Pin(t.Context(), "a"))
		mustAcquire(t, c, "a").Release()
		mustAcquire(t, c, "b").Release()
		mustAcquire(t, c, "c").Release()
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.ElementsMatch(t, []string{"b", "c"}, s.gone())
		assert.Equal(t, []string{"a"}, c.Snapshot().Pins)
		assert.True(t, c.Unpin("a"))
		assert.False(t, c.Unpin("a"))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Contains(t, s.gone(), "a")
		closed(t, c)
	})
}

func TestTooManyPinsAreRefusedWhenTheyAreMade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		opts := sized(6)
		opts.Pools[0].Budget = 10
		c := s.cache(opts)
		require.NoError(t, c.Pin(t.Context(), "a"))
		require.NoError(t, c.Pin(t.Context(), "a"), "again")
		var r *Refusal
		require.ErrorAs(t, c.Pin(t.Context(), "b"), &r)
		assert.Equal(t, &Refusal{Key: "b", Code: RefusedPinned, Pool: "ram", Need: 6, Budget: 10, Pinned: []string{"a"}}, r)
		closed(t, c)
	})
}

func TestFailedLoadCoolsDownLongerEachTimeUpToTheCap(t *testing.T) {
	r := newRig(t, Options[int]{CoolDown: 10 * time.Second, MaxCoolDown: 35 * time.Second}, nil)
	for _, delay := range []time.Duration{10, 20, 35, 35} {
		delay *= time.Second
		q := r.ask("a", Ask{})
		r.estimate("a")
		r.load("a", Footprint{}, assert.AnError)
		require.True(t, q.poll())
		require.ErrorIs(t, q.err, assert.AnError)
		r.now = r.now.Add(delay - time.Second)
		refused := r.ask("a", Ask{})
		var why *Refusal
		require.ErrorAs(t, refused.err, &why)
		assert.Equal(t, RefusedCooling, why.Code)
		assert.Equal(t, time.Second, why.RetryAfter)
		assert.ErrorIs(t, why, assert.AnError)
		r.now = r.now.Add(time.Second)
	}
	r.release(r.resident("a", Ask{}))
	r.o.clear(r.now, func(string) bool { return true }, false, ReasonAdmin)
	r.settle()
	r.ask("a", Ask{})
	r.estimate("a")
	r.load("a", Footprint{}, assert.AnError)
	r.now = r.now.Add(10 * time.Second)
	r.resident("a", Ask{}) // a success began the count anew
}

func TestKeysThatCoolDownAreBounded(t *testing.T) {
	r := newRig(t, Options[int]{CoolDown: time.Hour}, nil)
	for i := range 3 * maxCooling {
		key := string(rune('a' + i))
		r.ask(key, Ask{})
		r.o.estimated(r.now, r.take(doEstimate, key), nil, assert.AnError)
		r.now = r.now.Add(time.Second)
	}
	assert.Len(t, r.o.cooling, maxCooling)
}
