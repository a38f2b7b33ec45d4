package api

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
)

// headerTimeout is how long the client waits for its answer to begin: seconds, or a duration such as 1m30s. It can only
// shorten the server's own bound.
const headerTimeout = "X-Barkd-Timeout"

// timeoutError is the cause for which a request's context ends when its answer has not begun in time.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string {
	return "the request's answer did not begin within " + e.after.String()
}

// timeoutOf returns how long the request may take to begin its answer, 0 for as long as it wants.
func (s *Server) timeoutOf(c *fiber.Ctx) (time.Duration, error) {
	most := s.door.Load().rules.Timeout
	given := strings.TrimSpace(c.Get(headerTimeout))
	if given == "" {
		return most, nil
	}
	timeout, err := time.ParseDuration(given)
	if seconds, numErr := strconv.ParseFloat(given, 64); numErr == nil {
		timeout, err = time.Duration(min(seconds*float64(time.Second), math.MaxInt64/2)), nil
		if !(seconds > 0) { // NaN, too
			timeout = 0
		}
	}
	if err != nil || timeout <= 0 {
		return 0, badRequest(headerTimeout, "invalid_value", "The header %s must be seconds or a duration such as 1m30s, above 0, not %q.", headerTimeout, given)
	}
	if most > 0 {
		timeout = min(timeout, most)
	}
	return timeout, nil
}

// deadline ends a request whose answer does not begin in time.
type deadline struct{ timer *time.Timer } // nil without a timeout

// withDeadline returns a context that ends with a *timeoutError after the timeout (0 is never), unless the deadline is
// met before.
func withDeadline(ctx context.Context, timeout time.Duration) (context.Context, *deadline) {
	if timeout == 0 {
		return ctx, &deadline{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &deadline{time.AfterFunc(timeout, func() { cancel(&timeoutError{timeout}) })}
}

// met says that the answer begins now, or needs no deadline any more; the first call is false if that is too late.
func (d *deadline) met() bool { return d.timer == nil || d.timer.Stop() }
