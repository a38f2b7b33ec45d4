package api

import (
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo/cache"
)

// Model is one model that can be loaded.
type Model struct {
	ID      string
	Created time.Time // of its file; zero if it has none
	OwnedBy string
	Trained bool // false: random weights, it makes noise
	Bytes   int64
	Voices  []string
}

// modelBody is OpenAI's model object with our facts beside it.
type modelBody struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Trained bool   `json:"trained"`
	Bytes   int64  `json:"bytes"`
	Voices  int    `json:"voices"`
	Notice  string `json:"notice,omitempty"`
	// Residency is where the model is now: "resident", "loading", or "absent" of memory.
	Residency string `json:"residency"`
}

func (m Model) body(residency map[string]string) modelBody {
	b := modelBody{ID: m.ID, Object: "model", OwnedBy: m.OwnedBy, Trained: m.Trained, Bytes: m.Bytes, Voices: len(m.Voices),
		Residency: "absent"}
	if now, ok := residency[m.ID]; ok {
		b.Residency = now
	}
	if !m.Created.IsZero() {
		b.Created = m.Created.Unix()
	}
	if !m.Trained {
		b.Notice = "untrained: random weights of the true architecture, it makes noise, not speech"
	}
	return b
}

// residency says of the models that the cache knows whether they are resident or on their way.
func (s *Server) residency() map[string]string {
	out := make(map[string]string)
	for _, e := range s.Cache.Snapshot().Entries {
		switch e.State {
		case cache.Ready, cache.Leased:
			out[e.Key] = "resident"
		case cache.Reserving, cache.Loading:
			out[e.Key] = "loading"
		}
	}
	return out
}

// models is GET /v1/models: OpenAI's list, or ElevenLabs' for a request with its key.
func (s *Server) models(c *fiber.Ctx) error {
	ctx, stop := s.clientContext(c)
	defer stop()
	all, err := s.Catalogue.List(ctx)
	if err != nil {
		return err
	}
	if speaksEleven(c) {
		return s.elevenModels(c, all)
	}
	data, residency := make([]modelBody, 0, len(all)), s.residency()
	for _, m := range all {
		data = append(data, m.body(residency))
	}
	return c.JSON(fiber.Map{"object": "list", "data": data})
}

// model is GET /v1/models/{id}.
func (s *Server) model(c *fiber.Ctx) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	m, err := s.find(c, id)
	if err != nil {
		return err
	}
	return c.JSON(m.body(s.residency()))
}

func (s *Server) find(c *fiber.Ctx, id string) (Model, error) {
	ctx, stop := s.clientContext(c)
	defer stop()
	m, err := s.Catalogue.Find(ctx, id)
	if err != nil {
		return Model{}, &modelError{id: id, err: err}
	}
	return m, nil
}

// pathID returns the model id that a route's star stands for.
func pathID(c *fiber.Ctx) (string, error) {
	id, ok := pathRest(c)
	if !ok {
		return "", badRequest("model", "invalid_value", "The path must end in a model id such as suno/bark-small.")
	}
	return id, nil
}

// pathRest returns what a route's star stands for, whether a slash in it came plain or as %2F; false if it is nothing
// or no text. It is a copy: Fiber reuses the original.
func pathRest(c *fiber.Ctx) (string, bool) {
	rest, err := url.PathUnescape(strings.Clone(c.Params("+")))
	return rest, err == nil && rest != "" && utf8.ValidString(rest)
}
