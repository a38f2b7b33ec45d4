package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

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
	failed  int                   // loads that gave no value
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

func (s *store) load(ctx context.Context, key string, _ int, _ func(done, total int64)) (*thing, error) {
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
		s.failed++
		return nil, err
	}
	return &thing{key: key}, nil
}

func (s *store) free(key string, value *thing) (func() Bytes, error) {
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
	return nil, nil
}

// gone lists what was freed, while frees may run.
func (s *store) gone() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.freed)
}

func (s *store) cache(opts Options[*thing]) *Cache[*thing] {
	opts.MaxEntries = s.limit
	if opts.Load == nil {
		opts.Load = s.load
	}
	if opts.Free == nil {
		opts.Free = s.free
	}
	return New(opts)
}

// sized are options with one pool in which every value takes the same.
func sized(bytes int64) Options[*thing] {
	return Options[*thing]{
		Pools:    []Pool{{Name: "ram"}},
		Estimate: func(context.Context, string) ([]Footprint, error) { return []Footprint{{Own: In(0, bytes)}}, nil },
	}
}

// An attempt is an Acquire that runs on its own goroutine.
type attempt struct {
	lease  Lease[*thing]
	err    error
	done   bool
	cancel context.CancelFunc
}

// acquire starts an Acquire and returns when it is done or waits. Call it inside a synctest bubble.
func acquire(c *Cache[*thing], key string) *attempt {
	return acquireAs(context.Background(), c, key, Ask{})
}

func acquireAs(ctx context.Context, c *Cache[*thing], key string, ask Ask) *attempt {
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{cancel: cancel}
	go func() {
		defer cancel()
		a.lease, a.err = c.Acquire(ctx, key, ask)
		a.done = true
	}()
	synctest.Wait()
	return a
}

func (a *attempt) give(t *testing.T) Lease[*thing] {
	t.Helper()
	synctest.Wait()
	require.True(t, a.done, "still waiting")
	require.NoError(t, a.err)
	return a.lease
}

func mustAcquire(t *testing.T, c *Cache[*thing], key string) Lease[*thing] {
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
