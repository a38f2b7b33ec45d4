package cgo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"barkd/cgo/cache"
)

// How the pool treats models that wait and loads that fail.
const (
	patience    = 30 * time.Second // of a model that waits while busy ones take ever more leases
	coolDown    = 10 * time.Second // after a first failed load; it doubles
	maxCoolDown = 5 * time.Minute
)

// PoolOptions choose how a Pool keeps models.
type PoolOptions struct {
	MaxModels int         // most models in memory at one time; below 1: no limit
	Load      LoadOptions // for every model; the pool chooses the device
	// Devices are the indices of those that models may be on; none is the CPU alone. Of two that could take a model it
	// goes where most of the budget is left. The CPU takes what the others listed cannot have at all.
	Devices []int
	// ModelDevices are the same for single models.
	ModelDevices map[string][]int
	// Session is what room is kept for: that of the sessions that are asked for.
	Session SessionOptions
	// Budgets in bytes by device index; 0 or missing: no limit. Budget 0 is host memory.
	Budgets []int64
	// KeepAlive is how long an idle model stays, cache.Forever or cache.AtOnce; 0 is cache.Forever.
	KeepAlive time.Duration
	// MaxWait bounds how long an Acquire waits for room and a load; 0 is no bound but the caller's context.
	MaxWait time.Duration
	// LoadTimeout ends a load that hangs, with ErrTimeout; 0 is never.
	LoadTimeout time.Duration
	// Demand is the access pattern of an earlier run, as Demand returned it.
	Demand []cache.Demand
	// Report receives errors that no caller waits for, those of frees. May be nil.
	Report func(id string, err error)
	// Lost hears once of each device that is lost, on the goroutine that found out. It must not wait. May be nil.
	Lost func(Loss)
	// Asked hears of every Acquire of a model that there is; Decided of every decision of the cache. Decided is called
	// under the cache's lock and must not wait. They may be nil.
	Asked   func(id string, how cache.Outcome)
	Decided func(cache.Event)
	// Trace hears of every finished lease and load; it must not wait. May be nil.
	Trace func(cache.TraceEvent)
}

// Pool keeps loaded models, least recently used first out. Its methods may be called from any goroutine.
type Pool struct {
	*cache.Cache[*resident]
	runtime   Runtime
	devices   []Device
	placement placement
	lost      [cache.MaxPools]atomic.Bool
	session   SessionOptions
	maxWait   time.Duration
	asked     func(id string, how cache.Outcome)
	told      func(Loss)
}

// NewPool returns an empty pool. The caller must Close it.
func NewPool(rt Runtime, resolve Resolver, opts PoolOptions) (*Pool, error) {
	devices, err := rt.Devices()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	if len(devices) > cache.MaxPools {
		devices = devices[:cache.MaxPools]
	}
	placement, err := newPlacement(devices, opts)
	if err != nil {
		return nil, err
	}
	if opts.Asked == nil {
		opts.Asked = func(string, cache.Outcome) {}
	}
	if opts.Lost == nil {
		opts.Lost = func(Loss) {}
	}
	p := &Pool{runtime: rt, devices: devices, placement: placement, session: opts.Session, maxWait: opts.MaxWait, asked: opts.Asked, told: opts.Lost}
	l := &loader{runtime: rt, pool: p, resolve: resolve, opts: opts.Load, session: opts.Session, timeout: opts.LoadTimeout}
	var pools []cache.Pool
	for i, d := range devices {
		pool := cache.Pool{Name: d.ID}
		if i < len(opts.Budgets) {
			pool.Budget = opts.Budgets[i]
		}
		pools = append(pools, pool)
	}
	p.Cache = cache.New(cache.Options[*resident]{
		Pools:      pools,
		MaxEntries: opts.MaxModels,
		KeepAlive:  opts.KeepAlive,
		Patience:   patience,
		CoolDown:   coolDown, MaxCoolDown: maxCoolDown,
		Demand:   opts.Demand,
		Classify: classify,
		Estimate: l.estimate,
		Measure:  l.measure,
		Load:     l.load,
		Free:     l.free,
		Report:   opts.Report,
		Observe:  opts.Decided,
		Trace:    opts.Trace,
	})
	for i, d := range devices {
		if d.Kind == "cpu" || !placement.uses(i) {
			continue
		}
		if _, err := rt.Probe(i); err != nil { // it never worked
			p.lose(i, err.Error())
		}
	}
	return p, nil
}

