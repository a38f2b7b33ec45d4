package speech

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Admission bounds how many requests run and how many wait, first come first served. A request takes a Ticket when
// it arrives, which fails at once when the queue is full, and starts it when its model is ready: so a request that
// waits for a model to load keeps no other from running.
type Admission struct {
	running int64 // at most this many at once
	waiting int   // at most this many more
	slots   *semaphore.Weighted

	mu      sync.Mutex
	held    int           // tickets
	started int           // tickets that run
	typical time.Duration // moving average of the time a request runs; 0 before the first
}

// NewAdmission allows running requests at once and waiting more in the queue.
func NewAdmission(running, waiting int) *Admission {
	running, waiting = max(running, 1), max(waiting, 0)
	return &Admission{running: int64(running), waiting: waiting, slots: semaphore.NewWeighted(int64(running))}
}

// Load says how many requests run and how many wait now.
func (a *Admission) Load() (running, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.started, a.held - a.started
}

// Enter takes a place, or returns a *QueueFullError. The ticket must be left exactly once.
func (a *Admission) Enter() (*Ticket, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held >= int(a.running)+a.waiting {
		return nil, &QueueFullError{Waiting: a.held - a.started, RetryAfter: a.retryAfterLocked()}
	}
	a.held++
	return &Ticket{admission: a}, nil
}

// retryAfterLocked estimates when the first of the waiting ones will have started, in whole seconds.
func (a *Admission) retryAfterLocked() time.Duration {
	seconds := math.Ceil(a.typical.Seconds() / float64(a.running))
	return time.Duration(min(max(seconds, 1), 120)) * time.Second
}

// Ticket is one request's place. It is used by one goroutine.
type Ticket struct {
	admission *Admission
	started   time.Time // zero while it waits
}

// Start waits for its turn to run.
func (t *Ticket) Start(ctx context.Context) error {
	if err := t.admission.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	t.started = time.Now()
	t.admission.mu.Lock()
	t.admission.started++
	t.admission.mu.Unlock()
	return nil
}

// Leave gives the place to the next one.
func (t *Ticket) Leave() {
	a := t.admission
	a.mu.Lock()
	a.held--
	ran := !t.started.IsZero()
	if ran {
		a.started--
		a.learnLocked(time.Since(t.started))
	}
	a.mu.Unlock()
	if ran {
		a.slots.Release(1)
	}
}

func (a *Admission) learnLocked(took time.Duration) {
	if a.typical == 0 {
		a.typical = took
		return
	}
	a.typical += (took - a.typical) / 8
}
