package cgo_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/mock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPool returns a pool over a simulated runtime and checks at the end that it left nothing behind.
func newPool(t *testing.T, opts cgo.PoolOptions) *cgo.Pool {
	t.Helper()
	return newFaultyPool(t, opts, nil)
}

func newFaultyPool(t *testing.T, opts cgo.PoolOptions, faults *mock.Faults) *cgo.Pool {
	t.Helper()
	rt := mock.New(mock.Options{Faults: faults})
	pool, err := cgo.NewPool(rt, mock.Resolve, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, pool.Close(context.Background()))
		assert.Zero(t, rt.LiveHandles(), "handles leaked")
	})
	return pool
}

func TestPoolCountsTheModelsOwnMemory(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 2})
	lease, err := pool.Acquire(t.Context(), "suno/bark-small", cache.Ask{})
	require.NoError(t, err)
	assert.Equal(t, "suno/bark-small", lease.Model().Info().Name)
	session, err := lease.NewSession(t.Context(), cgo.SessionOptions{})
	require.NoError(t, err)
	assert.Equal(t, lease.Model().Memory().TotalBytes+session.Memory().TotalBytes, booked(pool))
	require.NoError(t, session.Close())
	lease.Release()
	cleared := pool.Clear(context.Background(), false)
	assert.Equal(t, []string{"suno/bark-small"}, cleared.Freed)
	assert.Zero(t, booked(pool))
}

func TestRoomIsKeptForTheTypeOfTheCache(t *testing.T) {
	for usual, usually := range cgo.KVTypes {
		for asked, kv := range cgo.KVTypes {
			pool := newPool(t, cgo.PoolOptions{Session: cgo.SessionOptions{KV: usually}})
			lease, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
			require.NoError(t, err)
			session, err := lease.NewSession(t.Context(), cgo.SessionOptions{KV: kv})
			require.NoError(t, err)
			room := booked(pool) - lease.Model().Memory().TotalBytes
			if kv == usually {
				assert.Equal(t, session.Memory().TotalBytes, room, usual)
			}
			assert.GreaterOrEqual(t, room, session.Memory().TotalBytes, "%s where %s is usual", asked, usual)
			require.NoError(t, session.Close())
			lease.Release()
		}
	}
}

func TestUnknownModelIsNotFound(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1})
	_, err := pool.Acquire(t.Context(), "nobody/nothing", cache.Ask{})
	assert.ErrorIs(t, err, cgo.ErrNotFound)
	assert.Empty(t, pool.Snapshot().Entries)
}

func TestClosedPoolSaysSo(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	require.NoError(t, pool.Close(t.Context()))
	_, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
	assert.ErrorIs(t, err, cgo.ErrClosed)
	assert.ErrorIs(t, pool.Preload(t.Context(), "suno/bark", nil), cgo.ErrClosed)
}

func TestModelOutlivesItsRemovalUntilRelease(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1})
	lease, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
	require.NoError(t, err)
	assert.Equal(t, []string{"suno/bark"}, pool.Remove(context.Background(), "suno/bark", false).Draining)
	_, err = lease.Model().Tokenize(cgo.RulesSuno, "still here")
	assert.NoError(t, err)
	lease.Release()
}

func TestPoolTellsOfItsDecisions(t *testing.T) {
	var told []string // under the cache's lock
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1, Decided: func(e cache.Event) { told = append(told, string(e.Kind)+" "+e.Key) }})
	require.NoError(t, pool.Preload(t.Context(), "suno/bark", nil))
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	require.Error(t, pool.Preload(t.Context(), "nobody/nothing", nil))
	require.NoError(t, pool.Close(t.Context()))
	assert.Equal(t, []string{"loading suno/bark", "loaded suno/bark", "evicted suno/bark", "freed suno/bark",
		"loading barkd/tiny", "loaded barkd/tiny", "load_failed nobody/nothing", "freed barkd/tiny"}, told)
}

// booked is what the ledger has of the host's memory.
func booked(p *cgo.Pool) int64 { return p.Snapshot().Pools[0].Booked }

func TestPanicInTheRuntimeIsAnErrorOfTheLoad(t *testing.T) {
	pool, err := cgo.NewPool(mock.New(mock.Options{}), func(string) (cgo.Source, error) { panic(errors.New("boom")) }, cgo.PoolOptions{})
	require.NoError(t, err)
	_, err = pool.Acquire(t.Context(), "a", cache.Ask{})
	assert.ErrorContains(t, err, "boom")
	require.NoError(t, pool.Close(t.Context()))
}

