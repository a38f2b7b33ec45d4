package mock

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"barkd/cgo"
)

// Options of a simulated runtime.
type Options struct {
	// TimeScale multiplies all times: 1 is as slow as a two-core machine, 0 (the default) takes none.
	TimeScale float64
	// Wait waits d or until ctx ends, then returns ctx.Err(); nil uses a timer. It is not called for no time at all.
	Wait func(ctx context.Context, d time.Duration) error
	// Clock tells the time for Stats.StageMS; nil is time.Now.
	Clock func() time.Time
}

// Runtime implements cgo.Runtime.
type Runtime struct {
	opts Options
	live atomic.Int64
}

// New returns a simulated runtime.
func New(opts Options) *Runtime {
	if opts.Wait == nil {
		opts.Wait = waitForTimer
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	return &Runtime{opts: opts}
}

// LiveHandles counts models, sessions and voices not yet closed, for leak tests.
func (r *Runtime) LiveHandles() int64 { return r.live.Load() }

// Devices implements cgo.Runtime.
func (r *Runtime) Devices() ([]cgo.Device, error) {
	return []cgo.Device{{
		ID: "cpu", Kind: "cpu", Name: "simulated processor", Detail: "mock: nothing is computed",
		Cores: runtime.NumCPU(), FreeBytes: 24 << 30, TotalBytes: 32 << 30,
	}}, nil
}

// Estimate implements cgo.Runtime.
func (r *Runtime) Estimate(src cgo.Source, opts cgo.LoadOptions, session cgo.SessionOptions,
) (model, sess cgo.Memory, err error) {
	s, err := open(src, opts)
	if err != nil {
		return cgo.Memory{}, cgo.Memory{}, err
	}
	if err := checkKV(session.KV); err != nil {
		return cgo.Memory{}, cgo.Memory{}, err
	}
	return s.modelMemory(), s.sessionMemory(session.KV), nil
}

const loadSteps = 50

// Load implements cgo.Runtime.
func (r *Runtime) Load(ctx context.Context, src cgo.Source, opts cgo.LoadOptions) (cgo.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := open(src, opts)
	if err != nil {
		return nil, err
	}
	total := s.params() * f32
	for step := range int64(loadSteps) {
		if err := r.wait(ctx, s.loadTime()/loadSteps); err != nil {
			return nil, err
		}
		if opts.Progress != nil {
			opts.Progress(total*(step+1)/loadSteps, total)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return newModel(r, s), nil
}

// open finds the simulated model of a source as the native runtime would find a file.
func open(src cgo.Source, opts cgo.LoadOptions) (shape, error) {
	if opts.Device != 0 {
		return shape{}, fmt.Errorf("%w: device %d; there is 1", cgo.ErrNotFound, opts.Device)
	}
	if opts.Threads < 0 {
		return shape{}, fmt.Errorf("%w: %d threads", cgo.ErrInvalidArgument, opts.Threads)
	}
	switch {
	case src.Embedded && src.Path != "":
		return shape{}, fmt.Errorf("%w: model %q has a path and is embedded: choose one", cgo.ErrInvalidArgument, src.Name)
	case src.Embedded:
		return find("barkd/tiny")
	case src.Path == "":
		return shape{}, fmt.Errorf("%w: model %q has no path", cgo.ErrInvalidArgument, src.Name)
	case strings.ContainsRune(src.Path, 0):
		return shape{}, fmt.Errorf("%w: model path %q contains a NUL byte", cgo.ErrInvalidArgument, src.Path)
	}
	id, ok := strings.CutPrefix(src.Path, "mock:")
	if !ok {
		return shape{}, fmt.Errorf("%w: %s: the mock loads no files", cgo.ErrNotFound, src.Path)
	}
	return find(id)
}

func checkKV(kv cgo.KVType) error {
	if kv != cgo.KVF16 && kv != cgo.KVF32 {
		return fmt.Errorf("%w: key-value cache type %d", cgo.ErrInvalidArgument, kv)
	}
	return nil
}

// A handle is alive until its first close.
type handle struct {
	live   *atomic.Int64
	kind   string
	closed atomic.Bool
}

func (h *handle) open(r *Runtime, kind string) {
	h.live, h.kind = &r.live, kind
	h.live.Add(1)
}

// Close implements the Close of models, sessions and voices.
func (h *handle) Close() error {
	if h.closed.CompareAndSwap(false, true) {
		h.live.Add(-1)
	}
	return nil
}

func (h *handle) check() error {
	if h.closed.Load() {
		return fmt.Errorf("%s is %w", h.kind, cgo.ErrClosed)
	}
	return nil
}
