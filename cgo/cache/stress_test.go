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
	load := func(ctx context.Context, key string, _ int, progress func(int64, int64)) (*thing, error) {
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
		return s.load(ctx, key, 0, progress)
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
	assert.Equal(t, snapshot.Loads, uint64(s.failed)+snapshot.Frees, "every load failed or its value was freed")
	assert.Empty(t, snapshot.Entries)
	assert.Zero(t, c.own.occupied)
	assert.Zero(t, c.own.idle.length)
	assert.Empty(t, c.own.loads)
}

func randomCall(c *Cache[*thing], random *rand.Rand) {
	switch random.IntN(40) {
	case 0:
		c.Clear(context.Background(), random.IntN(2) == 0)
		return
	case 1:
		c.Remove(context.Background(), fmt.Sprint(random.IntN(5)), false)
		return
	case 2:
		c.Snapshot()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random.IntN(40))*time.Millisecond)
	defer cancel()
	lease, err := c.Acquire(ctx, fmt.Sprint(random.IntN(5)), Ask{})
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

// Everything at once on real threads: bytes, pins, sessions, pressure, limits, nested requests, preloads.
func TestParallelUseOfEverythingKeepsTheBooks(t *testing.T) {
	s := newStore(t, 0)
	footprint := func(key string) Footprint {
		f := with(own(int64(key[0]-'0')+1), "codec", 2)
		f.Session = In(0, 1)
		return f
	}
	c := s.cache(Options[*thing]{
		Pools: pool(12), KeepAlive: time.Millisecond, Patience: time.Millisecond, CoolDown: time.Microsecond,
		Estimate: func(_ context.Context, key string) ([]Footprint, error) { return []Footprint{footprint(key)}, nil },
		Measure:  func(v *thing) Footprint { return footprint(v.key) },
	})
	l, _ := c.Listen(0)
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(8, uint64(i)))
			for range 200 {
				operateAtRandom(c, random)
				workAtRandom(c, random)
			}
		})
	}
	callers.Wait()
	l.Close()
	require.NoError(t, c.Close(context.Background()))
	assert.Zero(t, s.live)
	state := c.Snapshot()
	assert.Zero(t, state.Pools[0].Booked+state.Pools[0].Reserved+state.Pools[0].Unreturned)
	assert.Empty(t, state.Components)
	assert.Equal(t, state.Loads, uint64(s.failed)+state.Frees)
}

func operateAtRandom(c *Cache[*thing], random *rand.Rand) {
	key := fmt.Sprint(random.IntN(5))
	switch random.IntN(30) {
	case 0:
		c.Clear(context.Background(), random.IntN(2) == 0)
	case 1:
		c.Relieve(context.Background(), 0, 5)
	case 2:
		c.Hold(0, "watermark", time.Second)
		c.Admit(0)
	case 3:
		_ = c.Pin(context.Background(), key)
		c.Unpin(key)
	case 4:
		c.SetBudget(0, int64(9+random.IntN(6)))
	case 5:
		_, _ = c.Plan(context.Background(), key)
		c.Curve()
		c.Demand()
	case 6:
		c.Sweep()
		_ = c.Ping(context.Background())
	case 7:
		_ = c.Preload(context.Background(), key, Ask{}, func(Progress) {})
	}
}

func workAtRandom(c *Cache[*thing], random *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(4000))*time.Microsecond)
	defer cancel()
	lease, err := c.Acquire(ctx, fmt.Sprint(random.IntN(5)), Ask{})
	if err != nil {
		return
	}
	defer lease.Release()
	_ = lease.Value().key
	if lease.EnterSession(ctx) == nil && random.IntN(2) == 0 {
		lease.ExitSession()
	}
	if random.IntN(3) == 0 {
		if nested, err := c.Acquire(lease.Context(ctx), fmt.Sprint(random.IntN(5)), Ask{}); err == nil {
			nested.Release()
		}
	}
}

func quickCall(c *Cache[*thing], random *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch random.IntN(20) {
	case 0:
		c.Clear(context.Background(), random.IntN(2) == 0)
	case 1:
		go cancel()
	}
	lease, err := c.Acquire(ctx, fmt.Sprint(random.IntN(4)), Ask{})
	if err != nil {
		return
	}
	_ = lease.Value().key
	lease.Release()
}

func TestResidentKeyAllocatesNothing(t *testing.T) {
	s := newStore(t, 1)
	c := s.cache(Options[*thing]{})
	ctx := context.Background()
	per := testing.AllocsPerRun(1000, func() {
		lease, err := c.Acquire(ctx, "a", Ask{})
		if err == nil {
			lease.Release()
		}
	})
	assert.Zero(t, per)
	require.NoError(t, c.Close(ctx))
}
