package speech_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/speech"
)

// desk is an admission whose requests' starts are written down.
type desk struct {
	*speech.Admission
	t       *testing.T
	mu      sync.Mutex
	started []string
	clients sync.WaitGroup
}

func newDesk(t *testing.T, running, queued, perModel int) *desk {
	t.Helper()
	return &desk{Admission: speech.NewAdmission(speech.Limits{Running: running, Queued: queued, PerModel: perModel}), t: t}
}

// serve takes a place at once, and then, in the background, runs for so long.
func (d *desk) serve(name string, p speech.Place, takes time.Duration) {
	d.t.Helper()
	ticket, err := d.Enter(p)
	require.NoError(d.t, err)
	d.clients.Go(func() {
		defer ticket.Leave()
		assert.NoError(d.t, ticket.Start(context.Background()))
		d.mu.Lock()
		d.started = append(d.started, name)
		d.mu.Unlock()
		time.Sleep(takes)
		ticket.Spoke()
	})
	synctest.Wait()
}

// expect waits for all and compares the order in which they started.
func (d *desk) expect(names ...string) {
	d.t.Helper()
	d.clients.Wait()
	assert.Equal(d.t, names, d.started)
	running, waiting := d.Load()
	assert.Zero(d.t, running+waiting)
}

func TestEqualsGoInOrderOfArrivalWhateverTheirModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 9, 9)
		for _, name := range []string{"a1", "b1", "a2", "c1", "b2", "a3"} {
			d.serve(name, speech.Place{Model: name[:1]}, time.Second)
		}
		d.expect("a1", "b1", "a2", "c1", "b2", "a3")
	})
}

func TestHigherPriorityGoesFirstAndAgeCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 9, 9)
		d.serve("runs", speech.Place{Model: "a"}, 2*time.Minute)
		d.serve("low", speech.Place{Model: "a", Priority: -1}, time.Second)
		d.serve("early", speech.Place{Model: "a"}, time.Second)
		time.Sleep(time.Second)
		d.serve("high", speech.Place{Model: "b", Priority: 1}, time.Second)
		time.Sleep(time.Minute)
		d.serve("late high", speech.Place{Model: "b", Priority: 1}, time.Second)
		d.expect("runs", "high", "early", "low", "late high")
	})
}

// A stream of requests of a higher priority, more than can be served, does not starve one of a lower.
func TestNobodyStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 1000, 1000)
		d.serve("high", speech.Place{Model: "a", Priority: 2}, time.Second)
		d.serve("low", speech.Place{Model: "a"}, 0)
		for range 300 {
			d.serve("high", speech.Place{Model: "a", Priority: 2}, time.Second)
			time.Sleep(time.Second / 2)
		}
		d.clients.Wait()
		before := 0
		for ; d.started[before] != "low"; before++ {
		}
		assert.InDelta(t, 120, before, 2, "those that came within a minute, two steps of the priority")
	})
}

func TestOneModelsCrowdLeavesTheQueueToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 4, 2)
		for i := range 3 {
			d.serve(fmt.Sprint("a", i), speech.Place{Model: "a"}, time.Minute)
		}
		_, err := d.Enter(speech.Place{Model: "a"})
		var full *speech.QueueFullError
		require.ErrorAs(t, err, &full)
		assert.Equal(t, "a", full.Model)
		assert.Equal(t, 2, full.Waiting)
		d.serve("b", speech.Place{Model: "b"}, time.Minute)
		d.serve("c", speech.Place{Model: "c"}, time.Minute)
		_, err = d.Enter(speech.Place{Model: "d"})
		require.ErrorAs(t, err, &full)
		assert.Empty(t, full.Model)
		assert.Equal(t, 4, full.Waiting)
		d.expect("a0", "a1", "a2", "b", "c")
	})
}

