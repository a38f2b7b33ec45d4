// Package tracing sends spans of requests by OTLP over HTTP, when the environment names where to. What lies below gets its
// spans from the context, and pays for none while there is nobody to send them to.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// scope names the instrumentation in every span.
const scope = "barkd/server"

// flushPatience bounds how long the last spans may take to be sent.
const flushPatience = 5 * time.Second

// Tracing sends spans until it is closed. A nil one is off.
type Tracing struct{ provider *sdk.TracerProvider }

// Open returns nil unless OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set. Those, and the other
// variables of OTLP, of the sampler and of the resource, are read by OpenTelemetry's own code from the process's environment.
// What cannot be sent is logged, and dropped.
func Open(ctx context.Context, getenv func(string) string, version string, log zerolog.Logger) (*Tracing, error) {
	wanted, err := wanted(getenv)
	if err != nil || !wanted {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	// The later one wins: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES over ours.
	from, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "barkd"), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn().Err(err).Msg("traces") }))
	return &Tracing{sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(from))}, nil
}

// wanted says whether traces are to be sent, and refuses what this cannot do.
func wanted(getenv func(string) string) (bool, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || strings.EqualFold(getenv("OTEL_TRACES_EXPORTER"), "none") {
		return false, nil
	}
	found := false
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		value := getenv(name)
		if value == "" {
			continue
		}
		if at, err := url.Parse(value); err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
			return false, fmt.Errorf("%s=%q must be a URL such as http://localhost:4318", name, value)
		}
		found = true
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if value := getenv(name); found && value != "" && value != "http/protobuf" {
			return false, fmt.Errorf("%s=%q must be http/protobuf: traces are sent in no other way", name, value)
		}
	}
	return found, nil
}

// Tracer returns what begins the spans of requests; nil when tracing is off.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer(scope)
}

// Close sends what is left.
func (t *Tracing) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

// Start begins a span below the context's. Without one that is recorded it does nothing.
func Start(ctx context.Context, name string) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Span{}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name)
	return ctx, Span{span}
}

// Span is one that Start has begun, or nothing.
type Span struct{ span trace.Span }

// Recorded says whether anybody will see the span; without that, there is no use in making up attributes.
func (s Span) Recorded() bool { return s.span != nil }

// Set adds attributes.
func (s Span) Set(attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.SetAttributes(attributes...)
	}
}

// End ends the span, with the error that ended its work or nil.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.RecordError(err)
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Part adds a span below s for work that is over: it began at from and took so long.
func (s Span) Part(ctx context.Context, name string, from time.Time, took time.Duration) {
	if s.span == nil {
		return
	}
	_, part := s.span.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithTimestamp(from))
	part.End(trace.WithTimestamp(from.Add(took)))
}
