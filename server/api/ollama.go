package api

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo/cache"
)

// The probes of ollama's API, for dashboards and clients that look whether a server is there and what it holds.

type ollamaModel struct {
	Name     string        `json:"name"`
	Model    string        `json:"model"`
	Modified *time.Time    `json:"modified_at,omitempty"`
	Size     int64         `json:"size"`
	Digest   string        `json:"digest"` // "" till a request for speech has had it read
	Details  ollamaDetails `json:"details"`
	Expires  *time.Time    `json:"expires_at,omitempty"`
	VRAM     *int64        `json:"size_vram,omitempty"`
}

type ollamaDetails struct {
	Parent       string   `json:"parent_model"`
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantization string   `json:"quantization_level"`
}

var barkDetails = ollamaDetails{Format: "gguf", Family: "bark", Families: []string{"bark"}}

// never is when a model goes that does not go by itself.
var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// ollamaPS is GET /api/ps: the models in memory.
func (s *Server) ollamaPS(c *fiber.Ctx) error {
	running, now := []ollamaModel{}, time.Now()
	for _, e := range s.Cache.Snapshot().Entries {
		if e.State != cache.Ready && e.State != cache.Leased {
			continue
		}
		bytes := e.Bytes()
		for _, shared := range e.Shared {
			for i, n := range shared.Bytes {
				bytes[i] += n
			}
		}
		vram := bytes.Total() - bytes[0] // the first pool is the host's memory
		expires := never
		if e.Expires >= 0 {
			expires = now.Add(e.Expires)
		}
		running = append(running, ollamaModel{Name: e.Key, Model: e.Key, Size: bytes.Total(), Digest: s.KnownDigest(e.Key), Details: barkDetails, Expires: &expires, VRAM: &vram})
	}
	return c.JSON(fiber.Map{"models": running})
}

// ollamaTags is GET /api/tags: the models that can be loaded.
func (s *Server) ollamaTags(c *fiber.Ctx) error {
	ctx, stop := s.clientContext(c)
	defer stop()
	all, err := s.Catalogue.List(ctx)
	if err != nil {
		return err
	}
	list := make([]ollamaModel, 0, len(all))
	for _, m := range all {
		modified := m.Created // zero for a model in the program itself
		list = append(list, ollamaModel{Name: m.ID, Model: m.ID, Modified: &modified, Size: m.Bytes, Digest: s.KnownDigest(m.ID), Details: barkDetails})
	}
	return c.JSON(fiber.Map{"models": list})
}

// ollamaVersion is GET /api/version.
func (s *Server) ollamaVersion(c *fiber.Ctx) error { return c.JSON(fiber.Map{"version": s.Version}) }
