package api

import (
	"strings"

	"github.com/gofiber/fiber/v2"

	"barkd/server/web"
)

// page is GET /: the web page.
func (s *Server) page(c *fiber.Ctx) error { return sendAsset(c, web.Index) }

// asset is GET /web/{file}: the page's styles, modules and icon.
func (s *Server) asset(c *fiber.Ctx) error { return sendAsset(c, c.Params("+")) }

// sendAsset sends a file of the page, or 304 to a browser that has it. The names carry no version, so a browser asks
// each time whether its copy is still the one.
func sendAsset(c *fiber.Ctx, name string) error {
	a, ok := web.Find(name)
	if !ok {
		return fiber.ErrNotFound
	}
	c.Set(fiber.HeaderContentSecurityPolicy, web.Policy)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderReferrerPolicy, "no-referrer")
	c.Set(fiber.HeaderCacheControl, "no-cache")
	c.Set(fiber.HeaderETag, a.ETag)
	if holds(c.Get(fiber.HeaderIfNoneMatch), a.ETag) {
		return c.SendStatus(fiber.StatusNotModified)
	}
	c.Set(fiber.HeaderContentType, a.ContentType)
	c.Context().Response.SetBodyRaw(a.Body)
	return nil
}

// holds says whether an If-None-Match names the tag; proxies that compress make it a weak one.
func holds(ifNoneMatch, tag string) bool {
	for one := range strings.SplitSeq(ifNoneMatch, ",") {
		if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == tag {
			return true
		}
	}
	return false
}
