package cache

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPlanTellsThatAPoolTakesNoLoads(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"a": own(5)})
	r.o.hold(r.now, 0, "high watermark", time.Minute)
	p := r.o.plan(r.now, "a", r.placesOf("a"))
	assert.False(t, p.Fits)
	assert.ErrorContains(t, p.Refusal, "high watermark")
}

func TestPlanTellsThatTheCacheIsClosed(t *testing.T) {
	r := newRig(t, Options[int]{}, nil)
	r.o.shut(r.now)
	assert.ErrorIs(t, r.o.plan(r.now, "a", []Footprint{{}}).Refusal, ErrClosed)
}

func TestPlanCountsNoSlotForWhoWaitsForItself(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	r.ask("unsized", Ask{})
	assert.True(t, r.o.plan(r.now, "a", []Footprint{{}}).Fits)
}

// A plan made on a quiet cache says exactly what the load then does.
func TestLoadDoesWhatThePlanSaid(t *testing.T) {
	for seed := range uint64(3_000) {
		random := rand.New(rand.NewPCG(seed, 14))
		r := newRig(t, Options[int]{Pools: pool(20, 20), MaxEntries: 1 + random.IntN(5)}, map[string]Footprint{})
		for _, key := range []string{"a", "b", "c", "d", "e", "new"} {
			r.sizes[key] = randomFootprint(random)
		}
		for _, key := range []string{"a", "b", "c", "d", "e"}[:random.IntN(6)] {
			q := r.ask(key, Ask{})
			r.settle()
			if q.poll() && q.err == nil && random.IntN(4) > 0 {
				r.release(q.lease)
			}
			r.settle()
		}
		if len(r.o.current) > 0 && r.o.queue.length > 0 {
			continue
		}
		p := r.o.plan(r.now, "new", r.placesOf("new"))
		used, seq := r.o.ledger.used(), r.o.journal.seq
		q := r.ask("new", Ask{})
		r.estimate("new")
		var victims []string
		for _, e := range r.o.journal.since(seq) {
			if e.Kind == EventEvicted {
				victims = append(victims, e.Key)
				assert.Equal(t, p.RunnerUp, e.RunnerUp, "seed %d", seed)
			}
		}
		var planned []string
		for _, v := range p.Victims {
			planned = append(planned, v.Key)
		}
		assert.Equal(t, planned, victims, "seed %d", seed)
		r.settle()
		done := q.poll()
		switch {
		case p.Refusal != nil:
			assert.Equal(t, p.Refusal, q.err, "seed %d", seed)
		case p.Fits || len(victims) > 0:
			assert.True(t, done && q.err == nil, "seed %d", seed)
			got := r.o.ledger.used()
			if p.Fits {
				assert.Equal(t, used.plus(p.Needs), got, "seed %d", seed)
			}
		default:
			assert.False(t, done, "seed %d: it waits for leases", seed)
			assert.NotEmpty(t, p.Blockers, "seed %d", seed)
		}
	}
}
