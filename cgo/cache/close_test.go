package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestEstimateThatDoesNotListenHoldsUpNoClosePastItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		deaf := make(chan struct{})
		c := s.cache(Options[*thing]{Estimate: func(context.Context, string) ([]Footprint, error) {
			<-deaf
			return []Footprint{{}}, nil
		}})
		a := acquire(c, "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, c.Close(ctx), context.DeadlineExceeded)
		synctest.Wait()
		assert.ErrorIs(t, a.err, ErrClosed)
		close(deaf)
		closed(t, c)
	})
}

func TestClosedCacheSetsNoTimer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{KeepAlive: time.Hour})
		mustAcquire(t, c, "a").Release()
		closed(t, c)
		assert.True(t, c.due.IsZero())
		assert.False(t, c.timer.Stop(), "it was running")
	})
}
