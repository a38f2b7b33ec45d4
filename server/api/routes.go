package api

import "github.com/gofiber/fiber/v2"

// Route is one line of the route table. A star in its path stands for the rest of it, which is not
// empty: model ids contain a slash.
type Route struct {
	Method, Path string
	handler      fiber.Handler
	side         side
	access       access
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
		{fiber.MethodGet, "/", s.page, sidePublic, everybody},
		{fiber.MethodGet, "/web/*", s.asset, sidePublic, everybody},
		{fiber.MethodGet, "/docs", s.docs, sidePublic, everybody},
		{fiber.MethodGet, "/openapi.yaml", s.specYAML, sidePublic, everybody},
		{fiber.MethodGet, "/openapi.json", s.specJSON, sidePublic, everybody},
		{fiber.MethodPost, "/v1/audio/speech", s.speech, sidePublic, bearers},
		{fiber.MethodPost, "/v1/audio/jobs", s.withJobs(s.addJob), sidePublic, bearers},
		{fiber.MethodGet, "/v1/audio/jobs/:id", s.withJobs(s.job), sidePublic, bearers},
		{fiber.MethodGet, "/v1/audio/jobs/:id/audio", s.withJobs(s.jobAudio), sidePublic, bearers},
		{fiber.MethodGet, "/v1/audio/voices", s.voices, sidePublic, bearers},
		{fiber.MethodPost, "/v1/audio/voices", s.addVoice, sidePublic, bearers},
		{fiber.MethodGet, "/v1/audio/voices/*", s.voice, sidePublic, bearers},
		{fiber.MethodDelete, "/v1/audio/voices/*", s.removeVoice, sidePublic, bearers},
		{fiber.MethodPost, "/v1/text-to-speech/*/stream", s.elevenStream, sidePublic, bearers},
		{fiber.MethodPost, "/v1/text-to-speech/*", s.elevenSpeech, sidePublic, bearers},
		{fiber.MethodGet, "/v1/voices", s.elevenVoices, sidePublic, bearers},
		{fiber.MethodGet, "/v1/voices/*", s.elevenVoice, sidePublic, bearers},
		{fiber.MethodDelete, "/v1/voices/*", s.elevenRemove, sidePublic, bearers},
		{fiber.MethodGet, "/v2/voices", s.elevenSearch, sidePublic, bearers},
		{fiber.MethodGet, "/v1/models", s.models, sidePublic, bearers},
		{fiber.MethodGet, "/v1/models/*", s.model, sidePublic, bearers},
		{fiber.MethodPost, "/synthesize", s.olderSynthesize, sidePublic, bearers},
		{fiber.MethodPost, "/synthesize/stream", s.olderStream, sidePublic, bearers},
		{fiber.MethodGet, "/voices", s.olderVoiceList, sidePublic, bearers},
		{fiber.MethodGet, "/models", s.olderModels, sidePublic, bearers},
		{fiber.MethodGet, "/api/ps", s.ollamaPS, sidePublic, bearers},
		{fiber.MethodGet, "/api/tags", s.ollamaTags, sidePublic, bearers},
		{fiber.MethodGet, "/api/version", s.ollamaVersion, sidePublic, bearers},
		{fiber.MethodGet, "/health", s.health, sideBoth, everybody},
		{fiber.MethodGet, "/livez", s.live, sideBoth, everybody},
		{fiber.MethodGet, "/readyz", s.ready, sideBoth, everybody},
		{fiber.MethodGet, "/metrics", s.metrics, sideBoth, everybody},
		{fiber.MethodGet, "/cache/stats", s.cacheStats, sideAdmin, operators},
		{fiber.MethodGet, "/cache/plan", s.cachePlan, sideAdmin, operators},
		{fiber.MethodGet, "/cache/events", s.cacheEvents, sideAdmin, operators},
		{fiber.MethodPost, "/cache/clear", s.cacheClear, sideAdmin, operators},
		{fiber.MethodPost, "/cache/warmup", s.cacheWarmup, sideAdmin, operators},
		{fiber.MethodPost, "/cache/preload/*", s.cachePreload, sideAdmin, operators},
		{fiber.MethodDelete, "/cache/models/*", s.cacheRemove, sideAdmin, operators},
		{fiber.MethodPut, "/cache/pins/*", s.cachePin, sideAdmin, operators},
		{fiber.MethodDelete, "/cache/pins/*", s.cacheUnpin, sideAdmin, operators},
	}
}
