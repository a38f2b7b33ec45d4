package main

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver takes spans by OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []*trace.Span
	service string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			unpacked, err := gzip.NewReader(req.Body)
			if !assert.NoError(t, err) {
				return
			}
			body = unpacked
		}
		text, err := io.ReadAll(body)
		assert.NoError(t, err)
		var export collector.ExportTraceServiceRequest
		assert.NoError(t, proto.Unmarshal(text, &export))
		assert.Equal(t, "/v1/traces", req.URL.Path)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, of := range export.ResourceSpans {
			for _, a := range of.Resource.Attributes {
				if a.Key == "service.name" {
					r.service = a.Value.GetStringValue()
				}
			}
			for _, in := range of.ScopeSpans {
				r.spans = append(r.spans, in.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// children returns the names of the spans right below one, in the order in which they began.
func (r *receiver) children(of *trace.Span) (names []string, spans []*trace.Span) {
	for _, s := range r.spans {
		if string(s.ParentSpanId) == string(of.SpanId) {
			spans = append(spans, s)
		}
	}
	slices.SortStableFunc(spans, func(a, b *trace.Span) int { return int(int64(a.StartTimeUnixNano - b.StartTimeUnixNano)) })
	for _, s := range spans {
		names = append(names, s.Name)
	}
	return names, spans
}

func TestTracesOfARequestAreSent(t *testing.T) {
	to := newReceiver(t)
	env := map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "CACHE_WARMUP_ENABLED": "false",
		"OTEL_EXPORTER_OTLP_ENDPOINT": to.URL}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL) // OpenTelemetry's code reads the process's own
	s := startServer(t, env)
	const traceID, parentID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, and then it walks home in the evening sun. ", 3)
	for _, more := range []string{`"response_format":"wav"`, `"response_format":"pcm","stream_format":"audio"`} {
		req, err := http.NewRequest("POST", s.url+"/v1/audio/speech", strings.NewReader(`{"model":"suno/bark","input":"`+text+`",`+more+`}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Traceparent", "00-"+traceID+"-"+parentID+"-01")
		req.Header.Set("X-Request-Id", "the-request")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
	}
	resp, err := http.Get(s.url + "/health")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	resp, body := s.post(t, "/v1/audio/speech", `{"model":"suno/none","input":"a"}`)
	require.Equal(t, 404, resp.StatusCode, "%s", body)
	require.Zero(t, s.stop())

	to.mu.Lock()
	defer to.mu.Unlock()
	assert.Equal(t, "barkd", to.service)
	for _, span := range to.spans {
		assert.NotContains(t, span.Name, "health", "monitors are not traced")
	}
	requests := 0
	for _, span := range to.spans {
		if span.Kind != trace.Span_SPAN_KIND_SERVER || hex.EncodeToString(span.TraceId) != traceID {
			continue
		}
		requests++
		assert.Equal(t, "POST /v1/audio/speech", span.Name)
		assert.Equal(t, parentID, hex.EncodeToString(span.ParentSpanId))
		names, below := to.children(span)
		require.Equal(t, []string{"queue", "acquire model", "queue", "session", "piece", "piece", "piece"}, names)
		for _, piece := range below[4:] {
			stages, parts := to.children(piece)
			assert.Equal(t, []string{"semantic", "coarse", "fine", "codec"}, stages)
			assert.GreaterOrEqual(t, parts[0].StartTimeUnixNano, piece.StartTimeUnixNano-1e6)
			assert.LessOrEqual(t, piece.EndTimeUnixNano, span.EndTimeUnixNano, "the request lasts as long as its stream")
		}
	}
	assert.Equal(t, 2, requests)
	for _, line := range logged(t, s.log.String(), "the-request") {
		assert.Equal(t, traceID, line["trace_id"], "%v", line)
	}
}

// logged returns the lines of the log that name a request.
func logged(t *testing.T, log, id string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(log) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil && line["request_id"] == id {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 4, "each request is logged as a request and as speech")
	return lines
}

func TestBadTraceSettingsAreUsageErrors(t *testing.T) {
	got := barkd(t, map[string]string{"BARKD_BACKEND": "mock", "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "", "serve")
	assert.Equal(t, 2, got.code)
	assert.Contains(t, got.err, "OTEL_EXPORTER_OTLP_ENDPOINT")
}
