package main

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
	"barkd/server/api"
	"barkd/server/speech"
)

// poolModels lends the pool's models to the speech service.
type poolModels struct{ pool *cgo.Pool }

// Acquire implements speech.Models.
func (p poolModels) Acquire(ctx context.Context, id string) (speech.Lease, error) {
	lease, err := p.pool.Acquire(ctx, id)
	if err != nil {
		return nil, err
	}
	return lease, nil
}

// poolCache shows the pool under /cache.
type poolCache struct {
	pool        *cgo.Pool
	memory      *memwatch.Source
	thresholdGB float64
	log         zerolog.Logger
	blind       sync.Once // the memory source failed and the log said so
}

const (
	mebi = 1 << 20
	gibi = 1 << 30
)

// Stats implements api.Cache.
func (p *poolCache) Stats() api.CacheStats {
	s := p.pool.Stats()
	out := api.CacheStats{
		CachedModels:      []string{},
		MaxCacheSize:      s.MaxEntries,
		CacheMemoryMB:     float64(s.Bytes) / mebi,
		MemoryThresholdGB: p.thresholdGB,
		Hits:              s.Hits,
		Misses:            s.Misses,
		Evictions:         s.Evictions,
		TotalLoads:        s.Loads,
		LoadFailures:      s.LoadFailures,
		Entries:           []api.CacheEntry{},
	}
	if asked := s.Hits + s.Misses; asked > 0 {
		out.HitRate = float64(s.Hits) / float64(asked)
	}
	for _, e := range s.Entries {
		if e.State == cache.Ready || e.State == cache.Leased {
			out.CachedModels = append(out.CachedModels, e.Key)
		}
		out.Entries = append(out.Entries, api.CacheEntry{
			Model: e.Key, State: e.State.String(), Leases: e.Leases, Waiters: e.Waiters, Bytes: e.Bytes,
			IdleS: e.Idle.Seconds(), LoadTook: e.LoadTook.Seconds(),
		})
	}
	out.CacheSize = len(out.CachedModels)
	p.addMemory(&out)
	return out
}

// addMemory adds the machine's memory. Without a source the server goes on, and says so once.
func (p *poolCache) addMemory(out *api.CacheStats) {
	r, err := p.memory.Read()
	if err != nil || r.TotalBytes <= 0 {
		p.blind.Do(func() { p.log.Warn().Err(err).Msg("the machine's memory cannot be read; /cache/stats shows zeros") })
		return
	}
	used := float64(r.TotalBytes - r.AvailableBytes)
	out.SystemMemoryGB = used / gibi
	out.SystemMemoryTotalGB = float64(r.TotalBytes) / gibi
	out.SystemMemoryPercent = 100 * used / float64(r.TotalBytes)
}

// Clear implements api.Cache.
func (p *poolCache) Clear(context.Context) (api.Cleared, error) {
	c := p.pool.Clear()
	return api.Cleared{Freed: append([]string{}, c.Freed...), Draining: append([]string{}, c.Draining...), Bytes: c.Bytes}, nil
}

// Preload implements api.Cache.
func (p *poolCache) Preload(ctx context.Context, id string) error { return p.pool.Preload(ctx, id) }
