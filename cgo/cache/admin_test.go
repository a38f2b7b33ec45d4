package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestClearedValueIsFreedAtItsLastRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 3)
		c := s.cache(sized(7))
		mustAcquire(t, c, "idle").Release()
		used := mustAcquire(t, c, "used")
		usedToo := mustAcquire(t, c, "used")
		cleared := c.Clear(context.Background(), false)
		assert.Equal(t, Cleared{Freed: []string{"idle"}, Draining: []string{"used"}, Bytes: 7}, cleared)
		assert.Equal(t, []string{"idle"}, s.freed, "freed when Clear returned")
		used.Release()
		assert.Equal(t, []string{"used:draining"}, keys(c.Snapshot()))
		usedToo.Release()
		synctest.Wait()
		assert.Equal(t, []string{"idle", "used"}, s.freed)
		closed(t, c)
	})
}

func TestWhatIsAcquiredAfterClearIsLoadedAfterClear(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 4)
		gate := s.hold("loading")
		c := s.cache(Options[*thing]{})
		old := mustAcquire(t, c, "used")
		loading := acquire(c, "loading")
		c.Clear(context.Background(), false)
		fresh := mustAcquire(t, c, "used")
		assert.NotSame(t, old.Value(), fresh.Value())
		late := acquire(c, "loading")
		gate <- nil
		first := loading.give(t)
		gate <- nil
		second := late.give(t)
		assert.NotSame(t, first.Value(), second.Value())
		for _, lease := range []Lease[*thing]{old, fresh, first, second} {
			lease.Release()
		}
		closed(t, c)
	})
}

func TestRemoveTakesOneKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 3)
		c := s.cache(Options[*thing]{})
		mustAcquire(t, c, "a").Release()
		mustAcquire(t, c, "b").Release()
		assert.Equal(t, []string{"a"}, c.Remove(context.Background(), "a", false).Freed)
		assert.Empty(t, c.Remove(context.Background(), "absent", false))
		assert.Equal(t, []string{"b:ready"}, keys(c.Snapshot()))
		closed(t, c)
	})
}

func TestIdleVictimIsPreferredToADrainingOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		used := mustAcquire(t, c, "used")
		c.Clear(context.Background(), false)
		mustAcquire(t, c, "idle").Release()
		mustAcquire(t, c, "new").Release()
		assert.Equal(t, []string{"idle"}, s.freed)
		used.Release()
		closed(t, c)
	})
}

func TestCloseAnswersWaitersAndWaitsForLeases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		s.hold("loading")
		c := s.cache(Options[*thing]{})
		used := mustAcquire(t, c, "used")
		loading, queued := acquire(c, "loading"), acquire(c, "queued")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Close(ctx)
		synctest.Wait()
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "used (draining, 1 leases)")
		assert.ErrorIs(t, loading.err, ErrClosed)
		assert.ErrorIs(t, queued.err, ErrClosed)
		_, err = c.Acquire(t.Context(), "used", Ask{})
		assert.ErrorIs(t, err, ErrClosed)
		used.Release()
		closed(t, c)
		closed(t, c)
	})
}

func TestCloseFreesTheValueOfALoadThatDidNotStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		finish := make(chan struct{})
		c := s.cache(Options[*thing]{Load: func(_ context.Context, key string, _ int, _ func(int64, int64)) (*thing, error) {
			<-finish
			return s.load(context.Background(), key, 0, nil)
		}})
		a := acquire(c, "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Error(t, c.Close(ctx))
		synctest.Wait()
		assert.ErrorIs(t, a.err, ErrClosed)
		close(finish)
		closed(t, c)
		assert.Equal(t, []string{"a"}, s.freed)
	})
}

func TestSnapshotTellsAgesAndBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		gate := s.hold("a")
		c := s.cache(sized(100))
		a := acquire(c, "a")
		time.Sleep(2 * time.Second)
		gate <- nil
		lease := a.give(t)
		time.Sleep(3 * time.Second)
		lease.Release()
		time.Sleep(4 * time.Second)
		snapshot := c.Snapshot()
		assert.Equal(t, []Entry{{Key: "a", State: Ready, Pool: "ram", Own: In(0, 100), Rooms: 1, Age: 7 * time.Second,
			Idle: 4 * time.Second, Expires: -1, LoadTook: 2 * time.Second, Evictable: true}}, snapshot.Entries)
		assert.EqualValues(t, 100, snapshot.Pools[0].Booked)
		assert.Equal(t, 1, snapshot.Resident)
		closed(t, c)
	})
}
