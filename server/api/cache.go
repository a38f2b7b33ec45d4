package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo/cache"
)

// Cache holds the loaded models; *cgo.Pool is one. None of its methods waits for a load but Preload.
type Cache interface {
	Snapshot() cache.Snapshot
	Curve() cache.Curve
	// Clear frees the models nobody uses, and those in use at their last release; with revoke their holders are asked
	// to stop. Remove does it for one.
	Clear(ctx context.Context, revoke bool) cache.Cleared
	Remove(ctx context.Context, id string, revoke bool) cache.Cleared
	// Preload loads a model, or returns when it is loaded. progress may be nil.
	Preload(ctx context.Context, id string, progress func(done, total int64)) error
	Plan(ctx context.Context, id string) (cache.Plan, error)
	Pin(ctx context.Context, id string) error
	Unpin(id string) bool
	Events(seq uint64) []cache.Event
	Listen(seq uint64) (*cache.Listener, []cache.Event)
	// Usable says whether a device is left that models may be on.
	Usable() bool
	// Ping returns when the owner of the cache's state has answered.
	Ping(ctx context.Context) error
}

// cleared is what POST /cache/clear and DELETE /cache/models/{id} did.
type cleared struct {
	Freed    []string `json:"freed"`    // gone when the answer comes
	Draining []string `json:"draining"` // in use: gone when their last request ends
	Revoked  []string `json:"revoked"`  // of them, those whose requests were ended
	Bytes    int64    `json:"freed_bytes"`
	Audio    int64    `json:"freed_audio_bytes"` // of the audio cache, which a clear empties, too
}

func clearedBody(c cache.Cleared) cleared {
	return cleared{Freed: list(c.Freed), Draining: list(c.Draining), Revoked: list(c.Revoked), Bytes: c.Bytes}
}

// list makes an empty list of none, for JSON.
func list[T any](of []T) []T {
	if of == nil {
		return []T{}
	}
	return of
}

// loaded is the outcome of loading one model.
type loaded struct {
	Model  string  `json:"model"`
	Loaded bool    `json:"loaded"`
	TookS  float64 `json:"took_s"`
	Error  string  `json:"error,omitempty"`
}

