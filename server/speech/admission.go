package speech

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// agingStep is what one step of priority is worth: a request goes before those of a priority one lower that came up to
// this long before it, and after those that came earlier. So none is passed for ever.
const agingStep = 30 * time.Second

// Limits of an Admission. A request that runs needs no place in a queue.
type Limits struct {
	Running  int // most requests that speak at one time, at least 1
	Queued   int // most requests that wait, all together
	PerModel int // most requests that wait for one model
}

// Place is what a request asks of an Admission.
type Place struct {
	Model    string
	Priority int           // higher goes first
	Chars    int           // of its text, from which the time it will take is predicted
	Patience time.Duration // how long it can wait; 0 is for ever
}

// Admission decides who speaks and who waits: by priority with aging, first come first served among equals. A request
// takes a Ticket when it arrives, which fails at once when the queue is full or the wait would be too long. Requests
// whose model has to be loaded yield their turn meanwhile, and others of that model stay in the queue, so that a load
// keeps no other model's requests from running and those that wait hold no model. Its methods may be called from any
// goroutine.
type Admission struct {
	mu      sync.Mutex
	limits  Limits
	arrived uint64               // tickets so far
	held    int                  // tickets that have not left
	running map[*Ticket]struct{} // those that have their turn
	crowds  map[string]*crowd    // by model; those with tickets
	paces   paces
}

// crowd is the tickets of one model.
type crowd struct {
	held    int
	loading int   // of them, those that yielded: the model is not there yet
	queue   queue // of them, those that wait for their turn
}

// NewAdmission returns an admission where nobody waits.
func NewAdmission(limits Limits) *Admission {
	return &Admission{limits: limits.atLeast(), running: make(map[*Ticket]struct{}), crowds: make(map[string]*crowd), paces: newPaces()}
}

func (l Limits) atLeast() Limits {
	return Limits{Running: max(l.Running, 1), Queued: max(l.Queued, 0), PerModel: max(l.PerModel, 0)}
}

// SetLimits changes the limits. Requests that run or wait already stay, even above the new ones.
func (a *Admission) SetLimits(limits Limits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limits = limits.atLeast()
	a.dispatchLocked()
}

// Load says how many requests run and how many wait now.
func (a *Admission) Load() (running, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.running), a.held - len(a.running)
}

// Slots is the most requests that speak at one time.
func (a *Admission) Slots() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.limits.Running
}

// Enter takes a place, or returns a *QueueFullError or a *TooLateError. The ticket must be left exactly once.
func (a *Admission) Enter(p Place) (*Ticket, error) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	t := &Ticket{admission: a, place: p, rank: now.Add(-time.Duration(p.Priority) * agingStep), number: a.arrived + 1, at: -1}
	if err := a.refuseLocked(now, t); err != nil {
		return nil, err
	}
	a.arrived++
	a.held++
	c := a.crowds[p.Model]
	if c == nil {
		c = &crowd{}
		a.crowds[p.Model] = c
	}
	c.held++
	t.crowd = c
	a.queueLocked(t)
	return t, nil
}

// refuseLocked says why t cannot have a place, nil if it can.
func (a *Admission) refuseLocked(now time.Time, t *Ticket) error {
	c := a.crowds[t.place.Model]
	switch {
	case c != nil && c.held >= a.limits.Running+a.limits.PerModel:
		return &QueueFullError{Model: t.place.Model, Waiting: c.held - a.runningLocked(c), RetryAfter: a.nextPlaceLocked(now, c)}
	case a.held >= a.limits.Running+a.limits.Queued:
		return &QueueFullError{Waiting: a.held - len(a.running), RetryAfter: a.nextPlaceLocked(now, nil)}
	}
	if t.place.Patience == 0 {
		return nil
	}
	if wait := a.waitLocked(now, t); wait > t.place.Patience {
		return &TooLateError{Wait: wait, Patience: t.place.Patience, RetryAfter: atLeastASecond(wait - t.place.Patience)}
	}
	return nil
}

func (a *Admission) runningLocked(c *crowd) int {
	n := 0
	for t := range a.running {
		if t.crowd == c {
			n++
		}
	}
	return n
}

// queueLocked makes t wait for its turn, which may come at once.
func (a *Admission) queueLocked(t *Ticket) {
	t.turn = make(chan struct{})
	heap.Push(&t.crowd.queue, t)
	a.dispatchLocked()
}

// dispatchLocked gives the free turns to the first in line. It is called after every change that may free one, so that
// at no time a request that could run waits while there is a turn.
func (a *Admission) dispatchLocked() {
	for len(a.running) < a.limits.Running {
		var next *Ticket
		for _, c := range a.crowds {
			if c.loading == 0 && len(c.queue) > 0 && (next == nil || c.queue[0].before(next)) {
				next = c.queue[0]
			}
		}
		if next == nil {
			return
		}
		heap.Pop(&next.crowd.queue)
		next.started = time.Now()
		a.running[next] = struct{}{}
		close(next.turn)
	}
}

// Ticket is one request's place. It is used by one goroutine.
type Ticket struct {
	admission *Admission
	place     Place
	crowd     *crowd
	rank      time.Time     // when it arrived, moved by its priority
	number    uint64        // of the ticket: those of the same rank go in this order
	turn      chan struct{} // closed when it may run
	started   time.Time     // when it could
	at        int           // in the crowd's queue; -1 is not there
	loading   bool
}

func (t *Ticket) before(other *Ticket) bool {
	if t.rank.Equal(other.rank) {
		return t.number < other.number
	}
	return t.rank.Before(other.rank)
}

// Start waits for the ticket's turn; it returns at once if it has it. When ctx ends first the ticket is good for
// nothing but to be left.
func (t *Ticket) Start(ctx context.Context) error {
	a := t.admission
	a.mu.Lock()
	if t.loading {
		t.loading = false
		t.crowd.loading--
		a.queueLocked(t)
	}
	turn := t.turn
	a.mu.Unlock()
	select {
	case <-turn:
		return nil
	default:
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Yield gives the turn to another request because the model is not there yet. Until the ticket starts again or is left
// no other request of its model gets a turn. The ticket must have its turn.
func (t *Ticket) Yield() {
	a := t.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, t)
	t.loading = true
	t.crowd.loading++
	a.dispatchLocked()
}

// Spoke tells that the request was answered whole, for the prediction of others. The ticket must have its turn.
func (t *Ticket) Spoke() {
	a := t.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paces.learn(t.place.Model, t.place.Chars, time.Since(t.started))
}

// Leave gives the place, and the turn if it has it, to the next ones.
func (t *Ticket) Leave() {
	a := t.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, t)
	if t.at >= 0 {
		heap.Remove(&t.crowd.queue, t.at)
	}
	if t.loading {
		t.crowd.loading--
	}
	a.held--
	if t.crowd.held--; t.crowd.held == 0 {
		delete(a.crowds, t.place.Model)
	}
	a.dispatchLocked()
}

// queue is a heap of tickets, the first in line on top.
type queue []*Ticket

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].before(q[j]) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	t := x.(*Ticket)
	t.at = len(*q)
	*q = append(*q, t)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.at = -1
	return t
}
