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
	resolve Resolver
	opts    LoadOptions
	timeout time.Duration // of a load; 0 is none
}

// hostPool is device 0, the CPU.
const hostPool = 0

// estimate tells what a model will take, from its file's header.
func (l *loader) estimate(_ context.Context, id string) ([]cache.Footprint, error) {
	src, err := l.resolve(id)
	if err != nil {
		return nil, err
	}
	estimate, err := l.runtime.Estimate(src, l.opts, SessionOptions{})
	if err != nil {
		return nil, err
	}
	f := l.footprint(estimate.Model, estimate.Components)
	f.Session = cache.In(l.opts.Device, estimate.Session.TotalBytes)
	return []cache.Footprint{f}, nil
}

// footprint turns a model's memory into what the cache books.
func (l *loader) footprint(m Memory, components []Component) cache.Footprint {
	f := cache.Footprint{Own: cache.In(l.opts.Device, m.TotalBytes-m.TablesBytes), Home: l.opts.Device}
	f.Own[hostPool] += m.TablesBytes
	for _, c := range components {
		f.Own[l.opts.Device] -= c.Bytes
		f.Shared = append(f.Shared, cache.Component{
			ID:    fmt.Sprintf("%d:%s:%d", l.opts.Device, c.Digest, c.Bytes),
			Bytes: cache.In(l.opts.Device, c.Bytes),
		})
	}
	return f
}

// load loads a model.
func (l *loader) load(ctx context.Context, id string, _ int, progress func(done, total int64)) (*resident, error) {
	src, err := l.resolve(id)
	if err != nil {
		return nil, err
	}
	opts := l.opts
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
		return nil, err
	}
	estimate, err := l.runtime.Estimate(src, l.opts, SessionOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("size of a session: %w", err), model.Close())
	}
	if again, err := l.resolve(id); err != nil || again.Version != src.Version {
		src.Version = "" // the file was replaced meanwhile: which one was loaded is not known
	}
	return &resident{Model: model, version: src.Version, account: model.Account(), session: estimate.Session.TotalBytes}, nil
}

// A resident is a loaded model in the cache.
type resident struct {
	Model
	version string // Source.Version, "" if it is not known
	account Account
	session int64 // bytes of one
}

// measure tells what a loaded model takes, by the native allocator's own count.
func (l *loader) measure(r *resident) cache.Footprint {
	f := l.footprint(r.Memory(), r.Components())
	f.Session = cache.In(l.opts.Device, r.session)
	return f
}

// free closes a model. What its account still holds afterwards has not been returned.
func (l *loader) free(_ string, r *resident) (residue func() cache.Bytes, err error) {
	err = r.Close()
	return func() cache.Bytes { return cache.In(l.opts.Device, r.account.Live()) }, err
}

// classify says what a failed load means for the next one.
func classify(err error) cache.Failure {
	switch {
	case errors.Is(err, ErrOutOfMemory):
		return cache.FailureNoRoom
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrInvalidArgument), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded):
		return cache.FailurePlain
	}
	return cache.FailureCools
}
