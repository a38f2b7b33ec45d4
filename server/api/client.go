package api

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.opentelemetry.io/otel/trace"
)

// lookEvery is how often a running request looks whether its client is still there.
const lookEvery = 50 * time.Millisecond

// clientContext returns a context that ends when the client closes its connection or the server's grace is over.
// Fiber tells a handler neither. The request's body has been read whole by now, so a client that closes even one
// direction is taken to be gone. The caller must call stop.
func (s *Server) clientContext(c *fiber.Ctx) (ctx context.Context, stop func()) {
	base := s.base
	if span := spanOf(c); span != nil {
		base = trace.ContextWithSpan(base, span)
	}
	ctx, cancel := context.WithCancelCause(base)
	c.Locals(localCause, func() error { return context.Cause(ctx) })
	stopWatching := watch(c.Context().Conn(), func() { cancel(errClientGone) })
	return ctx, func() {
		stopWatching()
		cancel(nil)
	}
}

// causeOf returns why the request's context ended, nil if it has none.
func causeOf(c *fiber.Ctx) error {
	if cause, ok := c.Locals(localCause).(func() error); ok {
		return cause()
	}
	return nil
}

// watch calls gone, once, when the peer has closed conn. The returned function ends the watch and waits for it.
func watch(conn net.Conn, gone func()) (stop func()) {
	closed, ok := peerClosed(conn)
	if !ok {
		return func() {}
	}
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if closed() {
					gone()
					return
				}
			}
		}
	})
	return func() {
		close(done)
		watcher.Wait()
	}
}