func TestRetryAfterFollowsFromTheModelsPaceAndTheTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 1, 1)
		refused := func(model string) time.Duration {
			_, err := d.Enter(speech.Place{Model: model, Chars: 10})
			var full *speech.QueueFullError
			require.ErrorAs(t, err, &full)
			return full.RetryAfter
		}
		d.serve("first", speech.Place{Model: "slow", Chars: 100}, 100*time.Second)
		d.serve("next", speech.Place{Model: "slow", Chars: 1}, time.Second)
		assert.Equal(t, 5*time.Second, refused("slow"), "nothing is measured yet")
		d.clients.Wait()
		d.serve("fast", speech.Place{Model: "fast", Chars: 100}, 10*time.Second)
		d.clients.Wait()
		// slow takes a second a character, fast a tenth.
		d.serve("long", speech.Place{Model: "slow", Chars: 60}, 60*time.Second)
		d.serve("next", speech.Place{Model: "fast", Chars: 100}, 10*time.Second)
		time.Sleep(20 * time.Second)
		assert.Equal(t, 40*time.Second, refused("slow"))
		assert.Equal(t, 40*time.Second, refused("fast"), "then the first of all leaves")
		time.Sleep(39*time.Second + time.Second/2)
		assert.Equal(t, time.Second, refused("slow"))
		d.clients.Wait()
	})
}

func TestRetryAfterOfAModelOfWhichNoneRunsIsWhenItsFirstEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 9, 0)
		d.serve("learn", speech.Place{Model: "a", Chars: 10}, 10*time.Second)
		d.clients.Wait()
		d.serve("runs", speech.Place{Model: "b", Chars: 30}, 30*time.Second)
		d.serve("waits", speech.Place{Model: "a", Chars: 5}, 5*time.Second)
		_, err := d.Enter(speech.Place{Model: "a", Chars: 1})
		var full *speech.QueueFullError
		require.ErrorAs(t, err, &full)
		assert.Equal(t, 35*time.Second, full.RetryAfter)
		d.clients.Wait()
	})
}

func TestWhoWouldWaitTooLongIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 9, 9)
		d.serve("learn", speech.Place{Model: "a", Chars: 10}, 10*time.Second)
		d.clients.Wait()
		ask := speech.Place{Model: "a", Chars: 10, Patience: 15 * time.Second}
		d.serve("runs", ask, 10*time.Second)
		d.serve("waits", ask, 10*time.Second)
		_, err := d.Enter(ask)
		var late *speech.TooLateError
		require.ErrorAs(t, err, &late)
		assert.Equal(t, 20*time.Second, late.Wait)
		assert.Equal(t, 5*time.Second, late.RetryAfter)
		ask.Priority = 1
		d.serve("goes before", ask, 10*time.Second)
		d.expect("learn", "runs", "goes before", "waits")
	})
}

func TestLoadOfAModelHoldsUpOnlyItsOwnRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 9, 9)
		loader, err := d.Enter(speech.Place{Model: "a"})
		require.NoError(t, err)
		require.NoError(t, loader.Start(context.Background()))
		d.serve("a2", speech.Place{Model: "a"}, time.Second)
		d.serve("b", speech.Place{Model: "b"}, time.Minute)
		loader.Yield()
		running, waiting := d.Load()
		assert.Equal(t, []int{1, 2}, []int{running, waiting}, "b runs; both of a wait")
		d.clients.Go(func() { // the model is there
			assert.NoError(t, loader.Start(context.Background()))
			d.mu.Lock()
			d.started = append(d.started, "a1")
			d.mu.Unlock()
			loader.Leave()
		})
		d.expect("b", "a1", "a2")
	})
}

func TestLoaderThatGivesUpLetsTheNextOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 2, 9, 9)
		loader, err := d.Enter(speech.Place{Model: "a"})
		require.NoError(t, err)
		require.NoError(t, loader.Start(context.Background()))
		loader.Yield()
		d.serve("a2", speech.Place{Model: "a"}, time.Second)
		assert.Empty(t, d.started)
		loader.Leave()
		d.expect("a2")
	})
}

func TestNewLimitsHoldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1, 9, 9)
		for range 3 {
			d.serve("", speech.Place{Model: "a"}, time.Minute)
		}
		d.SetLimits(speech.Limits{Running: 2, Queued: 1, PerModel: 1})
		running, waiting := d.Load()
		assert.Equal(t, []int{2, 1}, []int{running, waiting})
		_, err := d.Enter(speech.Place{Model: "b"})
		assert.ErrorAs(t, err, new(*speech.QueueFullError))
		d.SetLimits(speech.Limits{})
		running, _ = d.Load()
		assert.Equal(t, 2, running, "who runs is not stopped")
		d.expect("", "", "")
	})
}

