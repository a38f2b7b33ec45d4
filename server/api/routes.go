package api

import "github.com/gofiber/fiber/v2"

// Route is one line of the route table. A star in its path stands for the rest of it: model ids contain a slash.
type Route struct {
	Method, Path string
	handler      fiber.Handler
}

// Routes returns the route table, for comparing it with openapi.yaml.
func (s *Server) Routes() []Route { return s.routes() }

func (s *Server) routes() []Route {
	return []Route{
		{fiber.MethodPost, "/v1/audio/speech", s.speech},
		{fiber.MethodGet, "/v1/audio/voices", s.voices},
		{fiber.MethodGet, "/v1/models", s.models},
		{fiber.MethodGet, "/v1/models/*", s.model},
		{fiber.MethodGet, "/health", s.health},
		{fiber.MethodGet, "/cache/stats", s.cacheStats},
		{fiber.MethodPost, "/cache/clear", s.cacheClear},
		{fiber.MethodPost, "/cache/warmup", s.cacheWarmup},
		{fiber.MethodPost, "/cache/preload/*", s.cachePreload},
	}
}
