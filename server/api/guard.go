package api

import (
	"crypto/subtle"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// access says who may use a route. What monitors and browsers ask for before anybody could give them a key is open to
// all, and tells nothing of what is spoken: /health, /livez, /readyz, /metrics, the page with its files, /docs and the
// document of the API.
type access int

const (
	operators access = iota // the admin key, or without one any API key
	bearers                 // an API key, if there are any
	everybody
)

const localBearer = "bearer"

// guard lets requests through to the route's handler that its access allows.
func (s *Server) guard(r Route) fiber.Handler {
	if r.access == everybody {
		return r.handler
	}
	return func(c *fiber.Ctx) error {
		b, err := s.door.Load().admit(givenKey(c), r.access)
		if err != nil {
			c.Set(fiber.HeaderWWWAuthenticate, "Bearer")
			return err
		}
		c.Locals(localBearer, b)
		return r.handler(c)
	}
}

// admit returns who shows a key; "" is none.
func (d *door) admit(key string, to access) (*bearer, error) {
	digest := DigestOf(key)
	if to == operators && d.rules.Admin != nil {
		if subtle.ConstantTimeCompare(digest[:], d.rules.Admin[:]) == 1 {
			return d.open, nil
		}
		return nil, unauthorized(key, "the server's admin key")
	}
	if len(d.keys) == 0 {
		return d.open, nil
	}
	var found *bearer
	for _, b := range d.keys { // all of them, so that the time does not tell how far a guess got
		if subtle.ConstantTimeCompare(digest[:], b.Digest[:]) == 1 {
			found = b
		}
	}
	if found == nil {
		return nil, unauthorized(key, "an API key")
	}
	return found, nil
}

func unauthorized(key, want string) *Error {
	message := "This route needs " + want + ": send 'Authorization: Bearer KEY', 'x-api-key: KEY' or 'xi-api-key: KEY'."
	if key != "" {
		message = "The key is not " + want + "."
	}
	return &Error{Status: fiber.StatusUnauthorized, Type: typeInvalid, Code: "invalid_api_key", Message: message}
}

// givenKey returns the key that a request shows, "" for none.
func givenKey(c *fiber.Ctx) string {
	if scheme, key, ok := strings.Cut(c.Get(fiber.HeaderAuthorization), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(key)
	}
	if key := c.Get("x-api-key"); key != "" {
		return key
	}
	return c.Get(headerElevenKey)
}

// bearerOf returns who asks, nil on routes that are open to everybody.
func bearerOf(c *fiber.Ctx) *bearer {
	b, _ := c.Locals(localBearer).(*bearer)
	return b
}
