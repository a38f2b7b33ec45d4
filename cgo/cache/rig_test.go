package cache

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A rig drives an owner by hand: no goroutines, and a clock that moves when the test says so.
type rig struct {
	t       testing.TB
	o       *owner[int]
	now     time.Time
	sizes   map[string]Footprint
	places  map[string][]Footprint // of keys with more than one
	pending []effect[int]
	made    int
}

var epoch = time.Unix(1_000_000, 0)

const epochStep = 4 * time.Second

var errNoRoom = errors.New("out of memory")

func newRig(t testing.TB, opts Options[int], sizes map[string]Footprint) *rig {
	opts.Load, opts.Free = neverLoad, neverFree
	opts.Classify = func(err error) Failure {
		if errors.Is(err, errNoRoom) {
			return FailureNoRoom
		}
		return classify(err)
	}
	return &rig{t: t, o: newOwner(opts), now: epoch, sizes: sizes}
}

// A request is one acquire of a rig.
type request struct {
	key   string
	lease Lease[int]
	w     *waiter[int]
	err   error
}

func (r *rig) ask(key string, ask Ask, outer ...Lease[int]) *request {
	q := &request{key: key}
	q.lease, q.w, q.err = r.o.acquire(r.now, key, ask, outer)
	r.collect()
	return q
}

func (r *rig) collect() {
	r.pending = append(r.pending, r.o.effects...)
	r.o.effects = nil
}

// poll takes over the answer; false while there is none.
func (q *request) poll() bool {
	if q.w == nil {
		return true
	}
	select {
	case <-q.w.answered:
		q.lease, q.err, q.w = q.w.lease, q.w.err, nil
		return true
	default:
		return false
	}
}

// take removes the first pending effect of a kind on a key.
func (r *rig) take(kind effectKind, key string) *entry[int] {
	r.t.Helper()
	r.collect()
	at := slices.IndexFunc(r.pending, func(e effect[int]) bool { return e.kind == kind && e.entry.key == key })
	require.GreaterOrEqual(r.t, at, 0, "no effect %d on %s is pending", kind, key)
	e := r.pending[at].entry
	r.pending = slices.Delete(r.pending, at, at+1)
	return e
}

func (r *rig) estimate(key string) {
	r.t.Helper()
	r.o.estimated(r.now, r.take(doEstimate, key), r.placesOf(key), nil)
	r.collect()
}

func (r *rig) placesOf(key string) []Footprint {
	if places, several := r.places[key]; several {
		return places
	}
	return []Footprint{r.sizes[key]}
}

func (r *rig) load(key string, actual Footprint, err error) {
	r.t.Helper()
	r.made++
	r.o.loaded(r.now, r.take(doLoad, key), r.made, actual, err)
	r.collect()
}

func (r *rig) free(key string, left Bytes) {
	r.t.Helper()
	r.o.freedNow(r.now, r.take(doFree, key), left, func() Bytes { return left }, nil)
	r.collect()
}

// settle lets everything that runs succeed, until nothing runs.
func (r *rig) settle() {
	r.t.Helper()
	for r.collect(); len(r.pending) > 0; r.collect() {
		switch what := r.pending[0]; what.kind {
		case doEstimate:
			r.estimate(what.entry.key)
		case doLoad:
			r.load(what.entry.key, what.entry.footprint, nil)
		case doFree:
			r.free(what.entry.key, Bytes{})
		}
	}
}

// resident acquires key and settles.
func (r *rig) resident(key string, ask Ask) Lease[int] {
	r.t.Helper()
	q := r.ask(key, ask)
	r.settle()
	require.True(r.t, q.poll(), "%s still waits", key)
	require.NoError(r.t, q.err)
	return q.lease
}

func (r *rig) release(leases ...Lease[int]) {
	for _, l := range leases {
		r.o.release(r.now, l)
		r.collect()
	}
}

// states lists the instances as key:state, least recently used first.
func (r *rig) states() []string { return keys(r.o.snapshot(r.now)) }

// books returns booked, reserved and unreturned of the first pool.
func (r *rig) books() [3]int64 {
	return [3]int64{r.o.ledger.booked[0], r.o.ledger.reserved[0], r.o.ledger.unreturned[0]}
}

// own is a footprint of so many bytes in each pool.
func own(bytes ...int64) Footprint {
	var f Footprint
	copy(f.Own[:], bytes)
	return f
}

// with adds a component to a footprint.
func with(f Footprint, id string, bytes ...int64) Footprint {
	c := Component{ID: id}
	copy(c.Bytes[:], bytes)
	f.Shared = append(slices.Clip(f.Shared), c)
	return f
}

func pool(budgets ...int64) []Pool {
	names := []string{"ram", "cuda0", "cuda1"}
	var out []Pool
	for i, b := range budgets {
		out = append(out, Pool{Name: names[i], Budget: b})
	}
	return out
}

func (r *rig) waits(q *request) {
	r.t.Helper()
	assert.False(r.t, q.poll(), "%s was answered: %v", q.key, q.err)
}

func (r *rig) served(q *request) Lease[int] {
	r.t.Helper()
	require.True(r.t, q.poll(), "%s still waits", q.key)
	require.NoError(r.t, q.err)
	return q.lease
}

// The owner runs neither: the rig reports what they would.
func neverLoad(context.Context, string, int, func(int64, int64)) (int, error) {
	panic("the owner loads nothing")
}

func neverFree(string, int) (func() Bytes, error) { panic("the owner frees nothing") }