// Clients of every kind come, are cancelled while they wait, load and run. At no time do more run than may, or does one
// wait that could run; equals of one model start in their order; everyone ends, and in the end all is free.
func TestAdmissionKeepsItsPromisesUnderRandomLoad(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomLoad(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

type visit struct {
	place            speech.Place
	arrived, started time.Time
}

func randomLoad(t *testing.T, random *rand.Rand) {
	limits := speech.Limits{Running: 1 + random.IntN(4), Queued: 5 + random.IntN(40), PerModel: 3 + random.IntN(20)}
	a := speech.NewAdmission(limits)
	var (
		clients         sync.WaitGroup
		atWork, loading atomic.Int64
		mu              sync.Mutex
		visits          []visit
	)
	check := func() {
		running, waiting := a.Load()
		assert.LessOrEqual(t, running, limits.Running)
		assert.LessOrEqual(t, running+waiting, limits.Running+limits.Queued)
	}
	for range 300 {
		place := speech.Place{Model: string(rune('a' + random.IntN(4))), Priority: random.IntN(3) - 1, Chars: 1 + random.IntN(200)}
		work, patience := time.Duration(random.IntN(3000))*time.Millisecond, time.Duration(random.IntN(9000))*time.Millisecond
		loads, cancels := random.IntN(6) == 0, random.IntN(4) == 0
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond)
		arrived := time.Now()
		ticket, err := a.Enter(place)
		if err != nil {
			assert.ErrorAs(t, err, new(*speech.QueueFullError))
			continue
		}
		clients.Go(func() {
			defer ticket.Leave()
			ctx := context.Background()
			if cancels {
				var stop func()
				ctx, stop = context.WithTimeout(ctx, patience)
				defer stop()
			}
			if ticket.Start(ctx) != nil {
				return
			}
			if loads {
				ticket.Yield()
				loading.Add(1)
				check()
				time.Sleep(work / 2)
				loading.Add(-1)
				if ticket.Start(ctx) != nil {
					return
				}
			} else if !cancels {
				mu.Lock()
				visits = append(visits, visit{place, arrived, time.Now()})
				mu.Unlock()
			}
			assert.LessOrEqual(t, atWork.Add(1), int64(limits.Running))
			check()
			time.Sleep(work)
			atWork.Add(-1)
			ticket.Spoke()
		})
		synctest.Wait()
		check()
		if running, waiting := a.Load(); waiting > 0 && loading.Load() == 0 {
			assert.Equal(t, limits.Running, running, "a turn is free and somebody waits for it")
		}
	}
	clients.Wait() // the bubble fails when one sleeps for ever
	running, waiting := a.Load()
	assert.Zero(t, running+waiting)
	assert.NotEmpty(t, visits)
	for i, v := range visits {
		for _, w := range visits[:i] {
			if v.place.Model == w.place.Model && v.place.Priority == w.place.Priority && v.arrived.Before(w.arrived) {
				assert.False(t, v.started.After(w.started), "%v before %v", w, v)
			}
		}
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	a := speech.NewAdmission(speech.Limits{Running: 3, Queued: 1000, PerModel: 1000})
	var clients sync.WaitGroup
	var atWork atomic.Int64
	for i := range 64 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 2))
			for range 50 {
				ticket, err := a.Enter(speech.Place{Model: string(rune('a' + random.IntN(3))), Priority: random.IntN(2), Chars: 9})
				if !assert.NoError(t, err) {
					return
				}
				ctx, cancel := context.WithCancel(context.Background())
				if random.IntN(5) == 0 {
					cancel()
				}
				if ticket.Start(ctx) == nil {
					if random.IntN(5) == 0 {
						ticket.Yield()
						assert.NoError(t, ticket.Start(context.Background()))
					}
					assert.LessOrEqual(t, atWork.Add(1), int64(3))
					atWork.Add(-1)
					ticket.Spoke()
				}
				cancel()
				ticket.Leave()
			}
		})
	}
	clients.Wait()
	running, waiting := a.Load()
	assert.Zero(t, running+waiting)
}
