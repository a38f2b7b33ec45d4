package cgo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"barkd/cgo/cache"
)

// Resolver finds the image of a model id; ErrNotFound when there is none. It runs as a part of the load.
type Resolver func(id string) (Source, error)

// PoolOptions choose how a Pool keeps models.
type PoolOptions struct {
	MaxModels int           // most models in memory at one time; below 1: no limit
	Load      LoadOptions   // for every model
	Patience  time.Duration // how long a model waits for room that busy ones never give up; 0 is no bound
	// Loaded hears of every load that ends, with its error or the model's memory; Freed of every free. They are
	// called on goroutines of the pool and may be nil.
	Loaded func(id string, took time.Duration, memory Memory, err error)
	Freed  func(id string, err error)
}

// Pool keeps loaded models, least recently used first out. Its methods may be called from any goroutine.
type Pool struct {
	models *cache.Cache[Model]
	max    int
}

// NewPool returns an empty pool. The caller must Close it.
func NewPool(rt Runtime, resolve Resolver, opts PoolOptions) *Pool {
	if opts.Loaded == nil {
		opts.Loaded = func(string, time.Duration, Memory, error) {}
	}
	if opts.Freed == nil {
		opts.Freed = func(string, error) {}
	}
	return &Pool{max: opts.MaxModels, models: cache.New(cache.Options[Model]{
		MaxEntries: opts.MaxModels,
		Patience:   opts.Patience,
		Bytes:      func(m Model) int64 { return m.Memory().TotalBytes },
		Load: func(ctx context.Context, id string) (Model, error) {
			start := time.Now()
			m, err := load(ctx, rt, resolve, id, opts.Load)
			var memory Memory
			if err == nil {
				memory = m.Memory()
			}
			opts.Loaded(id, time.Since(start), memory, err)
			return m, err
		},
		Free: func(id string, m Model) error {
			if err := m.Close(); err != nil {
				return err
			}
			opts.Freed(id, nil)
			return nil
		},
		Report: opts.Freed,
	})}
}

func load(ctx context.Context, rt Runtime, resolve Resolver, id string, opts LoadOptions) (Model, error) {
	src, err := resolve(id)
	if err != nil {
		return nil, err
	}
	return rt.Load(ctx, src, opts)
}

// ModelLease keeps a model in memory.
type ModelLease struct{ lease *cache.Lease[Model] }

// Model returns the leased model. It must not be used after Release.
func (l *ModelLease) Model() Model { return l.lease.Value() }

// Release gives the lease back. Only the first call counts.
func (l *ModelLease) Release() { l.lease.Release() }

// Acquire returns a lease on the model id, loading it if needed. It waits until there is room and the load has ended,
// or until ctx ends. The caller must Release the lease exactly once.
func (p *Pool) Acquire(ctx context.Context, id string) (*ModelLease, error) {
	lease, err := p.models.Acquire(ctx, id)
	if errors.Is(err, cache.ErrClosed) {
		return nil, fmt.Errorf("model %q: the server is shutting down: %w", id, ErrClosed)
	}
	if err != nil {
		return nil, err
	}
	return &ModelLease{lease}, nil
}

// Preload loads the model id, or returns when it is loaded.
func (p *Pool) Preload(ctx context.Context, id string) error {
	lease, err := p.Acquire(ctx, id)
	if err != nil {
		return err
	}
	lease.Release()
	return nil
}

// WarmupResult is the outcome for one model.
type WarmupResult struct {
	ID   string
	Took time.Duration
	Err  error
}

// Warmup loads models one after the other. Those beyond the limit are refused: they would push out the first ones.
func (p *Pool) Warmup(ctx context.Context, ids []string) []WarmupResult {
	results := make([]WarmupResult, 0, len(ids))
	distinct := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		start := time.Now()
		distinct[id] = struct{}{}
		var err error
		if p.max > 0 && len(distinct) > p.max {
			err = fmt.Errorf("warm up %q: the cache holds at most %d models: %w", id, p.max, ErrInvalidArgument)
		} else {
			err = p.Preload(ctx, id)
		}
		results = append(results, WarmupResult{ID: id, Took: time.Since(start), Err: err})
	}
	return results
}

// Clear frees the idle models before it returns, and those in use at their last release.
func (p *Pool) Clear() cache.Cleared { return p.models.Clear() }

// Remove does for one model what Clear does for all.
func (p *Pool) Remove(id string) cache.Cleared { return p.models.Remove(id) }

// PoolStats is the state of a pool at one moment; Bytes is the models' own count of their memory.
type PoolStats = cache.Snapshot

// Stats returns the present state. It never waits for a load or a free.
func (p *Pool) Stats() PoolStats { return p.models.Snapshot() }

// Close refuses new leases, stops loads and frees every model; it waits for the last lease, or until ctx ends, and
// may be called again.
func (p *Pool) Close(ctx context.Context) error { return p.models.Close(ctx) }
