package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// admin guards a route of the operator: with an AdminKey set, the request must bear it, as 'Authorization: Bearer' or
// as x-api-key.
func (s *Server) admin(next fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if s.AdminKey == "" || sameKey(bearer(c), s.AdminKey) {
			return next(c)
		}
		c.Set(fiber.HeaderWWWAuthenticate, "Bearer")
		return &Error{Status: fiber.StatusUnauthorized, Type: typeInvalid, Code: "invalid_api_key",
			Message: "This route needs the server's admin key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'."}
	}
}

func bearer(c *fiber.Ctx) string {
	if scheme, key, ok := strings.Cut(c.Get(fiber.HeaderAuthorization), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return key
	}
	return c.Get("x-api-key")
}

// sameKey takes the same time for every wrong key.
func sameKey(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