// cacheClear is POST /cache/clear. With ?force the requests that use a model are ended, too; then the status is 202
// while any of them has not let go.
func (s *Server) cacheClear(c *fiber.Ctx) error {
	force, err := flag(c, "force")
	if err != nil {
		return err
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	audio := s.Audio.Clear()
	return s.sendCleared(c, s.Cache.Clear(ctx, force), audio, force)
}

// cacheRemove is DELETE /cache/models/{id}.
func (s *Server) cacheRemove(c *fiber.Ctx) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	force, err := flag(c, "force")
	if err != nil {
		return err
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	done := s.Cache.Remove(ctx, id, force)
	if len(done.Freed)+len(done.Draining) == 0 {
		if _, err := s.find(c, id); err != nil {
			return err
		}
	}
	return s.sendCleared(c, done, 0, force)
}

func (s *Server) sendCleared(c *fiber.Ctx, done cache.Cleared, audio int64, force bool) error {
	if force && len(done.Draining) > 0 {
		c.Status(fiber.StatusAccepted)
	}
	body := clearedBody(done)
	body.Audio = audio
	return c.JSON(body)
}

// query returns a parameter of the query as it is, be it empty, or what it is when it is left out.
func query(c *fiber.Ctx, name, otherwise string) string {
	if !c.Context().QueryArgs().Has(name) {
		return otherwise
	}
	return c.Query(name)
}

// flag reads a switch of the query: ?name, ?name=true or ?name=false.
func flag(c *fiber.Ctx, name string) (bool, error) {
	if !c.Context().QueryArgs().Has(name) {
		return false, nil
	}
	switch c.Query(name) {
	case "", "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, badRequest(name, "invalid_value", "%q must be true or false.", name)
}

// cachePreload is POST /cache/preload/{id}: it answers when the model is loaded. A client that accepts an event
// stream sees the progress.
func (s *Server) cachePreload(c *fiber.Ctx) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	ctx, stop := s.clientContext(c)
	if wantsEvents(c) {
		if _, err := s.find(c, id); err != nil {
			stop()
			return err
		}
		return s.streamPreload(ctx, stop, c, id)
	}
	defer stop()
	started := time.Now()
	if err := s.Cache.Preload(ctx, id, nil); err != nil {
		return &modelError{id: id, err: err}
	}
	return c.JSON(loaded{Model: id, Loaded: true, TookS: time.Since(started).Seconds()})
}

func (s *Server) streamPreload(ctx context.Context, stop func(), c *fiber.Ctx, id string) error {
	started := time.Now()
	request := requestID(c)
	sendEvents(c, stop, func(w *bufio.Writer) {
		err := s.Cache.Preload(ctx, id, func(done, total int64) {
			// A client that does not read is found out by the watch on its connection.
			_ = sendEvent(w, "progress", "", fiber.Map{"model": id, "done_bytes": done, "total_bytes": total})
		})
		if err == nil {
			_ = sendEvent(w, "loaded", "", loaded{Model: id, Loaded: true, TookS: time.Since(started).Seconds()})
			return
		}
		e := toError(&modelError{id: id, err: err}, context.Cause(ctx))
		s.Log.Warn().Err(err).Str("request_id", request).Str("model", id).Msg("preload failed")
		_ = sendEvent(w, "error", "", e.envelope())
	})
	return nil
}

// cacheWarmup is POST /cache/warmup: a JSON list of ids, loaded one after the other. An unknown id refuses the whole
// list before anything is loaded. Its status is that of the first load that failed; the others are still tried.
func (s *Server) cacheWarmup(c *fiber.Ctx) error {
	ids, err := s.warmupIDs(c)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := s.find(c, id); err != nil {
			return err
		}
	}
	if most := s.Cache.Snapshot().MaxEntries; most > 0 && len(ids) > most {
		return badRequest("", "invalid_value", "The list has %d models but the cache holds %d: the last would push out the first.", len(ids), most)
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	results := make([]loaded, 0, len(ids))
	for _, id := range ids {
		started := time.Now()
		err := s.Cache.Preload(ctx, id, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result := loaded{Model: id, Loaded: err == nil, TookS: time.Since(started).Seconds()}
		if err != nil {
			s.Log.Error().Err(err).Str("request_id", requestID(c)).Str("model", id).Msg("warm-up failed")
			e := toError(&modelError{id: id, err: err}, nil)
			result.Error = e.Message
			if c.Response().StatusCode() == fiber.StatusOK {
				c.Status(e.Status)
				retryAfter(c, e)
			}
		}
		results = append(results, result)
	}
	return c.JSON(fiber.Map{"models": results})
}

func (s *Server) warmupIDs(c *fiber.Ctx) ([]string, error) {
	body, err := s.jsonBody(c)
	if err != nil {
		return nil, err
	}
	var ids []string
	if err := json.Unmarshal(body, &ids); err != nil || ids == nil || slices.Contains(ids, "") { // a null is read as ""
		return nil, notJSON(`list of model ids such as ["suno/bark-small"]`, err)
	}
	if len(ids) > maxWarmup {
		return nil, badRequest("", "invalid_value", "The list has %d ids; at most %d are taken.", len(ids), maxWarmup)
	}
	distinct := ids[:0]
	for _, id := range ids {
		if !slices.Contains(distinct, id) {
			distinct = append(distinct, id)
		}
	}
	return distinct, nil
}

// cachePin is PUT /cache/pins/{id}: the model is not evicted any more once it is loaded.
func (s *Server) cachePin(c *fiber.Ctx) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	var refused *cache.Refusal
	switch err := s.Cache.Pin(ctx, id); {
	case errors.As(err, &refused):
		return &Error{Status: fiber.StatusConflict, Type: typeInvalid, Code: "pins_too_large", Param: "model",
			Message: "The pinned models would not fit together: " + refused.Error() + ".", err: err}
	case err != nil:
		return &modelError{id: id, err: err}
	}
	return c.JSON(fiber.Map{"pins": list(s.Cache.Snapshot().Pins)})
}

// cacheUnpin is DELETE /cache/pins/{id}.
func (s *Server) cacheUnpin(c *fiber.Ctx) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	if !s.Cache.Unpin(id) {
		return &Error{Status: fiber.StatusNotFound, Type: typeInvalid, Param: "model", Code: "not_pinned",
			Message: "The model is not pinned."}
	}
	return c.JSON(fiber.Map{"pins": list(s.Cache.Snapshot().Pins)})
}
