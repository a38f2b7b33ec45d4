package cgo_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/mock"
)

func known(_ context.Context, id string) error {
	_, err := mock.Resolve(id)
	return err
}

func TestWarmupShowsTheStateOfEachModel(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 2})
	w := cgo.NewWarmup([]string{"suno/bark", "suno/bark", "nobody/nothing", "barkd/tiny", "suno/bark-small"})
	assert.Equal(t, cgo.WarmupPending, w.Models()[0].State)
	var told []string
	w.Run(t.Context(), pool, known, func(m cgo.WarmupModel) { told = append(told, m.ID) })
	<-w.Done()
	var states []cgo.WarmupState
	for _, m := range w.Models() {
		states = append(states, m.State)
	}
	assert.Equal(t, []cgo.WarmupState{cgo.WarmupReady, cgo.WarmupMissing, cgo.WarmupReady, cgo.WarmupFailed}, states)
	assert.ErrorIs(t, w.Models()[3].Err, cgo.ErrInvalidArgument, "it would push out the first")
	assert.Equal(t, []string{"suno/bark", "nobody/nothing", "barkd/tiny", "suno/bark-small"}, told)
}

func TestWarmupPushesNothingOut(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1})
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil)) // a request was faster
	w := cgo.NewWarmup([]string{"suno/bark"})
	w.Run(t.Context(), pool, known, nil)
	assert.Equal(t, cgo.WarmupFailed, w.Models()[0].State)
	assert.Zero(t, pool.Snapshot().Evictions)
}

func TestAnInterruptedWarmupEnds(t *testing.T) {
	pool := newPool(t, cgo.PoolOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := cgo.NewWarmup([]string{"suno/bark", "barkd/tiny"})
	w.Run(ctx, pool, known, nil)
	<-w.Done()
	for _, m := range w.Models() {
		assert.ErrorIs(t, m.Err, context.Canceled)
	}
}

func TestTheAccessPatternProposesWhatFits(t *testing.T) {
	demand := []cache.Demand{{Key: "a", Score: 9, Bytes: 60}, {Key: "b", Score: 8, Bytes: 60}, {Key: "c", Score: 7, Bytes: 40}, {Key: "d", Score: 1}}
	pool := newPool(t, cgo.PoolOptions{MaxModels: 2, Budgets: []int64{100}})
	assert.Equal(t, []string{"a", "c"}, pool.Propose(demand))
	assert.Equal(t, []string{"a", "b", "c", "d"}, newPool(t, cgo.PoolOptions{}).Propose(demand))
}

func TestDemandSurvivesARestart(t *testing.T) {
	first := newPool(t, cgo.PoolOptions{})
	for _, id := range []string{"suno/bark", "barkd/tiny", "barkd/tiny"} {
		lease, err := first.Acquire(t.Context(), id, cache.Ask{})
		require.NoError(t, err)
		lease.Release()
	}
	second := newPool(t, cgo.PoolOptions{Demand: first.Demand()})
	assert.Equal(t, []string{"barkd/tiny", "suno/bark"}, second.Propose(second.Demand()))
}
