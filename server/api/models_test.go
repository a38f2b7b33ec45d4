package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func TestModelsAreListedAndFoundByIDsWithASlash(t *testing.T) {
	s := newSite(t, "a", "b")
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Voices     int
		}
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/models", "").body, &list))
	assert.Equal(t, "list", list.Object)
	assert.Len(t, list.Data, 2)
	for _, path := range []string{"suno/bark", "suno%2Fbark"} {
		r := s.do(t, "GET", "/v1/models/"+path, "")
		assert.Equal(t, 200, r.status)
		assert.Contains(t, string(r.body), `"id":"suno/bark"`)
	}
	assert.Equal(t, "model_not_found", deref(s.do(t, "GET", "/v1/models/suno/nope", "").failure(t).Code))
	assert.Equal(t, 400, s.do(t, "GET", "/v1/models/%FF", "").status)
}

func TestVoicesAreListedWithDefaultAndAliases(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6", "v2/en_speaker_9")
	var got struct {
		Voices  []string
		Default string
		Aliases map[string]string
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/audio/voices?model=suno%2Fbark", "").body, &got))
	assert.Equal(t, []string{"v2/en_speaker_6", "v2/en_speaker_9"}, got.Voices)
	assert.Equal(t, "v2/en_speaker_6", got.Default)
	assert.Equal(t, "v2/en_speaker_9", got.Aliases["nova"])
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices?model=barkd/tiny", "").body), `"voices":[]`)
	assert.Equal(t, 404, s.do(t, "GET", "/v1/audio/voices?model=x", "").status)
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices", "").body), `"model":"suno/bark"`, "the default model")
}

func TestCacheRoutes(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"suno/bark", "suno%2Fbark"} {
		assert.Equal(t, 200, s.do(t, "POST", "/cache/preload/"+path, "").status)
	}
	assert.Equal(t, []string{"suno/bark", "suno/bark"}, s.cache.Stats().CachedModels)
	r := s.do(t, "POST", "/cache/clear", "")
	assert.JSONEq(t, `{"freed":["suno/bark","suno/bark"],"draining":[],"freed_bytes":0}`, string(r.body))

	assert.Equal(t, 200, s.do(t, "POST", "/cache/warmup", `["barkd/tiny","suno/bark"]`).status)
	assert.Equal(t, []string{"barkd/tiny", "suno/bark"}, s.cache.Stats().CachedModels)
	assert.Equal(t, 404, s.do(t, "POST", "/cache/warmup", `["suno/bark","suno/nope"]`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/warmup", `{"models":[]}`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/warmup", `["a"`+strings.Repeat(`,"a"`, 64)+`]`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/preload/", "").status)
}

func TestWarmupTriesAllAndReportsTheFirstFailure(t *testing.T) {
	s := newSite(t)
	s.cache.fail = map[string]error{"suno/bark": cgo.ErrOutOfMemory}
	r := s.do(t, "POST", "/cache/warmup", `["suno/bark","barkd/tiny"]`)
	assert.Equal(t, 503, r.status)
	assert.Contains(t, string(r.body), "not enough memory")
	assert.Equal(t, []string{"barkd/tiny"}, s.cache.Stats().CachedModels)
}

func TestCacheStatsHaveTheContractsKeys(t *testing.T) {
	s := newSite(t)
	var got map[string]any
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/cache/stats", "").body, &got))
	for _, key := range strings.Fields(`cached_models cache_size max_cache_size cache_memory_mb system_memory_gb memory_threshold_gb hits misses
		hit_rate evictions memory_cleanups total_loads system_memory_total_gb system_memory_percent`) {
		assert.Contains(t, got, key)
	}
	assert.Equal(t, []any{}, got["cached_models"])
}
