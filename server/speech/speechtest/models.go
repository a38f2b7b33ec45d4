package speechtest

import (
	"context"
	"fmt"
	"sync/atomic"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/server/speech"
)

// Models lends fake models by name and counts the leases.
type Models struct {
	All map[string]*Model
	Err error // if set, Acquire fails with it
	// Loads, if set, are models that are not there yet: Acquire waits until theirs is closed.
	Loads map[string]chan struct{}
	// Revoke, if set, is what leases are revoked by.
	Revoke chan struct{}
	leases atomic.Int64
	asks   atomic.Pointer[cache.Ask]
}

// NewModels lends the given models.
func NewModels(models ...*Model) *Models {
	m := &Models{All: map[string]*Model{}}
	for _, model := range models {
		m.All[model.Facts.Name] = model
	}
	return m
}

// Leases returns how many are not released.
func (m *Models) Leases() int64 { return m.leases.Load() }

// LastAsk returns how the newest lease was asked for.
func (m *Models) LastAsk() cache.Ask {
	if ask := m.asks.Load(); ask != nil {
		return *ask
	}
	return cache.Ask{}
}

// Known implements speech.Models.
func (m *Models) Known(id string) error {
	if _, ok := m.All[id]; !ok {
		return fmt.Errorf("model %q: %w", id, cgo.ErrNotFound)
	}
	return nil
}

// Acquire implements speech.Models.
func (m *Models) Acquire(ctx context.Context, id string, ask cache.Ask) (speech.Lease, error) {
	if m.Err != nil {
		return nil, m.Err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.Known(id); err != nil {
		return nil, err
	}
	if loaded := m.Loads[id]; loaded != nil {
		ask.Waits()
		select {
		case <-loaded:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.leases.Add(1)
	m.asks.Store(&ask)
	return &lease{models: m, model: m.All[id]}, nil
}

type lease struct {
	models *Models
	model  *Model
}

func (l *lease) Model() cgo.Model { return l.model }
func (l *lease) Version() string  { return l.model.Version }
func (l *lease) NewSession(_ context.Context, opts cgo.SessionOptions) (cgo.Session, error) {
	return l.model.NewSession(opts)
}
func (l *lease) Revoked() <-chan struct{} { return l.models.Revoke }
func (l *lease) Release()                 { l.models.leases.Add(-1) }
