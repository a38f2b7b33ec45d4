package cgo_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo"
	"barkd/cgo/mock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPool returns a pool over a simulated runtime and checks at the end that it left nothing behind.
func newPool(t *testing.T, opts cgo.PoolOptions) *cgo.Pool {
	t.Helper()
	rt := mock.New(mock.Options{})
	pool := cgo.NewPool(rt, mock.Resolve, opts)
	t.Cleanup(func() {
		require.NoError(t, pool.Close(context.Background()))
		assert.Zero(t, rt.LiveHandles(), "handles leaked")
	})
	return pool
}

func TestPoolCountsTheModelsOwnMemory(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 2})
	lease, err := pool.Acquire(t.Context(), "suno/bark-small")
	require.NoError(t, err)
	assert.Equal(t, "suno/bark-small", lease.Model().Info().Name)
	assert.Equal(t, lease.Model().Memory().TotalBytes, pool.Stats().Bytes)
	lease.Release()
	cleared := pool.Clear()
	assert.Equal(t, []string{"suno/bark-small"}, cleared.Freed)
	assert.Zero(t, pool.Stats().Bytes)
}

func TestUnknownModelIsNotFound(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1})
	_, err := pool.Acquire(t.Context(), "nobody/nothing")
	assert.ErrorIs(t, err, cgo.ErrNotFound)
	assert.Empty(t, pool.Stats().Entries)
}

func TestClosedPoolSaysSo(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	require.NoError(t, pool.Close(t.Context()))
	_, err := pool.Acquire(t.Context(), "suno/bark")
	assert.ErrorIs(t, err, cgo.ErrClosed)
	assert.ErrorIs(t, pool.Preload(t.Context(), "suno/bark"), cgo.ErrClosed)
}

func TestModelOutlivesItsRemovalUntilRelease(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1})
	lease, err := pool.Acquire(t.Context(), "suno/bark")
	require.NoError(t, err)
	assert.Equal(t, []string{"suno/bark"}, pool.Remove("suno/bark").Draining)
	_, err = lease.Model().Tokenize(cgo.RulesSuno, "still here")
	assert.NoError(t, err)
	lease.Release()
}

func TestWarmupRefusesWhatWouldPushOutTheFirst(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 2})
	results := pool.Warmup(t.Context(), []string{"suno/bark", "suno/bark", "nobody/nothing", "suno/bark-small"})
	require.Len(t, results, 4)
	assert.NoError(t, results[0].Err)
	assert.NoError(t, results[1].Err)
	assert.ErrorIs(t, results[2].Err, cgo.ErrNotFound)
	assert.ErrorIs(t, results[3].Err, cgo.ErrInvalidArgument)
	assert.Equal(t, "suno/bark", results[0].ID)
}

func TestPoolTellsOfLoadsAndFrees(t *testing.T) {
	var mu sync.Mutex
	var events []string
	note := func(kind, id string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			kind += " failed"
		}
		events = append(events, kind+" "+id)
	}
	pool := newPool(t, cgo.PoolOptions{
		MaxModels: 1,
		Loaded: func(id string, _ time.Duration, memory cgo.Memory, err error) {
			assert.Equal(t, err == nil, memory.TotalBytes > 0)
			note("load", id, err)
		},
		Freed: func(id string, err error) { note("free", id, err) },
	})
	require.NoError(t, pool.Preload(t.Context(), "suno/bark"))
	require.NoError(t, pool.Preload(t.Context(), "suno/bark-small"))
	require.Error(t, pool.Preload(t.Context(), "nobody/nothing"))
	require.NoError(t, pool.Close(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []string{"load suno/bark", "free suno/bark", "load suno/bark-small", "free suno/bark-small",
		"load failed nobody/nothing"}, events)
}

func TestPanicInTheRuntimeIsAnErrorOfTheLoad(t *testing.T) {
	pool := cgo.NewPool(nil, func(string) (cgo.Source, error) { panic(errors.New("boom")) }, cgo.PoolOptions{})
	_, err := pool.Acquire(t.Context(), "a")
	assert.ErrorContains(t, err, "boom")
	require.NoError(t, pool.Close(t.Context()))
}
