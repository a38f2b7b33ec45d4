package tracing

import (
	"context"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTracesAreOffUnlessAnEndpointIsNamed(t *testing.T) {
	for _, env := range []map[string]string{
		{}, {"OTEL_SERVICE_NAME": "x"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "true"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"},
	} {
		off, err := Open(t.Context(), func(name string) string { return env[name] }, "1", zerolog.Nop())
		require.NoError(t, err)
		assert.Nil(t, off)
		assert.Nil(t, off.Tracer())
		require.NoError(t, off.Close())
	}
}

func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	for _, env := range []map[string]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ftp://localhost"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
	} {
		_, err := Open(t.Context(), func(name string) string { return env[name] }, "1", zerolog.Nop())
		assert.ErrorContains(t, err, "must be")
	}
}

func spanned(ctx context.Context) {
	ctx, span := Start(ctx, "work")
	if span.Recorded() {
		span.Set()
	}
	_ = ctx
	span.End(nil)
}

func TestASpanCostsNoMemoryWhileTracesAreOff(t *testing.T) {
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(100, func() { spanned(ctx) }))
}

func BenchmarkASpanWhileTracesAreOff(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		spanned(ctx)
	}
}
