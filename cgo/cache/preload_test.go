package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPanicOfAProgressCallbackLeavesNoLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		opts := sized(7)
		finish := make(chan struct{})
		opts.Load = func(ctx context.Context, key string, _ int, progress func(int64, int64)) (*thing, error) {
			progress(1, 2)
			<-finish
			return s.load(context.WithoutCancel(ctx), key, 0, nil)
		}
		c := s.cache(opts)
		assert.PanicsWithValue(t, "boom", func() {
			_ = c.Preload(t.Context(), "a", Ask{}, func(Progress) { panic("boom") })
		})
		assert.Zero(t, c.Snapshot().Waiting)
		close(finish)
		synctest.Wait()
		assert.Zero(t, c.Snapshot().Leases)
		closed(t, c)
	})
}

func TestPreloadTellsItsProgressOnTheCallersGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		opts := sized(7)
		opts.Load = func(ctx context.Context, key string, _ int, progress func(int64, int64)) (*thing, error) {
			for n := range int64(3) {
				progress(n+1, 3)
				time.Sleep(time.Second)
			}
			return s.load(ctx, key, 0, nil)
		}
		c := s.cache(opts)
		var heard []Progress
		require.NoError(t, c.Preload(t.Context(), "a", Ask{}, func(p Progress) { heard = append(heard, p) }))
		assert.Equal(t, []Progress{{1, 3}, {2, 3}, {3, 3}}, heard)
		assert.Zero(t, c.Snapshot().Misses, "a preload is no demand")
		assert.Zero(t, c.Snapshot().Leases)
		closed(t, c)
	})
}
