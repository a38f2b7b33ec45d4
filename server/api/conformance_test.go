package api_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// What schemathesis found and would find again (tools/api-fuzz), one line each.
func TestRequestsThatTheDocumentForbidsAreRefused(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		code               string
	}{
		{"QUERY", "/v1/models", "", nil, 405, "method_not_allowed"},
		{"BREW", "/v1/models", "", nil, 501, "unknown_method"},
		{"DELETE", "/v1/audio/voices", "", nil, 405, "method_not_allowed"},
		{"POST", "/cache/warmup", `[null]`, nil, 400, "invalid_json"},
		{"POST", "/cache/warmup", `[""]`, nil, 400, "invalid_json"},
		{"POST", "/cache/clear?force=TRUE", "", nil, 400, "invalid_value"},
		{"GET", "/cache/events?since=0", "", []string{"Last-Event-ID", "{}"}, 400, "invalid_value"},
		{"GET", "/cache/events", "", []string{"Last-Event-ID", ""}, 400, "invalid_value"},
		{"GET", "/cache/events?since=", "", nil, 400, "invalid_value"},
		{"POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a","top_p":1e-300}`, nil, 400, "invalid_value"},
		{"POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a","voice":{"id":null}}`, nil, 400, "invalid_value"},
		{"POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a","seed":5.5}`, nil, 400, "invalid_value"},
		{"POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a","seed":1e30}`, nil, 400, "invalid_value"},
	} {
		got := s.do(t, c.method, c.path, c.body, c.header...)
		assert.Equal(t, c.status, got.status, "%s %s %s", c.method, c.path, c.body)
		assert.Equal(t, c.code, deref(got.failure(t).Code), "%s %s %s", c.method, c.path, c.body)
	}
}

func TestWholeNumbersMayBeWrittenWithAPoint(t *testing.T) {
	s := newSite(t)
	got := s.speak(t, `{"model":"suno/bark","input":"a","seed":36795.0,"max_tokens":2e2,"top_k":5.00}`)
	assert.Equal(t, 200, got.status, "%s", got.body)
	assert.Equal(t, "36795", got.header.Get("X-Barkd-Seed"))
}
