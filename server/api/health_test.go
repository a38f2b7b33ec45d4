package api_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/api"
)

func TestReadinessWaitsForTheWarmup(t *testing.T) {
	s := openSite(t, settings{warmup: []string{"suno/bark"}})
	r := s.do(t, "GET", "/readyz", "")
	assert.Equal(t, 503, r.status)
	assert.JSONEq(t, `{"status":"warming_up","devices":[{"id":"cpu","state":"ok"}],
		"warmup":[{"model":"suno/bark","state":"pending","took_s":0}]}`, string(r.body))
	assert.Equal(t, 200, s.do(t, "GET", "/livez", "").status, "alive all the same")
	s.warmup.Run(t.Context(), s.pool, found, nil)
	r = s.do(t, "GET", "/readyz", "")
	assert.Equal(t, 200, r.status)
	assert.Contains(t, string(r.body), `"state":"ready"`)
}

func TestReadinessShowsWhatTheWarmupMissed(t *testing.T) {
	s := openSite(t, settings{warmup: []string{"no/such", "suno/bark"}})
	s.warmup.Run(t.Context(), s.pool, found, nil)
	r := s.do(t, "GET", "/readyz", "")
	assert.Equal(t, 200, r.status)
	assert.Contains(t, string(r.body), `"state":"missing"`)
	assert.Contains(t, string(r.body), `"state":"ready"`)
}

func TestHealthAndMetricsTellOfTheCache(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.do(t, "POST", "/cache/preload/barkd/tiny", "").status)
	assert.Contains(t, string(s.do(t, "GET", "/health", "").body), `"cached_models":["barkd/tiny"]`)
	r := s.do(t, "GET", "/metrics", "")
	assert.Equal(t, 200, r.status)
	assert.Contains(t, string(r.body), "bark_real_time_factor")
}

func TestTheAdminKeyGuardsTheCacheAlone(t *testing.T) {
	key := api.DigestOf("sesame")
	s := openSite(t, settings{rules: api.Rules{Admin: &key}})
	for _, header := range [][]string{nil, {"Authorization", "Bearer wrong"}, {"Authorization", "sesame"}, {"x-api-key", "wrong"}} {
		r := s.do(t, "GET", "/cache/stats", "", header...)
		assert.Equal(t, 401, r.status, header)
		assert.Equal(t, "invalid_api_key", deref(r.failure(t).Code))
	}
	assert.Equal(t, 200, s.do(t, "GET", "/cache/stats", "", "Authorization", "Bearer sesame").status)
	assert.Equal(t, 200, s.do(t, "GET", "/cache/stats", "", "x-api-key", "sesame").status)
	assert.Equal(t, 200, s.do(t, "GET", "/health", "").status)
	assert.Equal(t, 200, s.do(t, "GET", "/v1/models", "").status)
}

func TestTheCacheCanHaveAListenerOfItsOwn(t *testing.T) {
	s := openSite(t, settings{apart: true})
	assert.Equal(t, http.StatusNotFound, s.do(t, "GET", "/cache/stats", "").status)
	assert.Equal(t, 200, do(t, "GET", s.adminURL+"/cache/stats", "").status)
	assert.Equal(t, http.StatusNotFound, do(t, "GET", s.adminURL+"/v1/models", "").status)
	assert.Equal(t, 200, do(t, "GET", s.adminURL+"/livez", "").status)
	assert.Equal(t, 200, s.do(t, "GET", "/livez", "").status)
}

// found knows every model but no/such.
func found(_ context.Context, id string) error {
	if id == "no/such" {
		return cgo.ErrNotFound
	}
	return nil
}
