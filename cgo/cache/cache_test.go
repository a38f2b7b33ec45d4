package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHitReturnsTheResidentValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		first := mustAcquire(t, c, "a")
		second := mustAcquire(t, c, "a")
		assert.Same(t, first.Value(), second.Value())
		assert.Equal(t, 1, s.loads["a"])
		first.Release()
		second.Release()
		snapshot := c.Snapshot()
		assert.EqualValues(t, 1, snapshot.Hits)
		assert.EqualValues(t, 1, snapshot.Misses)
		closed(t, c)
	})
}

func TestManyAcquirersShareOneLoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		var attempts []*attempt
		for range 50 {
			attempts = append(attempts, acquire(c, "a"))
		}
		assert.Equal(t, 50, c.Snapshot().Waiting)
		gate <- nil
		for _, a := range attempts {
			a.give(t).Release()
		}
		assert.Equal(t, 1, s.loads["a"])
		assert.EqualValues(t, 49, c.Snapshot().Joins)
		closed(t, c)
	})
}

func TestWhoHasToWaitIsToldBeforeIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		var told int
		wait := func() {
			lease, err := c.Acquire(context.Background(), "a", Ask{Waits: func() { told++ }})
			require.NoError(t, err)
			lease.Release()
		}
		go wait()
		synctest.Wait()
		assert.Equal(t, 1, told, "its load has not ended")
		gate <- nil
		synctest.Wait()
		wait()
		assert.Equal(t, 1, told, "a hit does not wait")
		closed(t, c)
	})
}

func TestLeastRecentlyUsedIdleValueIsEvicted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		mustAcquire(t, c, "a").Release()
		mustAcquire(t, c, "b").Release()
		mustAcquire(t, c, "a").Release()
		mustAcquire(t, c, "c").Release()
		assert.Equal(t, []string{"b"}, s.freed)
		assert.Equal(t, []string{"a:ready", "c:ready"}, keys(c.Snapshot()))
		assert.EqualValues(t, 1, c.Snapshot().Evictions)
		closed(t, c)
	})
}

func TestLeasedValueIsNotEvicted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		a := mustAcquire(t, c, "a")
		mustAcquire(t, c, "b").Release()
		mustAcquire(t, c, "c").Release()
		assert.Equal(t, []string{"b"}, s.freed)
		a.Release()
		closed(t, c)
	})
}

func TestWaitersAreServedInOrderOfArrival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{})
		a := mustAcquire(t, c, "a")
		b, d := acquire(c, "b"), acquire(c, "d")
		assert.Equal(t, []string{"a:leased", "b:reserving", "d:reserving"}, keys(c.Snapshot()))
		a.Release()
		lease := b.give(t)
		assert.False(t, d.done)
		lease.Release()
		d.give(t).Release()
		assert.Equal(t, []string{"a", "b"}, s.freed)
		closed(t, c)
	})
}

func TestLoadWaitsUntilTheVictimIsFreed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		s.frees = make(chan struct{})
		c := s.cache(Options[*thing]{})
		mustAcquire(t, c, "a").Release()
		b := acquire(c, "b")
		assert.Equal(t, []string{"a:freeing", "b:reserving"}, keys(c.Snapshot()))
		s.frees <- struct{}{}
		b.give(t).Release()
		close(s.frees)
		closed(t, c)
	})
}

func TestWaitForRoomEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{})
		a := mustAcquire(t, c, "a")
		b, d := acquire(c, "b"), acquire(c, "d")
		b.cancel()
		synctest.Wait()
		assert.ErrorIs(t, b.err, context.Canceled)
		a.Release()
		d.give(t).Release()
		assert.Zero(t, s.loads["b"])
		closed(t, c)
	})
}

func TestOneWaitersCancelAffectsNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		first, second := acquire(c, "a"), acquire(c, "a")
		first.cancel()
		synctest.Wait()
		assert.ErrorIs(t, first.err, context.Canceled)
		gate <- nil
		second.give(t).Release()
		assert.Equal(t, 1, s.loads["a"])
		closed(t, c)
	})
}

func TestLastWaitersCancelStopsTheLoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		s.hold("a")
		c := s.cache(Options[*thing]{})
		first, second := acquire(c, "a"), acquire(c, "a")
		first.cancel()
		second.cancel()
		synctest.Wait()
		assert.True(t, first.done && second.done)
		assert.Empty(t, c.Snapshot().Entries)
		assert.EqualValues(t, 1, c.Snapshot().Loads)
		assert.Zero(t, c.Snapshot().LoadFailures, "a stopped load is no failure")
		closed(t, c)
	})
}

