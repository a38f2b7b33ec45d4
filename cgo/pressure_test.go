package cgo_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
)

func names(r cgo.Relief) []string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, s.Name)
	}
	return out
}

// The audio cache of the tests gives back 1000 bytes, once.
func audioCache() cgo.Reaction {
	left := int64(1000)
	return cgo.Reaction{Name: "audio", Free: func(context.Context, int, int64) int64 {
		freed := left
		left = 0
		return freed
	}}
}

func TestPressureTakesTheCheapestStepsThatAreEnough(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	p := cgo.NewPressure(pool, audioCache())
	relief := p.React(t.Context(), cgo.Shortage{Level: memwatch.LevelHigh, Need: 1000})
	assert.Equal(t, []string{"trim", "audio"}, names(relief))
	assert.Zero(t, relief.Evicted())
	relief = p.React(t.Context(), cgo.Shortage{Level: memwatch.LevelHigh, Need: 1000})
	assert.Equal(t, []string{"trim", "audio", "evict"}, names(relief))
	assert.Equal(t, []string{"barkd/tiny"}, relief.Steps[2].Keys)
	assert.EqualValues(t, 2, p.Cleanups())
}

// The predecessor evicted n/2 models: with one model, none.
func TestPressureEvictsTheOnlyModel(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	require.NoError(t, pool.Preload(t.Context(), "suno/bark", nil))
	relief := cgo.NewPressure(pool).React(t.Context(), cgo.Shortage{Level: memwatch.LevelHigh, Need: 1})
	assert.Equal(t, 1, relief.Evicted())
	assert.Zero(t, booked(pool))
}

func TestPressureEvictsLeastRecentlyUsedUntilTheNeedIsMet(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	for _, id := range []string{"suno/bark-small", "suno/bark", "barkd/tiny"} {
		require.NoError(t, pool.Preload(t.Context(), id, nil))
	}
	relief := cgo.NewPressure(pool).React(t.Context(), cgo.Shortage{Level: memwatch.LevelHigh, Need: 1 << 20})
	assert.Equal(t, []string{"suno/bark-small"}, relief.Steps[1].Keys)
}

func TestPressureLeavesLeasedAndPinnedModels(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	lease, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
	require.NoError(t, err)
	defer lease.Release()
	require.NoError(t, pool.Pin(t.Context(), "barkd/tiny"))
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	relief := cgo.NewPressure(pool).React(t.Context(), cgo.Shortage{Level: memwatch.LevelHigh, Need: 1 << 40})
	assert.Zero(t, relief.Evicted())
	assert.False(t, relief.Refuses, "loads are refused only while the level is critical")
	assert.Len(t, pool.Snapshot().Entries, 2)
}

func TestCriticalPressureRefusesLoadsUntilItFalls(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	require.NoError(t, pool.Preload(t.Context(), "suno/bark", nil))
	lease, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
	require.NoError(t, err)
	p := cgo.NewPressure(pool)
	relief := p.React(t.Context(), cgo.Shortage{Level: memwatch.LevelCritical, Need: 1 << 40, Why: "little is left"})
	assert.True(t, relief.Refuses)
	assert.Equal(t, memwatch.LevelCritical, p.Level(0))
	_, err = pool.Acquire(t.Context(), "barkd/tiny", cache.Ask{})
	var refused *cache.Refusal
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, cache.RefusedPressure, refused.Code)
	assert.Positive(t, refused.RetryAfter)
	again, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
	require.NoError(t, err, "a resident model is served all the same")
	again.Release()
	lease.Release()
	p.React(t.Context(), cgo.Shortage{Level: memwatch.LevelNone})
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
}
