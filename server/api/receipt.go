package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/gofiber/fiber/v2"

	"barkd/server/speech"
)

// receipt says what the audio of a request is made of.
type receipt struct {
	content speech.Content // the zero value for a request without a seed, or whose model or voice there is not
	digest  string         // of the model's file, "" if it is not known
}

// Headers of a receipt.
const (
	headerModelDigest = "X-Barkd-Model-Digest"
	headerAudioCache  = "X-Barkd-Audio-Cache"
)

// origins are the values of headerAudioCache.
var origins = map[speech.Origin]string{speech.Made: "miss", speech.Joined: "join", speech.Kept: "hit"}

// content names what a request with a seed will make.
func (s *Server) content(c *fiber.Ctx, order speechBody) speech.Content {
	if order.request.Seed == nil {
		return speech.Content{}
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	content, err := s.Speaker.Content(ctx, order.request)
	if err != nil {
		return speech.Content{} // it cannot be spoken, and whoever tries will say why
	}
	return content
}

// digest returns the digest of a version of a model's file. One that was replaced meanwhile has none.
func (s *Server) digest(ctx context.Context, model, version string) string {
	digest, err := s.Digest(ctx, model, version)
	if err != nil {
		s.Log.Debug().Err(err).Str("model", model).Msg("no digest")
	}
	return digest
}

// tag is the entity tag of the audio, "" if it has none: audio without a seed is never made again, and events are no
// audio. It names the bytes: a format's stream has others than its whole.
func (r receipt) tag(build string, order speechBody, streamed bool) string {
	if r.content == (speech.Content{}) || r.digest == "" || order.delivery == deliverEvents {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%+v\x00%v\x00%v", build, r.digest, r.content.Sum, order.format, order.speed, streamed))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
}

// unchanged answers 304 if the client has the audio already, in either form, and says whether it did. The request is a
// POST, to which RFC 9110 would say 412: but what it asks for is a pure function of its body, as the answer to a GET is.
func (s *Server) unchanged(c *fiber.Ctx, order speechBody, content speech.Content) bool {
	has := c.Get(fiber.HeaderIfNoneMatch)
	if has == "" || content == (speech.Content{}) {
		return false
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	r := receipt{content: content, digest: s.digest(ctx, order.request.Model, content.Version)}
	for _, streamed := range []bool{false, true} {
		tag := r.tag(s.Build, order, streamed)
		if tag == "" || !matches(has, tag) {
			continue
		}
		r.headers(c, tag)
		c.Status(fiber.StatusNotModified)
		return true
	}
	return false
}

// matches says whether an If-None-Match names a tag. Proxies that compress make tags weak.
func matches(list, tag string) bool {
	for _, one := range strings.Split(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(one), "W/") == tag {
			return true
		}
	}
	return false
}

// headers sends the receipt. Who keeps the audio must ask whether it still is the one: another model may have come.
func (r receipt) headers(c *fiber.Ctx, tag string) {
	if r.digest != "" {
		c.Set(headerModelDigest, "sha256:"+r.digest)
	}
	if tag == "" {
		c.Set(fiber.HeaderCacheControl, "no-store")
		return
	}
	c.Set(fiber.HeaderETag, tag)
	c.Set(fiber.HeaderCacheControl, "private, no-cache")
}
