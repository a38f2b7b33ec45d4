package main

import (
	"container/heap"
	"container/list"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"barkd/cgo/cache"
	"barkd/deploy/cluster"
)

// Setup is a simulated site and its load.
type Setup struct {
	Replicas  int
	Models    int     // in demand
	Skew      float64 // popularity of the model of rank k is k^-Skew
	Slots     int     // models that fit a replica's memory
	Running   int     // requests that a replica speaks at one time
	Queue     int     // most requests that wait at a replica; more are refused
	Speech    time.Duration
	Load      time.Duration
	Offered   float64       // speech asked for, as a part of what all replicas can do
	Refresh   time.Duration // between a router's looks at the metrics
	PerServer int           // requests, in the mean
	Seed      uint64
}

// Outcome is what a policy came to. Waits are from the arrival to the beginning of speech.
type Outcome struct {
	Policy                string
	Requests, Hits, Loads int
	Evictions, Refused    int
	WaitP50, WaitP99      time.Duration
	records               [][]record // by replica, of those that were not refused
}

// record is a lease as a trace of the cache has it.
type record struct {
	model int
	at    time.Time
	held  time.Duration // from the grant to the release
}

// HitRate is the part of requests whose model was resident.
func (o Outcome) HitRate() float64 { return float64(o.Hits) / float64(o.Requests) }

// Per1000 is n for a thousand requests.
func (o Outcome) Per1000(n int) float64 { return 1000 * float64(n) / float64(o.Requests) }

// replica is one server: a model cache with the shipped policy (the least recently used idle model goes, a model in
// use never does, keys that need room wait in order), and an admission of so many running and so many waiting.
type replica struct {
	entries map[int]*entry
	recent  *list.List // of *entry, least recently acquired or released first
	room    []*entry   // wait for a slot, in order
	running int
	turn    []*request // have their model and wait to run, in order
	held    int        // requests, running or waiting
}

type entry struct {
	model    int
	resident bool
	loading  bool
	leases   int
	waiters  []*request
	place    *list.Element // nil unless resident
}

type request struct {
	model   int
	replica int
	at      time.Duration
	granted time.Duration
	speech  time.Duration
}

type simulation struct {
	Setup
	policy   policy
	replicas []*replica
	views    []cluster.View // as of the last look
	random   *rand.Rand
	now      time.Duration
	events   events
	order    int
	names    []string
	waits    []time.Duration
	out      Outcome
}

// Simulate runs the load once under a policy. The arrivals, models and lengths are the same for every policy.
func Simulate(setup Setup, open func(Setup) policy) Outcome {
	s := &simulation{Setup: setup, policy: open(setup), random: rand.New(rand.NewPCG(setup.Seed, 2))}
	s.out.Policy = s.policy.name()
	s.out.records, s.views = make([][]record, setup.Replicas), make([]cluster.View, setup.Replicas)
	for range setup.Replicas {
		s.replicas = append(s.replicas, &replica{entries: map[int]*entry{}, recent: list.New()})
	}
	for i := range setup.Models {
		s.names = append(s.names, modelName(i))
	}
	s.arrivals()
	s.look()
	for s.events.Len() > 0 {
		next := heap.Pop(&s.events).(event)
		s.now = next.at
		next.do()
	}
	slices.Sort(s.waits)
	if n := len(s.waits); n > 0 {
		s.out.WaitP50, s.out.WaitP99 = s.waits[n/2], s.waits[n*99/100]
	}
	return s.out
}

// arrivals are a Poisson stream; lengths of speech are exponential.
func (s *simulation) arrivals() {
	load := rand.New(rand.NewPCG(s.Seed, 1))
	popularity := newZipf(s.Models, s.Skew)
	total := s.Replicas * s.PerServer
	gap := s.Speech.Seconds() / (s.Offered * float64(s.Replicas*s.Running))
	at := 0.0
	for range total {
		at += load.ExpFloat64() * gap
		r := &request{model: popularity.draw(load), at: seconds(at), speech: seconds(load.ExpFloat64() * s.Speech.Seconds())}
		s.when(r.at, func() { s.arrive(r) })
	}
}

func seconds(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }

// look gives the router new metrics, every Refresh for as long as anything happens.
func (s *simulation) look() {
	for i, r := range s.replicas {
		s.views[i] = r.describe(s)
	}
	if s.events.Len() > 0 {
		s.when(s.now+s.Refresh, s.look)
	}
}

