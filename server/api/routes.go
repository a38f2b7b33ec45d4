package api

import "github.com/gofiber/fiber/v2"

// Route is one line of the route table. A star in its path stands for the rest of it: model ids contain a slash.
type Route struct {
	Method, Path string
	handler      fiber.Handler
	side         side
}

// side says which listener serves a route, when there are two.
type side int

const (
	sidePublic side = iota
	sideAdmin
	sideBoth
)

// Routes returns the route table, for comparing it with openapi.yaml.
func (s *Server) Routes() []Route { return s.routes() }

func (s *Server) routes() []Route {
	return []Route{
		{fiber.MethodGet, "/", s.page, sidePublic},
		{fiber.MethodGet, "/web/*", s.asset, sidePublic},
		{fiber.MethodPost, "/v1/audio/speech", s.speech, sidePublic},
		{fiber.MethodGet, "/v1/audio/voices", s.voices, sidePublic},
		{fiber.MethodPost, "/v1/audio/voices", s.addVoice, sidePublic},
		{fiber.MethodGet, "/v1/audio/voices/*", s.voice, sidePublic},
		{fiber.MethodDelete, "/v1/audio/voices/*", s.removeVoice, sidePublic},
		{fiber.MethodPost, "/v1/text-to-speech/*/stream", s.elevenStream, sidePublic},
		{fiber.MethodPost, "/v1/text-to-speech/*", s.elevenSpeech, sidePublic},
		{fiber.MethodGet, "/v1/voices", s.elevenVoices, sidePublic},
		{fiber.MethodGet, "/v1/voices/*", s.elevenVoice, sidePublic},
		{fiber.MethodDelete, "/v1/voices/*", s.elevenRemove, sidePublic},
		{fiber.MethodGet, "/v2/voices", s.elevenSearch, sidePublic},
		{fiber.MethodGet, "/v1/models", s.models, sidePublic},
		{fiber.MethodGet, "/v1/models/*", s.model, sidePublic},
		{fiber.MethodPost, "/synthesize", s.olderSynthesize, sidePublic},
		{fiber.MethodPost, "/synthesize/stream", s.olderStream, sidePublic},
		{fiber.MethodGet, "/voices", s.olderVoiceList, sidePublic},
		{fiber.MethodGet, "/models", s.olderModels, sidePublic},
		{fiber.MethodGet, "/api/ps", s.ollamaPS, sidePublic},
		{fiber.MethodGet, "/api/tags", s.ollamaTags, sidePublic},
		{fiber.MethodGet, "/api/version", s.ollamaVersion, sidePublic},
		{fiber.MethodGet, "/health", s.health, sideBoth},
		{fiber.MethodGet, "/livez", s.live, sideBoth},
		{fiber.MethodGet, "/readyz", s.ready, sideBoth},
		{fiber.MethodGet, "/metrics", s.metrics, sideBoth},
		{fiber.MethodGet, "/cache/stats", s.admin(s.cacheStats), sideAdmin},
		{fiber.MethodGet, "/cache/plan", s.admin(s.cachePlan), sideAdmin},
		{fiber.MethodGet, "/cache/events", s.admin(s.cacheEvents), sideAdmin},
		{fiber.MethodPost, "/cache/clear", s.admin(s.cacheClear), sideAdmin},
		{fiber.MethodPost, "/cache/warmup", s.admin(s.cacheWarmup), sideAdmin},
		{fiber.MethodPost, "/cache/preload/*", s.admin(s.cachePreload), sideAdmin},
		{fiber.MethodDelete, "/cache/models/*", s.admin(s.cacheRemove), sideAdmin},
		{fiber.MethodPut, "/cache/pins/*", s.admin(s.cachePin), sideAdmin},
		{fiber.MethodDelete, "/cache/pins/*", s.admin(s.cacheUnpin), sideAdmin},
	}
}