func TestNewcomerWaitsForTheStoppedLoadOfItsKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 3)
		deaf := make(chan struct{})
		deafOnce := sync.OnceFunc(func() { <-deaf })
		c := s.cache(Options[*thing]{Load: func(_ context.Context, key string, _ int, _ func(int64, int64)) (*thing, error) {
			value, err := s.load(context.Background(), key, 0, nil)
			if key == "a" {
				deafOnce()
			}
			return value, err
		}})
		stopped := acquire(c, "a")
		stopped.cancel()
		synctest.Wait()
		again, other := acquire(c, "a"), acquire(c, "b")
		other.give(t).Release()
		assert.False(t, again.done)
		close(deaf)
		again.give(t).Release()
		assert.Equal(t, []string{"a"}, s.freed, "the value nobody waited for")
		closed(t, c)
	})
}

func TestKeyThatWaitsForItselfEvictsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 3)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		mustAcquire(t, c, "idle").Release()
		before := acquire(c, "a")
		c.Remove(context.Background(), "a", false)
		after := acquire(c, "a")
		assert.Equal(t, []string{"idle:ready", "a:loading", "a:reserving"}, keys(c.Snapshot()))
		gate <- nil
		gate <- nil
		before.give(t).Release()
		after.give(t).Release()
		assert.NotContains(t, s.freed, "idle")
		closed(t, c)
	})
}

func TestFailedLoadIsToldToAllAndNotKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		first, second := acquire(c, "a"), acquire(c, "a")
		broken := errors.New("broken file")
		gate <- broken
		synctest.Wait()
		assert.ErrorIs(t, first.err, broken)
		assert.ErrorIs(t, second.err, broken)
		assert.ErrorContains(t, first.err, `load "a"`)
		retry := acquire(c, "a")
		gate <- nil
		retry.give(t).Release()
		closed(t, c)
	})
}

func TestFailedLoadGivesItsRoomToTheNext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		a, b := acquire(c, "a"), acquire(c, "b")
		gate <- errors.New("broken")
		b.give(t).Release()
		assert.Error(t, a.err)
		closed(t, c)
	})
}

func TestPanicInLoadBecomesAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, fail := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
			c := New(Options[int]{
				MaxEntries: 1,
				Load:       func(context.Context, string, int, func(int64, int64)) (int, error) { fail(); return 0, nil },
				Free:       func(string, int) (func() Bytes, error) { return nil, nil },
			})
			_, err := c.Acquire(t.Context(), "a", Ask{})
			require.Error(t, err, name)
			if name == "panic" {
				var panicked *PanicError
				require.ErrorAs(t, err, &panicked)
				assert.Equal(t, "boom", panicked.Value)
			}
			require.NoError(t, c.Close(t.Context()))
		}
	})
}

func TestPanicInFreeIsReportedAndGivesRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var reported error
		c := New(Options[int]{
			MaxEntries: 1,
			Load:       func(context.Context, string, int, func(int64, int64)) (int, error) { return 0, nil },
			Free:       func(string, int) (func() Bytes, error) { panic("boom") },
			Report:     func(_ string, err error) { reported = err },
		})
		for _, key := range []string{"a", "b"} {
			lease, err := c.Acquire(t.Context(), key, Ask{})
			require.NoError(t, err)
			lease.Release()
		}
		synctest.Wait()
		assert.ErrorContains(t, reported, `free "a": panic: boom`)
		assert.EqualValues(t, 1, c.Snapshot().FreeFailures)
		require.NoError(t, c.Close(t.Context()))
	})
}

func TestReleaseCountsOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{})
		first, second := mustAcquire(t, c, "a"), mustAcquire(t, c, "a")
		first.Release()
		first.Release()
		assert.Equal(t, 1, c.Snapshot().Leases)
		second.Release()
		closed(t, c)
	})
}

func TestBusyResidentYieldsToAWaiterOutOfPatience(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{Patience: time.Minute})
		a := mustAcquire(t, c, "a")
		b := acquire(c, "b")
		overtaking := mustAcquire(t, c, "a")
		a.Release()
		time.Sleep(time.Minute)
		behind := acquire(c, "a")
		assert.False(t, behind.done, "a new lease would starve b")
		overtaking.Release()
		lease := b.give(t)
		assert.False(t, behind.done)
		lease.Release()
		behind.give(t).Release()
		closed(t, c)
	})
}

func TestEndedContextAcquiresNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Acquire(ctx, "a", Ask{})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, c.Snapshot().Loads)
		closed(t, c)
	})
}

func TestNoLimitEvictsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		c := s.cache(Options[*thing]{})
		for i := range 20 {
			mustAcquire(t, c, fmt.Sprint(i)).Release()
		}
		assert.Equal(t, 20, c.Snapshot().Resident)
		closed(t, c)
	})
}