// describe is what the replica's /metrics would say.
func (r *replica) describe(s *simulation) cluster.View {
	v := cluster.View{Running: r.running, Waiting: r.held - r.running, MaxModels: s.Slots,
		Utilization: float64(r.running) / float64(s.Running), Resident: map[string]bool{}, Loading: map[string]bool{}}
	for model, e := range r.entries {
		if e.resident {
			v.Resident[s.names[model]] = true
		} else {
			v.Loading[s.names[model]] = true
		}
	}
	return v
}

func (s *simulation) arrive(q *request) {
	q.replica = s.policy.pick(s, q.model)
	r := s.replicas[q.replica]
	s.out.Requests++
	if r.held >= s.Running+s.Queue {
		s.out.Refused++
		return
	}
	r.held++
	e := r.entries[q.model]
	switch {
	case e != nil && e.resident:
		s.out.Hits++
		s.grant(r, e, q)
	case e != nil:
		e.waiters = append(e.waiters, q)
	default:
		e = &entry{model: q.model, waiters: []*request{q}}
		r.entries[q.model] = e
		r.room = append(r.room, e)
		s.makeRoom(r)
	}
}

// makeRoom begins the loads there is room for, evicting idle models for them, first come first served.
func (s *simulation) makeRoom(r *replica) {
	for len(r.room) > 0 {
		taken := len(r.entries) - len(r.room)
		if taken >= s.Slots && !s.evict(r) {
			return
		}
		e := r.room[0]
		r.room = r.room[1:]
		e.loading = true
		s.out.Loads++
		s.when(s.now+s.Load, func() { s.loaded(r, e) })
	}
}

func (s *simulation) evict(r *replica) bool {
	for at := r.recent.Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); e.leases == 0 {
			r.recent.Remove(at)
			delete(r.entries, e.model)
			s.out.Evictions++
			return true
		}
	}
	return false
}

func (s *simulation) loaded(r *replica, e *entry) {
	e.loading, e.resident = false, true
	e.place = r.recent.PushBack(e)
	for _, q := range e.waiters {
		s.grant(r, e, q)
	}
	e.waiters = nil
}

// grant gives the request its lease; it runs when it is its turn.
func (s *simulation) grant(r *replica, e *entry, q *request) {
	e.leases++
	r.recent.MoveToBack(e.place)
	q.granted = s.now
	r.turn = append(r.turn, q)
	s.run(r)
}

func (s *simulation) run(r *replica) {
	for r.running < s.Running && len(r.turn) > 0 {
		q := r.turn[0]
		r.turn = r.turn[1:]
		r.running++
		s.waits = append(s.waits, s.now-q.at)
		s.when(s.now+q.speech, func() { s.done(r, q) })
	}
}

func (s *simulation) done(r *replica, q *request) {
	e := r.entries[q.model]
	e.leases--
	r.recent.MoveToBack(e.place)
	r.running--
	r.held--
	s.out.records[q.replica] = append(s.out.records[q.replica], record{q.model, epoch.Add(q.at), s.now - q.granted})
	s.makeRoom(r)
	s.run(r)
}

var epoch = time.Unix(0, 0)

// Trace is what a replica's cache was asked for, for a replay on the shipped cache.
func (o Outcome) Trace(replica int, load time.Duration) []cache.TraceEvent {
	sorted := slices.Clone(o.records[replica])
	slices.SortFunc(sorted, func(a, b record) int { return a.at.Compare(b.at) })
	var out []cache.TraceEvent
	seen := map[int]bool{}
	for _, r := range sorted {
		if !seen[r.model] {
			seen[r.model] = true
			out = append(out, cache.TraceEvent{Key: modelName(r.model), At: r.at, Footprint: &cache.Footprint{}, Load: load})
		}
		out = append(out, cache.TraceEvent{Key: modelName(r.model), At: r.at, Held: r.held})
	}
	return out
}

// zipf draws ranks by their popularity.
type zipf struct{ sums []float64 }

func newZipf(n int, skew float64) *zipf {
	z := &zipf{make([]float64, n)}
	sum := 0.0
	for k := range n {
		sum += math.Pow(float64(k+1), -skew)
		z.sums[k] = sum
	}
	return z
}

func (z *zipf) draw(random *rand.Rand) int {
	at, _ := slices.BinarySearch(z.sums, random.Float64()*z.sums[len(z.sums)-1])
	return min(at, len(z.sums)-1)
}

// event is something that happens at a time; events are a heap of them, of one time in the order they were made.
type event struct {
	at    time.Duration
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func (s *simulation) when(at time.Duration, do func()) {
	s.order++
	heap.Push(&s.events, event{at, s.order, do})
}
