package api

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
)

const (
	headerRequestID = fiber.HeaderXRequestID
	localCause      = "cause"
	maxRequestID    = 128
)

// observe gives each request an id, turns its error or panic into a response, and logs it once.
func (s *Server) observe(c *fiber.Ctx) error {
	started := time.Now()
	id := requestID(c)
	s.trace(c)
	err := s.guarded(c)
	if err != nil {
		if failed := s.fail(c, err); failed != nil {
			return failed
		}
	}
	if s.draining.Load() {
		c.Response().Header.SetConnectionClose()
	}
	status := c.Response().StatusCode()
	line := s.Log.WithLevel(level(c, status))
	if err != nil {
		line = line.Err(rootCause(err))
	}
	if b := bearerOf(c); b != nil && b.Name != "" {
		line = line.Str("key", b.Name)
	}
	traced(line, spanOf(c)).Str("request_id", id).Str("method", c.Method()).Str("path", c.Path()).Int("status", status).
		Dur("took_ms", time.Since(started)).Int("bytes", responseBytes(c)).Str("client", c.IP()).Msg("request")
	endTrace(c, status, err)
	return nil
}

// responseBytes is the length of the answer; that of a stream, which is still to be written, is not known.
func responseBytes(c *fiber.Ctx) int {
	if c.Response().IsBodyStream() {
		return 0
	}
	return len(c.Response().Body())
}

// level keeps the polls of a monitor out of the usual log and makes the server's own failures stand out.
func level(c *fiber.Ctx, status int) zerolog.Level {
	if probe(c.Path()) && status != fiber.StatusInternalServerError {
		return zerolog.DebugLevel
	}
	return levelOf(status)
}

func levelOf(status int) zerolog.Level {
	switch {
	case status == fiber.StatusInternalServerError:
		return zerolog.ErrorLevel
	case status > fiber.StatusInternalServerError:
		return zerolog.WarnLevel
	}
	return zerolog.InfoLevel
}

// probe says whether a path is asked for by monitors, over and over, and answered until the end.
func probe(path string) bool {
	return path == "/health" || path == "/livez" || path == "/readyz" || path == "/metrics"
}

// rootCause is what the log shows: the hidden cause of an Error, if it has one.
func rootCause(err error) error {
	var e *Error
	if errors.As(err, &e) && e.err != nil {
		return e.err
	}
	return err
}

// guarded runs the handlers; a panic becomes an error that carries its stack.
func (s *Server) guarded(c *fiber.Ctx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError(p)
		}
	}()
	if s.draining.Load() && !probe(c.Path()) {
		return unavailable("shutting_down", "The server is shutting down.", retrySoon, nil)
	}
	return c.Next()
}

// panicError makes an error of what recover returned, with the stack of the panic.
func panicError(p any) error { return fmt.Errorf("panic: %v\n%s", p, debug.Stack()) }

// requestID returns the request's id and sends it back: the client's own if it is fit for a log line, else a new one.
func requestID(c *fiber.Ctx) string {
	if id := string(c.Response().Header.Peek(headerRequestID)); id != "" {
		return id
	}
	id := c.Get(headerRequestID)
	if !fitID(id) {
		id = uuid.NewString()
	}
	c.Set(headerRequestID, id)
	return string([]byte(id)) // c.Get's string dies with the request
}

func fitID(id string) bool {
	return id != "" && len(id) <= maxRequestID && fitLine(id)
}

// fitLine says whether a text from outside is printable ASCII without blanks.
func fitLine(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
