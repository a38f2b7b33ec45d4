package api

import (
	"context"

	"github.com/gofiber/fiber/v2"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const localSpan = "span"

// headers reads a request's headers for the propagation of traces.
type headers struct{ c *fiber.Ctx }

func (h headers) Get(name string) string { return string(h.c.Request().Header.Peek(name)) }
func (h headers) Set(string, string)     {}
func (h headers) Keys() []string         { return nil }

// trace begins the span of a request, below that of its traceparent. Monitors' polls have none.
func (s *Server) trace(c *fiber.Ctx) {
	if s.Tracer == nil || probe(c.Path()) {
		return
	}
	from := propagation.TraceContext{}.Extract(context.Background(), headers{c})
	_, span := s.Tracer.Start(from, c.Method(), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", string([]byte(c.Method()))),
		attribute.String("url.path", string([]byte(c.Path()))),
		attribute.String("barkd.request_id", requestID(c))))
	c.Locals(localSpan, span)
}

// spanOf returns the request's span; nil when it has none.
func spanOf(c *fiber.Ctx) trace.Span {
	span, _ := c.Locals(localSpan).(trace.Span)
	return span
}

// endTrace ends the request's span, unless a stream has taken it with it.
func endTrace(c *fiber.Ctx, status int, err error) {
	span := spanOf(c)
	if span == nil {
		return
	}
	if route := c.Route(); route != nil && route.Path != "/" || c.Path() == "/" {
		span.SetName(c.Method() + " " + route.Path)
		span.SetAttributes(attribute.String("http.route", route.Path))
	}
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= fiber.StatusInternalServerError && err != nil {
		span.SetStatus(codes.Error, rootCause(err).Error())
	}
	if !c.Response().IsBodyStream() {
		span.End()
	}
}

// traced adds to a log line which trace it belongs to.
func traced(line *zerolog.Event, span trace.Span) *zerolog.Event {
	if span == nil || !span.SpanContext().IsValid() {
		return line
	}
	return line.Str("trace_id", span.SpanContext().TraceID().String())
}
