package api

import (
	"bufio"
	"context"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo/cache"
)

// keepAliveEvery is how often an idle event stream says that it is alive: proxies cut silent connections.
const keepAliveEvery = 15 * time.Second

// event is one decision of the cache.
type event struct {
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Model    string    `json:"model,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	For      string    `json:"for,omitempty"`
	RunnerUp string    `json:"runner_up,omitempty"`
	Pool     string    `json:"pool,omitempty"`
	Bytes    int64     `json:"bytes,omitempty"`
	Seconds  float64   `json:"seconds,omitempty"`
	Holder   string    `json:"holder,omitempty"`
	Blockers []blocker `json:"blockers,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// blocker is a lease in somebody's way.
type blocker struct {
	Model  string  `json:"model"`
	Holder string  `json:"holder,omitempty"`
	HeldS  float64 `json:"held_s"`
}

func blockers(of []cache.Blocker) []blocker {
	out := make([]blocker, 0, len(of))
	for _, b := range of {
		out = append(out, blocker{Model: b.Key, Holder: b.Holder, HeldS: b.Held.Seconds()})
	}
	return out
}

func eventBody(e cache.Event) event {
	return event{Seq: e.Seq, At: e.At, Kind: string(e.Kind), Model: e.Key, Reason: string(e.Reason), For: e.For,
		RunnerUp: e.RunnerUp, Pool: e.Pool, Bytes: e.Bytes, Seconds: e.Took.Seconds(), Holder: e.Holder,
		Blockers: blockers(e.Blockers), Error: e.Error}
}

// cacheEvents is GET /cache/events?since=: the decision journal; as an event stream for clients that accept one. A
// stream that is taken up again goes on after Last-Event-ID.
func (s *Server) cacheEvents(c *fiber.Ctx) error {
	since, err := sequence(c)
	if err != nil {
		return err
	}
	if wantsEvents(c) {
		ctx, stop := s.clientContext(c)
		sendEvents(c, stop, func(w *bufio.Writer) { s.streamEvents(ctx, w, since) })
		return nil
	}
	out := []event{}
	for _, e := range s.Cache.Events(since) {
		out = append(out, eventBody(e))
	}
	return c.JSON(fiber.Map{"events": out})
}

func sequence(c *fiber.Ctx) (uint64, error) {
	var since uint64
	given := map[string]string{"since": query(c, "since", "0"), "Last-Event-ID": "0"}
	if last := c.Request().Header.PeekAll("Last-Event-ID"); len(last) > 0 {
		given["Last-Event-ID"] = string(last[0])
	}
	for name, text := range given {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return 0, badRequest(name, "invalid_value", "%q must be the number of an event.", name)
		}
		since = max(since, n)
	}
	return since, nil
}

// streamEvents sends events until the client is gone or the server shuts down.
func (s *Server) streamEvents(ctx context.Context, w *bufio.Writer, since uint64) {
	listener, past := s.Cache.Listen(since)
	defer listener.Close()
	for _, e := range past {
		if sendCacheEvent(w, e) != nil {
			return
		}
	}
	alive := time.NewTicker(keepAliveEvery)
	defer alive.Stop()
	if sendComment(w, "listening") != nil { // with it go the headers, so that the client knows it is heard
		return
	}
	for {
		select {
		case e := <-listener.Events():
			if sendCacheEvent(w, e) != nil {
				return
			}
		case <-alive.C:
			if sendComment(w, "alive") != nil {
				return
			}
		case <-s.leaving:
			return
		case <-ctx.Done():
			return
		}
	}
}

func sendCacheEvent(w *bufio.Writer, e cache.Event) error {
	return sendEvent(w, string(e.Kind), strconv.FormatUint(e.Seq, 10), eventBody(e))
}
