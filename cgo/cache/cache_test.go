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
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A store makes values and checks what the cache does with them: one load per key at a time, every value freed
// once and never while leased, never more instances than the limit.
type store struct {
	t     testing.TB
	limit int

	mu      sync.Mutex
	loads   map[string]int
	loading map[string]bool
	live    int // loading, resident or being freed
	freed   []string
	gate    map[string]chan error // a load of this key waits for its result
	frees   chan struct{}         // when set, every free waits for one
}

type thing struct {
	key    string
	mu     sync.Mutex
	leases int
	freed  bool
}

func newStore(t testing.TB, limit int) *store {
	return &store{t: t, limit: limit, loads: map[string]int{}, loading: map[string]bool{}, gate: map[string]chan error{}}
}

func (s *store) hold(key string) chan error {
	s.gate[key] = make(chan error)
	return s.gate[key]
}

func (s *store) load(ctx context.Context, key string) (*thing, error) {
	s.mu.Lock()
	assert.False(s.t, s.loading[key], "two loads of %s at once", key)
	s.loading[key] = true
	s.loads[key]++
	s.live++
	if s.limit > 0 {
		assert.LessOrEqual(s.t, s.live, s.limit, "more instances than the limit")
	}
	gate := s.gate[key]
	s.mu.Unlock()
	var err error
	if gate != nil {
		select {
		case err = <-gate:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading[key] = false
	if err != nil {
		s.live--
		return nil, err
	}
	return &thing{key: key}, nil
}

func (s *store) free(key string, value *thing) error {
	value.mu.Lock()
	assert.Zero(s.t, value.leases, "freed while leased: %s", key)
	assert.False(s.t, value.freed, "freed twice: %s", key)
	value.freed = true
	value.mu.Unlock()
	if s.frees != nil {
		<-s.frees
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
	s.freed = append(s.freed, key)
	return nil
}

func (s *store) cache(opts Options[*thing]) *Cache[*thing] {
	opts.MaxEntries = s.limit
	if opts.Load == nil {
		opts.Load = s.load
	}
	opts.Free = s.free
	return New(opts)
}

// An attempt is an Acquire that runs on its own goroutine.
type attempt struct {
	lease  *Lease[*thing]
	err    error
	done   bool
	cancel context.CancelFunc
}

// acquire starts an Acquire and returns when it is done or waits. Call it inside a synctest bubble.
func acquire(c *Cache[*thing], key string) *attempt {
	ctx, cancel := context.WithCancel(context.Background())
	a := &attempt{cancel: cancel}
	go func() {
		defer cancel()
		a.lease, a.err = c.Acquire(ctx, key)
		a.done = true
	}()
	synctest.Wait()
	return a
}

func (a *attempt) give(t *testing.T) *Lease[*thing] {
	t.Helper()
	synctest.Wait()
	require.True(t, a.done, "still waiting")
	require.NoError(t, a.err)
	return a.lease
}

func mustAcquire(t *testing.T, c *Cache[*thing], key string) *Lease[*thing] {
	t.Helper()
	return acquire(c, key).give(t)
}

func closed(t *testing.T, c *Cache[*thing]) {
	t.Helper()
	require.NoError(t, c.Close(context.Background()))
	assert.Empty(t, c.Snapshot().Entries)
}

// bubble runs a test with a fake clock and goroutines that can be waited for.
func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func keys(s Snapshot) []string {
	var out []string
	for _, e := range s.Entries {
		out = append(out, fmt.Sprintf("%s:%s", e.Key, e.State))
	}
	return out
}

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
		assert.EqualValues(t, 1, c.Snapshot().LoadFailures)
		closed(t, c)
	})
}

func TestNewcomerWaitsForTheStoppedLoadOfItsKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 3)
		deaf := make(chan struct{})
		deafOnce := sync.OnceFunc(func() { <-deaf })
		c := s.cache(Options[*thing]{Load: func(_ context.Context, key string) (*thing, error) {
			value, err := s.load(context.Background(), key)
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
				Load:       func(context.Context, string) (int, error) { fail(); return 0, nil },
				Free:       func(string, int) error { return nil },
			})
			_, err := c.Acquire(t.Context(), "a")
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
			Load:       func(context.Context, string) (int, error) { return 0, nil },
			Free:       func(string, int) error { panic("boom") },
			Report:     func(_ string, err error) { reported = err },
		})
		for _, key := range []string{"a", "b"} {
			lease, err := c.Acquire(t.Context(), key)
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

func TestClearedValueIsFreedAtItsLastRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 3)
		c := s.cache(Options[*thing]{Bytes: func(*thing) int64 { return 7 }})
		mustAcquire(t, c, "idle").Release()
		used := mustAcquire(t, c, "used")
		usedToo := mustAcquire(t, c, "used")
		cleared := c.Clear()
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
		c.Clear()
		fresh := mustAcquire(t, c, "used")
		assert.NotSame(t, old.Value(), fresh.Value())
		late := acquire(c, "loading")
		gate <- nil
		first := loading.give(t)
		gate <- nil
		second := late.give(t)
		assert.NotSame(t, first.Value(), second.Value())
		for _, lease := range []*Lease[*thing]{old, fresh, first, second} {
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
		assert.Equal(t, []string{"a"}, c.Remove("a").Freed)
		assert.Empty(t, c.Remove("absent"))
		assert.Equal(t, []string{"b:ready"}, keys(c.Snapshot()))
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

func TestIdleVictimIsPreferredToADrainingOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		used := mustAcquire(t, c, "used")
		c.Clear()
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
		_, err = c.Acquire(t.Context(), "used")
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
		c := s.cache(Options[*thing]{Load: func(_ context.Context, key string) (*thing, error) {
			<-finish
			return s.load(context.Background(), key)
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

func TestEndedContextAcquiresNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Acquire(ctx, "a")
		assert.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, c.Snapshot().Loads)
		closed(t, c)
	})
}

func TestSnapshotTellsAgesAndBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{Bytes: func(*thing) int64 { return 100 }})
		a := acquire(c, "a")
		time.Sleep(2 * time.Second)
		gate <- nil
		lease := a.give(t)
		time.Sleep(3 * time.Second)
		lease.Release()
		time.Sleep(4 * time.Second)
		snapshot := c.Snapshot()
		assert.Equal(t, []Entry{{Key: "a", State: Ready, Bytes: 100, Age: 7 * time.Second, Idle: 4 * time.Second,
			LoadTook: 2 * time.Second}}, snapshot.Entries)
		assert.EqualValues(t, 100, snapshot.Bytes)
		assert.Equal(t, 1, snapshot.Resident)
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
