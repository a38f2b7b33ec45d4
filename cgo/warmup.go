package cgo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"barkd/cgo/cache"
)

// WarmupState is where one model of the warm-up is.
type WarmupState string

// The states of a model in the warm-up.
const (
	WarmupPending WarmupState = "pending"
	WarmupLoading WarmupState = "loading"
	WarmupReady   WarmupState = "ready"
	WarmupMissing WarmupState = "missing" // not on this machine
	WarmupFailed  WarmupState = "failed"
)

// WarmupModel is one model of the warm-up.
type WarmupModel struct {
	ID    string
	State WarmupState
	Took  time.Duration
	Err   error
}

// Warmup loads models before anybody asks for them, one after the other. Its state may be read from any goroutine.
type Warmup struct {
	mu     sync.Mutex // guards models
	models []WarmupModel
	done   chan struct{}
}

// NewWarmup lists the models to warm up, each once.
func NewWarmup(ids []string) *Warmup {
	w := &Warmup{done: make(chan struct{})}
	known := make(map[string]bool)
	for _, id := range ids {
		if !known[id] {
			known[id] = true
			w.models = append(w.models, WarmupModel{ID: id, State: WarmupPending})
		}
	}
	return w
}

// Run loads the models; it is called once and ends early with ctx. find says whether a model is there; its
// ErrNotFound makes it missing. Models beyond the pool's limit fail: they would push out the first ones. tell (nil for
// nobody) hears of each outcome.
func (w *Warmup) Run(ctx context.Context, pool *Pool, find func(ctx context.Context, id string) error, tell func(WarmupModel)) {
	defer close(w.done)
	most := pool.Snapshot().MaxEntries
	loaded := 0
	for i := range w.models {
		m := w.set(i, func(m *WarmupModel) { m.State = WarmupLoading })
		start := time.Now()
		err := find(ctx, m.ID)
		switch {
		case err == nil && most > 0 && loaded == most:
			err = fmt.Errorf("%w: the cache holds at most %d models, and the first %d of the list fill it", ErrInvalidArgument, most, most)
		case err == nil:
			err = pool.Warm(ctx, m.ID)
		}
		m = w.set(i, func(m *WarmupModel) {
			m.State, m.Took, m.Err = WarmupReady, time.Since(start), err
			if errors.Is(err, ErrNotFound) {
				m.State = WarmupMissing
			} else if err != nil {
				m.State = WarmupFailed
			}
		})
		if err == nil {
			loaded++
		}
		if tell != nil {
			tell(m)
		}
	}
}

// Warm loads a model without pushing anything out: a warm-up that evicts is none.
func (p *Pool) Warm(ctx context.Context, id string) error {
	plan, err := p.Plan(ctx, id)
	if err != nil {
		return err
	}
	if len(plan.Victims) > 0 {
		return fmt.Errorf("%w: it would push out %s", ErrInvalidArgument, plan.Victims[0].Key)
	}
	return closedError(id, p.Cache.Preload(ctx, id, cache.Ask{Holder: "warm-up"}, nil))
}

func (w *Warmup) set(i int, change func(*WarmupModel)) WarmupModel {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.models[i])
	return w.models[i]
}

// Models returns the present states.
func (w *Warmup) Models() []WarmupModel {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]WarmupModel{}, w.models...)
}

// Done is closed when every model was tried.
func (w *Warmup) Done() <-chan struct{} { return w.done }
