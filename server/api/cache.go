package api

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
)

// CacheStats is the body of GET /cache/stats. The keys up to total_loads are a contract with users of older servers.
type CacheStats struct {
	CachedModels        []string `json:"cached_models"` // least recently used first
	CacheSize           int      `json:"cache_size"`
	MaxCacheSize        int      `json:"max_cache_size"`
	CacheMemoryMB       float64  `json:"cache_memory_mb"`
	SystemMemoryGB      float64  `json:"system_memory_gb"` // in use
	SystemMemoryTotalGB float64  `json:"system_memory_total_gb"`
	SystemMemoryPercent float64  `json:"system_memory_percent"` // in use
	MemoryThresholdGB   float64  `json:"memory_threshold_gb"`
	Hits                uint64   `json:"hits"`
	Misses              uint64   `json:"misses"`
	HitRate             float64  `json:"hit_rate"` // 0..1
	Evictions           uint64   `json:"evictions"`
	MemoryCleanups      uint64   `json:"memory_cleanups"`
	TotalLoads          uint64   `json:"total_loads"`

	LoadFailures uint64       `json:"load_failures"`
	Entries      []CacheEntry `json:"entries"`
}

// CacheEntry is one model the cache knows.
type CacheEntry struct {
	Model    string  `json:"model"`
	State    string  `json:"state"`
	Leases   int     `json:"leases"`
	Waiters  int     `json:"waiters"` // requests that wait for its load
	Bytes    int64   `json:"bytes"`
	IdleS    float64 `json:"idle_s"`
	LoadTook float64 `json:"load_took_s"`
}

// Cleared is what POST /cache/clear did.
type Cleared struct {
	Freed    []string `json:"freed"`    // gone when the answer comes
	Draining []string `json:"draining"` // in use: gone when their last request ends
	Bytes    int64    `json:"freed_bytes"`
}

// loaded is the outcome of loading one model.
type loaded struct {
	Model  string  `json:"model"`
	Loaded bool    `json:"loaded"`
	TookS  float64 `json:"took_s"`
	Error  string  `json:"error,omitempty"`
}

// health is GET /health. It takes no lock that a load or a request holds.
func (s *Server) health(c *fiber.Ctx) error {
	status := "ok"
	if s.draining.Load() {
		c.Status(fiber.StatusServiceUnavailable)
		status = "draining"
	}
	stats := s.Cache.Stats()
	running, waiting := s.Speaker.Load()
	return c.JSON(fiber.Map{
		"status": status, "version": s.Version, "backend": s.Backend,
		"uptime_s": int(time.Since(s.started).Seconds()),
		"requests": fiber.Map{"running": running, "waiting": waiting},
		"cache": fiber.Map{
			"cached_models": stats.CachedModels, "cache_size": stats.CacheSize, "max_cache_size": stats.MaxCacheSize,
			"cache_memory_mb": stats.CacheMemoryMB, "hit_rate": stats.HitRate, "entries": stats.Entries,
		},
	})
}

// cacheStats is GET /cache/stats.
func (s *Server) cacheStats(c *fiber.Ctx) error { return c.JSON(s.Cache.Stats()) }

// cacheClear is POST /cache/clear.
func (s *Server) cacheClear(c *fiber.Ctx) error {
	ctx, stop := s.clientContext(c)
	defer stop()
	cleared, err := s.Cache.Clear(ctx)
	if err != nil {
		return err
	}
	return c.JSON(cleared)
}

// cachePreload is POST /cache/preload/{id}: it answers when the model is loaded.
func (s *Server) cachePreload(c *fiber.Ctx) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	started := time.Now()
	if err := s.Cache.Preload(ctx, id); err != nil {
		return &modelError{id: id, err: err}
	}
	return c.JSON(loaded{Model: id, Loaded: true, TookS: time.Since(started).Seconds()})
}

// cacheWarmup is POST /cache/warmup: a JSON list of ids, loaded one after the other. An unknown id refuses the whole
// list before anything is loaded. Its status is that of the first load that failed; the others are still tried.
func (s *Server) cacheWarmup(c *fiber.Ctx) error {
	ids, err := warmupIDs(c)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := s.find(c, id); err != nil {
			return err
		}
	}
	if most := s.Cache.Stats().MaxCacheSize; most > 0 && len(ids) > most {
		return badRequest("", "invalid_value", "The list has %d models but the cache holds %d: the last would push out the first.", len(ids), most)
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	results := make([]loaded, 0, len(ids))
	for _, id := range ids {
		started := time.Now()
		err := s.Cache.Preload(ctx, id)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result := loaded{Model: id, Loaded: err == nil, TookS: time.Since(started).Seconds()}
		if err != nil {
			s.Log.Error().Err(err).Str("request_id", requestID(c)).Str("model", id).Msg("warm-up failed")
			e := toError(&modelError{id: id, err: err}, nil)
			result.Error = e.Message
			if c.Response().StatusCode() == fiber.StatusOK {
				c.Status(e.Status)
			}
		}
		results = append(results, result)
	}
	return c.JSON(fiber.Map{"models": results})
}

func warmupIDs(c *fiber.Ctx) ([]string, error) {
	body, err := jsonBody(c)
	if err != nil {
		return nil, err
	}
	var ids []string
	if err := json.Unmarshal(body, &ids); err != nil || ids == nil {
		return nil, notJSON(`list of model ids such as ["suno/bark-small"]`, err)
	}
	if len(ids) > maxWarmup {
		return nil, badRequest("", "invalid_value", "The list has %d ids; at most %d are taken.", len(ids), maxWarmup)
	}
	distinct := ids[:0]
	for _, id := range ids {
		if !slices.Contains(distinct, id) {
			distinct = append(distinct, id)
		}
	}
	return distinct, nil
}
