package mock

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
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
	// Faults is what goes wrong, valid; nil is nothing.
	Faults *Faults
	// GPUs are simulated GPUs beside the processor: the bytes of each. Their work takes a tenth of the time.
	GPUs []int64
}

// Runtime implements cgo.Runtime.
type Runtime struct {
	opts    Options
	handles atomic.Int64

	mu      sync.Mutex // guards the rest, and the accounts
	devices []device
	calls   map[faultCall]int
}

// A device is the state of one.
type device struct {
	live       cgo.Memory
	components map[cgo.Component]int // models that hold each
	leaks      []leak
	lost       leak // of the device itself: live while it is lost
}

// New returns a simulated runtime.
func New(opts Options) *Runtime {
	if opts.Wait == nil {
		opts.Wait = waitForTimer
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	r := &Runtime{opts: opts, devices: make([]device, 1+len(opts.GPUs)), calls: make(map[faultCall]int)}
	for i := range r.devices {
		r.devices[i].components = make(map[cgo.Component]int)
	}
	return r
}

// LiveHandles counts models, sessions and voices not yet closed, for leak tests.
func (r *Runtime) LiveHandles() int64 { return r.handles.Load() }

// Devices implements cgo.Runtime.
func (r *Runtime) Devices() ([]cgo.Device, error) {
	all := []cgo.Device{{
		ID: "cpu", Kind: "cpu", Name: "simulated processor", Detail: "mock: nothing is computed",
		Cores: runtime.NumCPU(), TotalBytes: 32 << 30,
	}}
	for i, bytes := range r.opts.GPUs {
		all = append(all, cgo.Device{ID: fmt.Sprintf("cuda:%d", i), Kind: "cuda", Name: "simulated GPU", Detail: "mock: nothing is computed",
			UUID: fmt.Sprintf("GPU-00000000-0000-0000-0000-%012d", i), Cores: 100, TotalBytes: bytes})
	}
	return all, nil
}

// Probe implements cgo.Runtime.
func (r *Runtime) Probe(device int) (freeBytes int64, err error) {
	if err := r.checkUsable(device); err != nil {
		return 0, err
	}
	if device > 0 {
		return r.opts.GPUs[device-1], nil
	}
	return 24 << 30, nil
}

func (r *Runtime) checkUsable(device int) error {
	if err := r.checkDevice(device); err != nil {
		return err
	}
	return r.checkLost(device)
}

// Estimate implements cgo.Runtime.
func (r *Runtime) Estimate(src cgo.Source, opts cgo.LoadOptions, session cgo.SessionOptions) (cgo.Estimate, error) {
	s, err := r.open(src, opts)
	if err != nil {
		return cgo.Estimate{}, err
	}
	if err := checkKV(session.KV); err != nil {
		return cgo.Estimate{}, err
	}
	if f, ok := r.fault(EstimateFails, s.id); ok {
		return cgo.Estimate{}, f.err(s.id)
	}
	model := s.modelMemory()
	if f, ok := r.fault(EstimateOff, s.id); ok {
		model.WeightsBytes += f.Bytes
		model = sum(model)
	}
	return cgo.Estimate{Model: model, Session: s.sessionMemory(session.KV), Components: s.components()}, nil
}

const loadSteps = 50

// Load implements cgo.Runtime.
func (r *Runtime) Load(ctx context.Context, src cgo.Source, opts cgo.LoadOptions) (cgo.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := r.open(src, opts)
	if err != nil {
		return nil, err
	}
	if err := r.checkLost(opts.Device); err != nil {
		return nil, err
	}
	slow, fails, leaks, err := r.loadFaults(ctx, s.id)
	if err != nil {
		return nil, err
	}
	total := s.params() * f32
	for step := range int64(loadSteps) {
		if err := r.wait(ctx, scaled(s.loadTime()/loadSteps, slow)); err != nil {
			return nil, err
		}
		if fails.Kind != "" && step == loadSteps/2 {
			return nil, fails.err(s.id)
		}
		if step == loadSteps/2 {
			r.mayLose(DeviceLostInLoad, s.id, opts.Device)
		}
		if err := r.checkLost(opts.Device); err != nil {
			return nil, err
		}
		if opts.Progress != nil {
			opts.Progress(total*(step+1)/loadSteps, total)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := newModel(r, s, opts.Device)
	m.account.leaks, m.account.leaksIn = leaks.Bytes, leaks.duration()
	return m, nil
}

func (r *Runtime) checkDevice(device int) error {
	if device < 0 || device >= len(r.devices) {
		return fmt.Errorf("%w: device %d; there are %d", cgo.ErrNotFound, device, len(r.devices))
	}
	return nil
}

// open finds the simulated model of a source as the native runtime would find a file.
func (r *Runtime) open(src cgo.Source, opts cgo.LoadOptions) (shape, error) {
	if err := r.checkDevice(opts.Device); err != nil {
		return shape{}, err
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
	if kv != cgo.KVF16 && kv != cgo.KVF32 && kv != cgo.KVI8 {
		return fmt.Errorf("%w: key-value cache type %d", cgo.ErrInvalidArgument, kv)
	}
	return nil
}

// A handle is alive until its first close.
type handle struct {
	account *account
	taken   cgo.Memory // by this handle alone
	kind    string
	closed  atomic.Bool
}

// open counts the handle. The model's memory is the account's own matter.
func (h *handle) open(a *account, kind string, taken cgo.Memory) {
	h.account, h.kind, h.taken = a, kind, taken
	a.runtime.handles.Add(1)
}

// Close implements the Close of models, sessions and voices.
func (h *handle) Close() error {
	if h.closed.CompareAndSwap(false, true) {
		h.account.leave(h.taken)
		h.account.runtime.handles.Add(-1)
	}
	return nil
}

func (h *handle) check() error {
	if h.closed.Load() {
		return fmt.Errorf("%s is %w", h.kind, cgo.ErrClosed)
	}
	return nil
}
