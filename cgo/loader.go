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

// loader is what the cache does not know: how models are sized, loaded, measured and freed. Memory pool i of the
// cache is the runtime's device i; pool 0 is the host, which also holds the tables of models on other devices.
type loader struct {
	runtime Runtime
	pool    *Pool
	resolve Resolver
	opts    LoadOptions
	session SessionOptions
	timeout time.Duration // of a load; 0 is none
}

// hostPool is device 0, the CPU.
const hostPool = 0

// on are the options of a load on a device.
func (l *loader) on(device int) LoadOptions {
	opts := l.opts
	opts.Device = device
	return opts
}

// estimate tells what a model will take on each device where it may be, from its file's header. A device that cannot
// run it is left out if another one can.
func (l *loader) estimate(_ context.Context, id string) ([]cache.Footprint, error) {
	src, err := l.resolve(id)
	if err != nil {
		return nil, err
	}
	var places []cache.Footprint
	var failed error
	for _, device := range l.pool.placement.of(id) {
		if l.pool.lost[device].Load() { // the cache says so to whoever has no other place
			places = append(places, cache.Footprint{Home: device, Rank: l.pool.placement.rank(device)})
			continue
		}
		estimate, err := l.runtime.Estimate(src, l.on(device), l.session)
		if err != nil {
			if err = l.pool.judge(device, err); failed == nil {
				failed = err
			}
			continue
		}
		f := l.footprint(device, estimate.Model, estimate.Components)
		f.Session = cache.In(device, estimate.Session.TotalBytes)
		places = append(places, f)
	}
	if len(places) == 0 {
		return nil, failed
	}
	return places, nil
}

// footprint turns a model's memory on a device into what the cache books.
func (l *loader) footprint(device int, m Memory, components []Component) cache.Footprint {
	f := cache.Footprint{Own: cache.In(device, m.TotalBytes-m.TablesBytes), Home: device, Rank: l.pool.placement.rank(device)}
	f.Own[hostPool] += m.TablesBytes
	for _, c := range components {
		f.Own[device] -= c.Bytes
		f.Shared = append(f.Shared, cache.Component{
			ID:    fmt.Sprintf("%d:%s:%d", device, c.Digest, c.Bytes),
			Bytes: cache.In(device, c.Bytes),
		})
	}
	return f
}

// load loads a model on a device.
func (l *loader) load(ctx context.Context, id string, device int, progress func(done, total int64)) (*resident, error) {
	src, err := l.resolve(id)
	if err != nil {
		return nil, err
	}
	opts := l.on(device)
	opts.Progress = progress
	if l.timeout > 0 {
		late := fmt.Errorf("the load %w: more than %v", ErrTimeout, l.timeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.timeout, late)
		defer cancel()
	}
	model, err := l.runtime.Load(ctx, src, opts)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
			return nil, cause
		}
		return nil, l.pool.judge(device, err)
	}
	estimate, err := l.runtime.Estimate(src, opts, l.session)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("size of a session: %w", l.pool.judge(device, err)), model.Close())
	}
	if again, err := l.resolve(id); err != nil || again.Version != src.Version {
		src.Version = "" // the file was replaced meanwhile: which one was loaded is not known
	}
	return &resident{Model: model, device: device, version: src.Version, account: model.Account(), session: estimate.Session.TotalBytes}, nil
}

// A resident is a loaded model in the cache.
type resident struct {
	Model
	device  int
	version string // Source.Version, "" if it is not known
	account Account
	session int64 // bytes of one
}

// measure tells what a loaded model takes, by the native allocator's own count.
func (l *loader) measure(r *resident) cache.Footprint {
	f := l.footprint(r.device, r.Memory(), r.Components())
	f.Session = cache.In(r.device, r.session)
	return f
}

// free closes a model. What its account still holds afterwards has not been returned.
func (l *loader) free(_ string, r *resident) (residue func() cache.Bytes, err error) {
	err = r.Close()
	return func() cache.Bytes { return cache.In(r.device, r.account.Live()) }, err
}

// classify says what a failed load means for the next one.
func classify(err error) cache.Failure {
	switch {
	case errors.Is(err, ErrOutOfMemory):
		return cache.FailureNoRoom
	case errors.Is(err, ErrLost), errors.Is(err, ErrNotFound), errors.Is(err, ErrInvalidArgument), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded):
		return cache.FailurePlain
	}
	return cache.FailureCools
}