func TestModelsOnADeviceThatIsNotThereAreRefusedAtOnce(t *testing.T) {
	_, err := cgo.NewPool(mock.New(mock.Options{}), mock.Resolve, cgo.PoolOptions{Devices: []int{7}})
	assert.ErrorIs(t, err, cgo.ErrNotFound)
}

func TestTwoModelsHoldTheirCodecOnce(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	require.NoError(t, pool.Preload(t.Context(), "suno/bark", nil))
	alone := booked(pool)
	require.NoError(t, pool.Preload(t.Context(), "suno/bark-small", nil))
	require.Len(t, pool.Snapshot().Components, 1)
	codec := pool.Snapshot().Components[0]
	assert.Equal(t, 2, codec.Holders)
	both := booked(pool)
	pool.Remove(context.Background(), "suno/bark", false)
	small := booked(pool)
	assert.Equal(t, both, alone+small-codec.Bytes.Total())
	pool.Remove(context.Background(), "suno/bark-small", false)
	assert.Zero(t, booked(pool))
	assert.Empty(t, pool.Snapshot().Components)
}

// A model that still holds memory when it was freed stays in the books, so that nobody loads into memory that is not
// there; when the memory comes back it is booked out.
func TestMemoryThatIsNotReturnedStaysInTheBooks(t *testing.T) {
	pool := newFaultyPool(t, cgo.PoolOptions{}, &mock.Faults{Rules: []mock.Fault{{Kind: mock.Leak, Bytes: 4096}}})
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	pool.Clear(context.Background(), false)
	s := pool.Snapshot()
	assert.EqualValues(t, 4096, s.Pools[0].Unreturned)
	require.Len(t, s.Unreturned, 1)
	assert.Equal(t, "barkd/tiny", s.Unreturned[0].Key)
	_, err := pool.Trim()
	require.NoError(t, err)
	assert.EqualValues(t, 4096, pool.Snapshot().Pools[0].Unreturned, "still not back")
}

func TestSessionsHaveRoomInTheLedger(t *testing.T) {
	probe := newPool(t, cgo.PoolOptions{})
	require.NoError(t, probe.Preload(t.Context(), "suno/bark-small", nil))
	one := booked(probe)
	lease, err := probe.Acquire(t.Context(), "suno/bark-small", cache.Ask{})
	require.NoError(t, err)
	defer lease.Release()
	first, err := lease.NewSession(t.Context(), cgo.SessionOptions{})
	require.NoError(t, err)
	bytes := first.Memory().TotalBytes
	assert.Equal(t, one, booked(probe), "room for one comes with the model")
	second, err := lease.NewSession(t.Context(), cgo.SessionOptions{})
	require.NoError(t, err)
	assert.Equal(t, one+bytes, booked(probe))
	require.NoError(t, errors.Join(first.Close(), second.Close()))
	assert.Equal(t, one, booked(probe))

	full := newPool(t, cgo.PoolOptions{Budgets: []int64{one}})
	tight, err := full.Acquire(t.Context(), "suno/bark-small", cache.Ask{})
	require.NoError(t, err)
	defer tight.Release()
	only, err := tight.NewSession(t.Context(), cgo.SessionOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = tight.NewSession(ctx, cgo.SessionOptions{})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, only.Close())
	again, err := tight.NewSession(t.Context(), cgo.SessionOptions{})
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestAWaitForAModelIsBoundedAndSaysWhatIsInTheWay(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1, MaxWait: 10 * time.Millisecond})
	busy, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{Holder: "request 7"})
	require.NoError(t, err)
	defer busy.Release()
	_, err = pool.Acquire(t.Context(), "suno/bark-small", cache.Ask{})
	var refused *cache.Refusal
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, cache.RefusedWaiting, refused.Code)
	require.Len(t, refused.Blockers, 1)
	assert.Equal(t, "request 7", refused.Blockers[0].Holder)
	assert.Equal(t, "suno/bark", refused.Blockers[0].Key)
}

func TestOutcomesAreToldForModelsThatThereAre(t *testing.T) {
	var told []string
	pool := newPool(t, cgo.PoolOptions{Asked: func(id string, how cache.Outcome) { told = append(told, id+" "+string(how)) }})
	for range 2 {
		lease, err := pool.Acquire(t.Context(), "barkd/tiny", cache.Ask{})
		require.NoError(t, err)
		lease.Release()
	}
	_, err := pool.Acquire(t.Context(), "no/such", cache.Ask{})
	require.Error(t, err)
	assert.Equal(t, []string{"barkd/tiny miss", "barkd/tiny hit"}, told)
}