// Devices lists the devices; device i's memory is the cache's pool i.
func (p *Pool) Devices() []Device { return p.devices }

// ModelLease keeps a model in memory.
type ModelLease struct {
	lease cache.Lease[*resident]
	pool  *Pool
}

// Model returns the leased model. It must not be used after Release.
func (l *ModelLease) Model() Model { return l.lease.Value().Model }

// Version is the Source.Version that the model was loaded from, "" if that is not known.
func (l *ModelLease) Version() string { return l.lease.Value().version }

// Revoked is closed when the model is wanted back at once: the holder should stop and release.
func (l *ModelLease) Revoked() <-chan struct{} { return l.lease.Revoked() }

// Release gives the lease back. Only the first call counts.
func (l *ModelLease) Release() { l.lease.Release() }

// NewSession makes a session of the leased model when the ledger has room for it; it waits for that until ctx ends.
// One whose key-value cache is wider than the pool's takes the room of two or four.
func (l *ModelLease) NewSession(ctx context.Context, opts SessionOptions) (Session, error) {
	s := &leasedSession{lease: l.lease, pool: l.pool}
	width := map[KVType]int{KVI8: 1, KVF16: 2, KVF32: 4}
	rooms := max(1, width[opts.KV]/max(1, width[l.pool.session.KV]))
	for ; s.rooms < rooms; s.rooms++ {
		if err := l.lease.EnterSession(ctx); err != nil {
			s.leave()
			return nil, lostError(err)
		}
	}
	session, err := l.Model().NewSession(opts)
	if err != nil {
		s.leave()
		return nil, l.pool.judge(l.lease.Value().device, err)
	}
	s.Session = session
	return s, nil
}

// leasedSession gives its room in the ledger back when it is closed.
type leasedSession struct {
	Session
	lease cache.Lease[*resident]
	pool  *Pool
	rooms int
}

// Synthesize implements Session; it fails with ErrLost, too, when the device is lost.
func (s *leasedSession) Synthesize(ctx context.Context, req Request, sink Sink) (Stats, error) {
	stats, err := s.Session.Synthesize(ctx, req, sink)
	return stats, s.pool.judge(s.lease.Value().device, err)
}

// Close implements Session.
func (s *leasedSession) Close() error {
	err := s.Session.Close()
	s.leave()
	return err
}

func (s *leasedSession) leave() {
	for ; s.rooms > 0; s.rooms-- {
		s.lease.ExitSession()
	}
}

// Acquire returns a lease on the model id, loading it if needed. It waits until there is room and the load has ended,
// until ctx ends, or for PoolOptions.MaxWait. The caller must Release the lease exactly once. What cannot be had now
// is a *cache.Refusal.
func (p *Pool) Acquire(ctx context.Context, id string, ask cache.Ask) (*ModelLease, error) {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	lease, err := p.Cache.Acquire(ctx, id, ask)
	if err != nil {
		if !errors.Is(err, ErrNotFound) { // ids that are none are not counted by name
			p.asked(id, cache.Reject)
		}
		return nil, closedError(id, err)
	}
	p.asked(id, lease.Outcome())
	return &ModelLease{lease, p}, nil
}

// bounded returns a context that ends after PoolOptions.MaxWait, too.
func (p *Pool) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.maxWait > 0 {
		return context.WithTimeout(ctx, p.maxWait)
	}
	return ctx, func() {}
}

// closedError is the runtime's error for a closed pool.
func closedError(id string, err error) error {
	if errors.Is(err, cache.ErrClosed) {
		return fmt.Errorf("model %q: the server is shutting down: %w", id, ErrClosed)
	}
	return err
}

// Preload loads the model id, or returns when it is loaded. It waits as long as Acquire does. progress may be nil.
func (p *Pool) Preload(ctx context.Context, id string, progress func(done, total int64)) error {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	var follow func(cache.Progress)
	if progress != nil {
		follow = func(at cache.Progress) { progress(at.Done, at.Total) }
	}
	return closedError(id, p.Cache.Preload(ctx, id, cache.Ask{Holder: "preload"}, follow))
}

// Trim gives memory that was freed back to the system, on every device, and asks again for what freed models have not
// returned. It returns the bytes given back.
func (p *Pool) Trim() (int64, error) {
	var sum int64
	var errs []error
	for i := range p.devices {
		if p.lost[i].Load() {
			continue
		}
		returned, err := p.runtime.Trim(i)
		sum += returned
		errs = append(errs, err)
	}
	p.Sweep()
	return sum, errors.Join(errs...)
}
