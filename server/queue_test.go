package main

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/mock"
	"barkd/server/speech"
)

// With room for one model, a request for another gets it in its turn: those behind it in the queue, for the model that
// is there, do not keep it out. One may overtake it while the cache makes out how much room it needs.
func TestCrowdOfOneModelDoesNotKeepAnotherOut(t *testing.T) {
	pool, err := cgo.NewPool(mock.New(mock.Options{}), mock.Resolve, cgo.PoolOptions{MaxModels: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close(context.Background())) })
	admission := speech.NewAdmission(speech.Limits{Running: 1, Queued: 9, PerModel: 9})
	speaker := speech.NewService(poolModels{pool, mock.Resolve}, admission, zerolog.Nop())
	var (
		clients sync.WaitGroup
		mu      sync.Mutex
		order   []string
	)
	speaks := make(chan string, 5) // by then its model is loaded, so that it yields its turn to none
	hold := make(chan struct{})
	for i, model := range []string{"suno/bark", "suno/bark", "barkd/tiny", "suno/bark", "suno/bark"} {
		clients.Go(func() {
			_, err := speaker.Speak(context.Background(), speech.Request{Model: model, Text: "Hello."}, speech.Sink{
				Start: func(speech.Start) error {
					speaks <- model
					<-hold
					mu.Lock()
					order = append(order, model)
					third := len(order) == 3 && model == "suno/bark"
					mu.Unlock()
					for third && !asksForRoom(pool, "barkd/tiny") {
						time.Sleep(time.Millisecond)
					}
					return nil
				},
			})
			assert.NoError(t, err)
		})
		if i == 0 {
			require.Equal(t, "suno/bark", <-speaks)
		}
		require.Eventually(t, func() bool {
			running, waiting := admission.Load()
			return running == 1 && waiting == i
		}, 10*time.Second, time.Millisecond)
	}
	assert.Len(t, pool.Snapshot().Entries, 1)
	close(hold)
	clients.Wait()
	at := slices.Index(order, "barkd/tiny")
	assert.True(t, at == 2 || at == 3, "%v", order)
}

func asksForRoom(pool *cgo.Pool, model string) bool {
	return slices.ContainsFunc(pool.Events(0), func(e cache.Event) bool { return e.Kind == cache.EventWaiting && e.Key == model })
}
