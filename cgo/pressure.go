package cgo

import (
	"context"
	"sync/atomic"
	"time"

	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
)

// Shortage says that a pool's level has changed, or still holds.
type Shortage struct {
	Device int
	Level  memwatch.Level
	Need   int64  // bytes to free until the level falls
	Why    string // for people: what was read
	// RetryAfter is when the pool is looked at again at the latest.
	RetryAfter time.Duration
}

// Reaction is one way to give memory back. It frees what it can of need bytes and says how much that was.
type Reaction struct {
	Name string
	Free func(ctx context.Context, device int, need int64) int64
}

// Relief is what was done about a shortage.
type Relief struct {
	Shortage
	Steps   []ReliefStep // in order
	Refuses bool         // no loads until the level falls
}

// ReliefStep is what one reaction gave.
type ReliefStep struct {
	Name  string
	Freed int64
	Keys  []string // models that went
}

// Pressure reacts to shortages, the cheapest way first: trim, drop what can be made again (the reactions it is given),
// evict idle models, refuse new loads. A later step is taken only for what the earlier ones left, and loads are refused
// only while the level is critical.
type Pressure struct {
	pool     *Pool
	drop     []Reaction
	levels   [cache.MaxPools]atomic.Int32
	cleanups atomic.Uint64
}

// NewPressure returns the reactions of a pool. drop runs between the trim and the evictions.
func NewPressure(pool *Pool, drop ...Reaction) *Pressure { return &Pressure{pool: pool, drop: drop} }

// Level returns a device's level as last heard.
func (p *Pressure) Level(device int) memwatch.Level { return memwatch.Level(p.levels[device].Load()) }

// Cleanups counts the shortages that were reacted to.
func (p *Pressure) Cleanups() uint64 { return p.cleanups.Load() }

// React does what the shortage asks for. It is called by one goroutine at a time and returns when everything that was
// evicted is freed.
func (p *Pressure) React(ctx context.Context, s Shortage) Relief {
	relief := Relief{Shortage: s}
	p.levels[s.Device].Store(int32(s.Level))
	if s.Level == memwatch.LevelNone {
		p.pool.Admit(s.Device)
		return relief
	}
	p.cleanups.Add(1)
	need := s.Need
	took := func(step ReliefStep) {
		need -= step.Freed
		relief.Steps = append(relief.Steps, step)
	}
	took(ReliefStep{Name: "trim", Freed: p.trim(s.Device)})
	for _, r := range p.drop {
		if need > 0 && ctx.Err() == nil {
			took(ReliefStep{Name: r.Name, Freed: r.Free(ctx, s.Device, need)})
		}
	}
	if need > 0 && ctx.Err() == nil {
		cleared := p.pool.Relieve(ctx, s.Device, need)
		took(ReliefStep{Name: "evict", Freed: cleared.Bytes, Keys: cleared.Freed})
		if len(cleared.Freed) > 0 {
			p.trim(s.Device) // what was freed goes back to the system, too
		}
	}
	relief.Refuses = s.Level == memwatch.LevelCritical && need > 0
	if relief.Refuses {
		p.pool.Hold(s.Device, s.Why, s.RetryAfter)
	} else {
		p.pool.Admit(s.Device)
	}
	return relief
}

// trim gives freed memory back; a runtime that cannot has given nothing.
func (p *Pressure) trim(device int) int64 {
	returned, err := p.pool.runtime.Trim(device)
	if err != nil {
		return 0
	}
	return returned
}

// Evicted is the number of models that went.
func (r Relief) Evicted() int {
	n := 0
	for _, step := range r.Steps {
		n += len(step.Keys)
	}
	return n
}
