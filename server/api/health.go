package api

import (
	"context"
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo"
)

// livePatience is how long the owner of the cache's state may take to answer.
const livePatience = time.Second

// health is GET /health, for people and older clients: up, and what the cache holds. It answers 503 while the server
// shuts down, and when the cache's owner does not answer.
func (s *Server) health(c *fiber.Ctx) error {
	running, waiting := s.Speaker.Load()
	body := fiber.Map{
		"status": "ok", "version": s.Version, "backend": s.Backend, "uptime_s": s.uptime(),
		"requests": fiber.Map{"running": running, "waiting": waiting},
	}
	if err := s.ping(); err != nil {
		body["status"], body["error"] = "stuck", err.Error()
		return c.Status(fiber.StatusServiceUnavailable).JSON(body)
	}
	if s.leavesSoon.Load() {
		c.Status(fiber.StatusServiceUnavailable)
		body["status"] = statusDraining
	}
	stats := s.contents()
	body["cache"] = fiber.Map{
		"cached_models": stats.CachedModels, "cache_size": stats.CacheSize, "max_cache_size": stats.MaxCacheSize,
		"cache_memory_mb": stats.CacheMemoryMB, "hit_rate": stats.HitRate, "entries": stats.Entries, "warmup": stats.Warmup,
	}
	return c.JSON(body)
}

func (s *Server) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), livePatience)
	defer cancel()
	return s.Cache.Ping(ctx)
}

// live is GET /livez: should the process be restarted? Only if the owner of the cache's state does not answer, whatever
// loads, waits or drains, and if every device is lost: none comes back without.
func (s *Server) live(c *fiber.Ctx) error {
	if err := s.ping(); err != nil {
		return c.Status(fiber.StatusServiceUnavailable).JSON(fiber.Map{"status": "stuck", "error": err.Error()})
	}
	if !s.Cache.Usable() {
		return c.Status(fiber.StatusServiceUnavailable).JSON(fiber.Map{"status": statusLost, "devices": s.devices()})
	}
	return c.JSON(fiber.Map{"status": "ok"})
}

// ready is GET /readyz: should requests be sent here? Not while the warm-up runs (for a bounded time), not when every
// device is lost, and not once the server shuts down.
func (s *Server) ready(c *fiber.Ctx) error {
	status := s.readiness()
	if status != statusOK {
		c.Status(fiber.StatusServiceUnavailable)
	}
	return c.JSON(fiber.Map{"status": status, "warmup": s.warmup(), "devices": s.devices()})
}

// deviceState is one device in what probes are told.
type deviceState struct {
	ID    string `json:"id"`
	State string `json:"state"` // ok or lost
	lossBody
}

func (s *Server) devices() []deviceState {
	var out []deviceState
	for _, p := range s.Cache.Snapshot().Pools {
		state, loss := lossOf(p)
		out = append(out, deviceState{p.Name, state, loss})
	}
	return out
}

// What readiness may be.
const (
	statusOK        = "ok"
	statusWarmingUp = "warming_up"
	statusDraining  = "draining"
	statusLost      = "devices_lost"
)

func (s *Server) readiness() string {
	if s.leavesSoon.Load() {
		return statusDraining
	}
	if !s.Cache.Usable() {
		return statusLost
	}
	select {
	case <-s.Warmup.Done():
	default:
		if time.Since(s.started) < s.ReadyPatience {
			return statusWarmingUp
		}
	}
	return statusOK
}

// Warmup tells how far the warm-up is; *cgo.Warmup is one.
type Warmup interface {
	Models() []cgo.WarmupModel
	// Done is closed when every model was tried.
	Done() <-chan struct{}
}
