package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Random callers acquire, cancel, clear and remove while loads fail, panic and take their time. The store checks
// every invariant at each load and free; at the end everyone was answered and everything was freed.
func TestInvariantsHoldUnderRandomUse(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 0} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprintf("limit=%d/seed=%d", limit, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { randomUse(t, limit, seed) })
			})
		}
	}
}

func randomUse(t *testing.T, limit int, seed uint64) {
	s := newStore(t, limit)
	var fates sync.Mutex
	fate := rand.New(rand.NewPCG(seed, 1))
	draw := func(n int) int {
		fates.Lock()
		defer fates.Unlock()
		return fate.IntN(n)
	}
	load := func(ctx context.Context, key string) (*thing, error) {
		if draw(4) == 0 { // a load that does not listen
			ctx = context.WithoutCancel(ctx)
		}
		s.mu.Lock()
		gate := make(chan error, 1)
		s.gate[key] = gate
		s.mu.Unlock()
		how := draw(8)
		time.AfterFunc(time.Duration(draw(10))*time.Millisecond, func() {
			if how == 0 {
				gate <- fmt.Errorf("bad luck")
			} else {
				gate <- nil
			}
		})
		return s.load(ctx, key)
	}
	c := s.cache(Options[*thing]{Patience: 20 * time.Millisecond, Load: load})
	var callers sync.WaitGroup
	for i := range 24 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)+2))
			for range 60 {
				randomCall(c, random)
			}
		})
	}
	callers.Wait()
	snapshot := c.Snapshot()
	assert.Zero(t, snapshot.Leases)
	assert.Zero(t, snapshot.Waiting)
	require.NoError(t, c.Close(context.Background()))
	snapshot = c.Snapshot()
	assert.Zero(t, s.live)
	assert.Equal(t, snapshot.Loads, snapshot.LoadFailures+snapshot.Frees)
	assert.Empty(t, snapshot.Entries)
	assert.Zero(t, c.occupied)
	assert.Equal(t, [exits]int{}, c.leaving)
	assert.Zero(t, c.idle.length)
	assert.Empty(t, c.loading)
}

func randomCall(c *Cache[*thing], random *rand.Rand) {
	switch random.IntN(40) {
	case 0:
		c.Clear()
		return
	case 1:
		c.Remove(fmt.Sprint(random.IntN(5)))
		return
	case 2:
		c.Snapshot()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random.IntN(40))*time.Millisecond)
	defer cancel()
	lease, err := c.Acquire(ctx, fmt.Sprint(random.IntN(5)))
	if err != nil {
		return
	}
	value := lease.Value()
	value.mu.Lock()
	value.leases++
	value.mu.Unlock()
	time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
	value.mu.Lock()
	value.leases--
	value.mu.Unlock()
	lease.Release()
}

// The same without a fake clock, for the race detector: real parallelism, no waiting inside.
func TestParallelUseIsRaceFree(t *testing.T) {
	s := newStore(t, 2)
	c := s.cache(Options[*thing]{})
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for range 300 {
				quickCall(c, random)
			}
		})
	}
	callers.Wait()
	require.NoError(t, c.Close(context.Background()))
	assert.Zero(t, s.live)
}

func quickCall(c *Cache[*thing], random *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch random.IntN(20) {
	case 0:
		c.Clear()
	case 1:
		go cancel()
	}
	lease, err := c.Acquire(ctx, fmt.Sprint(random.IntN(4)))
	if err != nil {
		return
	}
	_ = lease.Value().key
	lease.Release()
}

func TestResidentKeyAllocatesOnlyItsLease(t *testing.T) {
	s := newStore(t, 1)
	c := s.cache(Options[*thing]{})
	ctx := context.Background()
	per := testing.AllocsPerRun(1000, func() {
		lease, err := c.Acquire(ctx, "a")
		if err == nil {
			lease.Release()
		}
	})
	assert.LessOrEqual(t, per, 1.0)
	require.NoError(t, c.Close(ctx))
}

func BenchmarkAcquireResident(b *testing.B) {
	s := newStore(b, 1)
	c := s.cache(Options[*thing]{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		lease, err := c.Acquire(ctx, "a")
		if err != nil {
			b.Fatal(err)
		}
		lease.Release()
	}
	b.StopTimer()
	if err := c.Close(ctx); err != nil {
		b.Fatal(err)
	}
}
