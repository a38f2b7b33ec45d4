package api_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTheModelMayComeInAHeaderAndIsEchoed(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]struct {
		body   string
		header []string
	}{
		"body":            {`{"model":"suno/bark","input":"Hi."}`, nil},
		"header":          {`{"input":"Hi."}`, []string{"X-Barkd-Model", "suno/bark"}},
		"picker's header": {`{"input":"Hi."}`, []string{"x-llm-d-model-name-rewrite", "suno/bark"}},
		"all alike":       {`{"model":"suno/bark","input":"Hi."}`, []string{"X-Barkd-Model", "suno/bark", "x-llm-d-model-name-rewrite", "suno/bark"}},
		"stream":          {`{"input":"Hi.","stream_format":"sse"}`, []string{"X-Barkd-Model", "suno/bark"}},
	} {
		r := s.do(t, "POST", "/v1/audio/speech", c.body, c.header...)
		assert.Equal(t, 200, r.status, "%s: %s", name, r.body)
		assert.Equal(t, "suno/bark", r.header.Get("X-Barkd-Model"), name)
	}
}

func TestAModelHeaderThatCannotBeIsRefused(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]struct {
		body, code string
		header     []string
	}{
		"nowhere":          {`{"input":"Hi."}`, "missing_parameter", nil},
		"not the body's":   {`{"model":"suno/bark","input":"Hi."}`, "model_conflict", []string{"X-Barkd-Model", "barkd/tiny"}},
		"not each other's": {`{"input":"Hi."}`, "model_conflict", []string{"X-Barkd-Model", "barkd/tiny", "x-llm-d-model-name-rewrite", "suno/bark"}},
		"not printable":    {`{"input":"Hi."}`, "invalid_value", []string{"X-Barkd-Model", "suno/bärk"}},
		"unknown":          {`{"input":"Hi."}`, "model_not_found", []string{"X-Barkd-Model", "suno/nope"}},
	} {
		f := s.do(t, "POST", "/v1/audio/speech", c.body, c.header...).failure(t)
		assert.Equal(t, c.code, deref(f.Code), name)
		assert.Equal(t, "model", deref(f.Param), name)
	}
}
