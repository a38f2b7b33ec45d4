package cache

import (
	"container/heap"
	"context"
	"slices"
	"time"
)

// ReplayOptions are the cache that a trace is replayed on.
type ReplayOptions struct {
	MaxEntries int
	Pools      []Pool
	KeepAlive  time.Duration // 0 is Forever
}

// Replayed is what a cache would have done with a trace.
type Replayed struct {
	Requests  int
	Hits      uint64
	Misses    uint64
	Refused   uint64
	Loads     uint64
	Evictions uint64
	HitRate   float64 // 0..1
	Loaded    int64   // bytes, components each time
	Peak      Bytes   // booked and reserved
	Waited    time.Duration
	WaitP50   time.Duration
	WaitP99   time.Duration
}

// Replay runs a trace on a cache of other limits: the shipped policy on a simulated clock. Requests arrive when they
// did and hold their leases as long as they did; a load takes the time and the bytes that its key's last load took. A
// key whose load the trace does not have takes nothing.
func Replay(trace []TraceEvent, o ReplayOptions) Replayed {
	r := newReplay(o)
	for _, e := range trace {
		if e.Footprint != nil {
			r.sizes[e.Key] = e
		}
	}
	for _, e := range trace {
		if e.Footprint == nil {
			r.out.Requests++
			r.at(e.At, func() { r.arrive(e) })
		}
	}
	for r.pending.Len() > 0 {
		next := heap.Pop(&r.pending).(moment)
		r.now = next.at
		next.do()
		r.settle()
	}
	return r.result()
}

type replay struct {
	own     *owner[struct{}]
	sizes   map[string]TraceEvent
	pending moments
	order   int
	now     time.Time
	due     time.Time // of the expiry that is pending
	waiting map[*waiter[struct{}]]time.Duration
	waits   []time.Duration
	out     Replayed
}

func newReplay(o ReplayOptions) *replay {
	return &replay{
		sizes:   make(map[string]TraceEvent),
		waiting: make(map[*waiter[struct{}]]time.Duration),
		own: newOwner(Options[struct{}]{
			Pools: o.Pools, MaxEntries: o.MaxEntries, KeepAlive: o.KeepAlive, Ghosts: 1, Journal: 1,
			Load: func(context.Context, string, int, func(done, total int64)) (struct{}, error) { return struct{}{}, nil },
			Free: func(string, struct{}) (func() Bytes, error) { return nil, nil },
		}),
	}
}

func (r *replay) at(t time.Time, do func()) {
	r.order++
	heap.Push(&r.pending, moment{at: t, order: r.order, do: do})
}

func (r *replay) arrive(e TraceEvent) {
	lease, w, err := r.own.acquire(r.now, e.Key, Ask{}, nil)
	switch {
	case w != nil:
		r.waiting[w] = e.Held
	case err != nil:
		r.out.Refused++
	default:
		r.hold(lease, e.Held, 0)
	}
}

func (r *replay) hold(l Lease[struct{}], held, waited time.Duration) {
	r.out.Waited += waited
	r.waits = append(r.waits, waited)
	r.at(r.now.Add(held), func() { r.own.release(r.now, l) })
}

// settle does what the owner asks for, and serves those it has answered.
func (r *replay) settle() {
	for len(r.own.effects) > 0 {
		effects := r.own.effects
		r.own.effects = nil
		for _, what := range effects {
			r.run(what)
		}
	}
	used := r.own.ledger.used()
	for i := range used {
		r.out.Peak[i] = max(r.out.Peak[i], used[i])
	}
	for w, held := range r.waiting {
		select {
		case <-w.answered:
			delete(r.waiting, w)
			if w.err != nil {
				r.out.Refused++
			} else {
				r.hold(w.lease, held, r.now.Sub(w.at))
			}
		default:
		}
	}
	if at := r.own.expiresAt; !at.IsZero() && !at.Equal(r.due) {
		r.due = at
		r.at(at, func() { r.own.expire(r.now) })
	}
}

func (r *replay) run(what effect[struct{}]) {
	e := what.entry
	size, known := r.sizes[e.key]
	var f Footprint
	if known {
		f = *size.Footprint
	}
	switch what.kind {
	case doEstimate:
		r.own.estimated(r.now, e, []Footprint{f}, nil)
	case doLoad:
		r.out.Loaded += f.Whole().minus(f.Session).Total()
		r.at(r.now.Add(size.Load), func() { r.own.loaded(r.now, e, struct{}{}, f, nil) })
	case doFree:
		r.own.freedNow(r.now, e, Bytes{}, nil, nil)
	}
}

func (r *replay) result() Replayed {
	n := &r.own.counters
	r.out.Hits, r.out.Misses, r.out.Loads = n.hits.Load(), n.misses.Load(), n.loads.Load()
	for i := range n.evictions {
		r.out.Evictions += n.evictions[i].Load()
	}
	if r.out.Requests > 0 {
		r.out.HitRate = float64(r.out.Hits) / float64(r.out.Requests)
	}
	slices.Sort(r.waits)
	if n := len(r.waits); n > 0 {
		r.out.WaitP50, r.out.WaitP99 = r.waits[n/2], r.waits[n*99/100]
	}
	return r.out
}

// A moment is something that happens at a time; moments are a heap of them.
type moment struct {
	at    time.Time
	order int
	do    func()
}

type moments []moment

func (m moments) Len() int { return len(m) }
func (m moments) Less(i, j int) bool {
	if m[i].at.Equal(m[j].at) {
		return m[i].order < m[j].order
	}
	return m[i].at.Before(m[j].at)
}
func (m moments) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)   { *m = append(*m, x.(moment)) }
func (m *moments) Pop() any {
	old := *m
	last := old[len(old)-1]
	*m = old[:len(old)-1]
	return last
}
