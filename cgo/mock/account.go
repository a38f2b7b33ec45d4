package mock

import (
	"fmt"
	"time"

	"barkd/cgo"
)

// An account counts a model with its sessions and voices. Runtime.mu guards the fields.
type account struct {
	runtime *Runtime
	shape   shape
	device  int
	members int        // the model, its sessions and its voices, not yet closed
	held    cgo.Memory // without components
	leaks   int64      // bytes that the fault plan keeps after the last member
	leaksIn time.Duration
	leaked  leak
}

// A leak is memory that nobody gives back, or not before a time.
type leak struct {
	bytes int64
	until time.Time // zero: never
}

func (l leak) live(now time.Time) int64 {
	if !l.until.IsZero() && !now.Before(l.until) {
		return 0
	}
	return l.bytes
}

// newAccount counts a model as its first member.
func (r *Runtime) newAccount(s shape, device int) *account {
	a := &account{runtime: r, shape: s, device: device, members: 1, held: s.ownMemory()}
	r.mu.Lock()
	defer r.mu.Unlock()
	a.hold(a.held, 1)
	d := &r.devices[device]
	for _, c := range s.components() {
		if d.components[c]++; d.components[c] == 1 {
			a.hold(sum(cgo.Memory{WeightsBytes: c.Bytes, SharedBytes: c.Bytes}), 1)
		}
	}
	return a
}

// join counts a new member and what it takes, unless the last one has just been closed.
func (a *account) join(m cgo.Memory) error {
	a.runtime.mu.Lock()
	defer a.runtime.mu.Unlock()
	if a.members == 0 {
		return fmt.Errorf("model %s is %w", a.shape.id, cgo.ErrClosed)
	}
	a.members++
	a.held = plus(a.held, m, 1)
	a.hold(m, 1)
	return nil
}

// leave counts a member that is closed. What the model takes goes with the last one.
func (a *account) leave(m cgo.Memory) {
	r := a.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	a.members--
	if a.members == 0 {
		m = a.held
		d := &r.devices[a.device]
		for _, c := range a.shape.components() {
			if d.components[c]--; d.components[c] == 0 {
				delete(d.components, c)
				a.hold(sum(cgo.Memory{WeightsBytes: c.Bytes, SharedBytes: c.Bytes}), -1)
			}
		}
		a.leaked.bytes = a.leaks
		if a.leaksIn > 0 {
			a.leaked.until = r.opts.Clock().Add(a.leaksIn)
		}
		if a.leaks > 0 {
			d.leaks = append(d.leaks, a.leaked)
		}
	}
	a.held = plus(a.held, m, -1)
	a.hold(m, -1)
}

// Live implements cgo.Account.
func (a *account) Live() int64 {
	a.runtime.mu.Lock()
	defer a.runtime.mu.Unlock()
	return a.held.TotalBytes + a.leaked.live(a.runtime.opts.Clock())
}

// hold adds m, times sign, to what is live: tables on the host, the rest on the device. The caller holds mu.
func (a *account) hold(m cgo.Memory, sign int64) {
	add := func(device int, part cgo.Memory) {
		live := &a.runtime.devices[device].live
		*live = plus(*live, part, sign)
		live.PeakBytes = max(live.PeakBytes, live.TotalBytes)
	}
	if a.device != 0 {
		tables := sum(cgo.Memory{TablesBytes: m.TablesBytes})
		add(0, tables)
		m = plus(m, tables, -1)
	}
	add(a.device, m)
}

// Live implements cgo.Runtime. Leaks are weights.
func (r *Runtime) Live(device int) (cgo.Memory, error) {
	if err := r.checkDevice(device); err != nil {
		return cgo.Memory{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	live, now := r.devices[device].live, r.opts.Clock()
	for _, l := range r.devices[device].leaks {
		live.WeightsBytes += l.live(now)
		live.TotalBytes += l.live(now)
	}
	live.PeakBytes = max(live.PeakBytes, live.TotalBytes)
	return live, nil
}

// Trim implements cgo.Runtime. The simulated process has nothing to give back.
func (r *Runtime) Trim(device int) (returned int64, err error) { return 0, r.checkUsable(device) }

// plus adds b, times sign, to a, but for the peak.
func plus(a, b cgo.Memory, sign int64) cgo.Memory {
	a.WeightsBytes += sign * b.WeightsBytes
	a.TablesBytes += sign * b.TablesBytes
	a.KVBytes += sign * b.KVBytes
	a.ActivationsBytes += sign * b.ActivationsBytes
	a.TotalBytes += sign * b.TotalBytes
	a.SharedBytes += sign * b.SharedBytes
	return a
}
