package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo/cache"
)

// cached lists the resident models, least recently used first.
func (s *site) cached() []string {
	out := []string{}
	for _, e := range s.pool.Snapshot().Entries {
		out = append(out, e.Key)
	}
	return out
}

// hold takes a lease on a model until the test ends or release is called.
func (s *site) hold(t *testing.T, id string) (release func()) {
	t.Helper()
	lease, err := s.pool.Acquire(t.Context(), id, cache.Ask{Holder: "the test"})
	require.NoError(t, err)
	t.Cleanup(lease.Release)
	return lease.Release
}

func get[T any](t *testing.T, r reply) T {
	t.Helper()
	var out T
	require.NoError(t, json.Unmarshal(r.body, &out), "%s", r.body)
	return out
}

func TestPreloadTakesIDsWithPlainAndEscapedSlash(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"suno/bark", "suno%2Fbark"} {
		assert.Equal(t, 200, s.do(t, "POST", "/cache/preload/"+path, "").status)
	}
	assert.Equal(t, []string{"suno/bark"}, s.cached())
	assert.Equal(t, 404, s.do(t, "POST", "/cache/preload/", "").status)
	assert.Equal(t, "model_not_found", deref(s.do(t, "POST", "/cache/preload/suno/nope", "").failure(t).Code))
}

func TestClearFreesIdleAndDrainsLeasedModels(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.do(t, "POST", "/cache/preload/suno/bark", "").status)
	release := s.hold(t, "barkd/tiny")
	r := s.do(t, "POST", "/cache/clear", "")
	assert.Equal(t, 200, r.status)
	got := get[map[string]any](t, r)
	assert.Equal(t, []any{"suno/bark"}, got["freed"])
	assert.Equal(t, []any{"barkd/tiny"}, got["draining"])
	assert.Equal(t, []any{}, got["revoked"])
	assert.Greater(t, got["freed_bytes"], 1e9)
	assert.Equal(t, []string{"barkd/tiny"}, s.cached())
	release()
	require.Eventually(t, func() bool { return len(s.cached()) == 0 }, 10*time.Second, time.Millisecond)
}

func TestForcedClearAsksForLeasesBackAndAnswers202(t *testing.T) {
	s := newSite(t)
	lease, err := s.pool.Acquire(t.Context(), "barkd/tiny", cache.Ask{})
	require.NoError(t, err)
	t.Cleanup(lease.Release)
	r := s.do(t, "POST", "/cache/clear?force", "")
	assert.Equal(t, 202, r.status)
	assert.Equal(t, []any{"barkd/tiny"}, get[map[string]any](t, r)["revoked"])
	<-lease.Revoked()
	assert.Equal(t, 400, s.do(t, "POST", "/cache/clear?force=perhaps", "").status)
}

func TestDeleteFreesOneModel(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.do(t, "POST", "/cache/warmup", `["suno/bark","barkd/tiny"]`).status)
	assert.Equal(t, 200, s.do(t, "DELETE", "/cache/models/suno%2Fbark", "").status)
	assert.Equal(t, []string{"barkd/tiny"}, s.cached())
	assert.Equal(t, 200, s.do(t, "DELETE", "/cache/models/suno/bark", "").status, "an absent model is no error")
	assert.Equal(t, 404, s.do(t, "DELETE", "/cache/models/suno/nope", "").status)
}

func TestWarmupRefusesListsThatCannotBe(t *testing.T) {
	s := newSite(t)
	assert.Equal(t, 404, s.do(t, "POST", "/cache/warmup", `["suno/bark","suno/nope"]`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/warmup", `{"models":[]}`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/warmup", `["a"`+strings.Repeat(`,"a"`, 64)+`]`).status)
	assert.Empty(t, s.cached())
	assert.Equal(t, 200, s.do(t, "POST", "/cache/warmup", `["barkd/tiny","suno/bark"]`).status)
	assert.Equal(t, []string{"barkd/tiny", "suno/bark"}, s.cached())
}

func TestWarmupTriesAllAndReportsTheFirstFailure(t *testing.T) {
	s := openSite(t, settings{faults: `{"rules":[{"model":"suno/bark","fault":"load_fails","error":"out_of_memory"}]}`})
	r := s.do(t, "POST", "/cache/warmup", `["suno/bark","barkd/tiny"]`)
	assert.Equal(t, 503, r.status)
	assert.Contains(t, string(r.body), "not enough memory")
	assert.Equal(t, []string{"barkd/tiny"}, s.cached())
}

// The keys, meanings and types that users of the predecessor rely on.
func TestCacheStatsHaveTheContractsKeysAndTypes(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.do(t, "POST", "/cache/warmup", `["suno/bark","barkd/tiny"]`).status)
	s.hold(t, "suno/bark")
	s.do(t, "POST", "/cache/preload/barkd/tiny", "")
	s.hold(t, "barkd/tiny")
	s.hold(t, "suno/bark")
	got := get[map[string]any](t, s.do(t, "GET", "/cache/stats", ""))
	assert.Equal(t, []any{"barkd/tiny", "suno/bark"}, got["cached_models"], "least recently used first")
	for key, want := range map[string]float64{"cache_size": 2, "max_cache_size": 2, "hits": 3, "misses": 0, "hit_rate": 1,
		"evictions": 0, "total_loads": 2, "memory_cleanups": 7, "memory_threshold_gb": 12, "system_memory_gb": 1,
		"system_memory_total_gb": 4, "system_memory_percent": 25} {
		assert.Equal(t, want, got[key], key)
	}
	var booked float64
	for _, e := range got["entries"].([]any) {
		booked += e.(map[string]any)["bytes"].(float64)
	}
	for _, c := range got["components"].([]any) {
		booked += c.(map[string]any)["bytes"].(float64)
	}
	assert.InDelta(t, booked/(1<<20), got["cache_memory_mb"], 1e-6)
	assert.Equal(t, true, got["mock_mode"])
}

func TestPlanNamesWhatALoadWouldEvictAndChangesNothing(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.do(t, "POST", "/cache/warmup", `["barkd/tiny","suno/bark"]`).status)
	r := s.do(t, "GET", "/cache/plan?model=suno%2Fbark-small", "")
	require.Equal(t, 200, r.status)
	plan := get[map[string]any](t, r)
	assert.Equal(t, []any{"barkd/tiny"}, plan["evicts"])
	assert.Equal(t, "suno/bark", plan["runner_up"])
	assert.Equal(t, "absent", plan["state"])
	assert.Greater(t, plan["needs_bytes"], 1e8)
	assert.Equal(t, []string{"barkd/tiny", "suno/bark"}, s.cached())
	assert.Equal(t, 400, s.do(t, "GET", "/cache/plan", "").status)
	assert.Equal(t, 404, s.do(t, "GET", "/cache/plan?model=x/y", "").status)
}

func TestPlanNamesTheLeasesInTheWay(t *testing.T) {
	s := newSite(t)
	s.hold(t, "suno/bark")
	s.hold(t, "barkd/tiny")
	plan := get[map[string]any](t, s.do(t, "GET", "/cache/plan?model=suno/bark-small", ""))
	assert.Len(t, plan["blockers"], 2)
	assert.Equal(t, "the test", plan["blockers"].([]any)[0].(map[string]any)["holder"])
	assert.Equal(t, []any{}, plan["evicts"])
}

func TestEventsTellWhyAModelWentAndWhoWouldHaveBeenNext(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"barkd/tiny", "suno/bark", "suno/bark-small"} {
		require.NoError(t, s.pool.Preload(t.Context(), id, nil))
	}
	all := get[struct{ Events []map[string]any }](t, s.do(t, "GET", "/cache/events", "")).Events
	at := slices.IndexFunc(all, func(e map[string]any) bool { return e["kind"] == "evicted" })
	require.GreaterOrEqual(t, at, 0)
	evicted := all[at]
	assert.Equal(t, "barkd/tiny", evicted["model"])
	assert.Equal(t, "capacity", evicted["reason"])
	assert.Equal(t, "suno/bark-small", evicted["for"])
	assert.Equal(t, "suno/bark", evicted["runner_up"])
	later := get[struct{ Events []map[string]any }](t, s.do(t, "GET", "/cache/events?since=3", "")).Events
	assert.Len(t, later, len(all)-3)
	assert.Equal(t, 400, s.do(t, "GET", "/cache/events?since=x", "").status)
}

// stream reads server-sent events until the test ends.
func (s *site) stream(t *testing.T, method, path string) (names <-chan string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				out <- name
			}
		}
	}()
	return out, cancel
}

func TestEventsAreStreamedAsTheyHappen(t *testing.T) {
	s := newSite(t)
	names, stop := s.stream(t, "GET", "/cache/events")
	require.NoError(t, s.pool.Preload(t.Context(), "barkd/tiny", nil))
	assert.Equal(t, "loading", <-names)
	assert.Equal(t, "loaded", <-names)
	s.pool.Clear(context.Background(), false)
	assert.Equal(t, "freed", <-names)
	stop()
}

func TestEventStreamsEndWhenTheServerLeaves(t *testing.T) {
	s := newSite(t)
	names, _ := s.stream(t, "GET", "/cache/events")
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, <-s.served)
	s.served = nil
	_, open := <-names
	assert.False(t, open)
}

func TestPreloadStreamsItsProgress(t *testing.T) {
	s := newSite(t)
	names, _ := s.stream(t, "POST", "/cache/preload/suno/bark")
	var got []string
	for name := range names {
		got = append(got, name)
	}
	require.NotEmpty(t, got)
	assert.Equal(t, "loaded", got[len(got)-1])
	for _, name := range got[:len(got)-1] {
		assert.Equal(t, "progress", name)
	}
}

func TestPreloadStreamEndsWithTheError(t *testing.T) {
	s := openSite(t, settings{faults: `{"rules":[{"model":"suno/bark","fault":"load_fails","error":"bad_model"}]}`})
	names, _ := s.stream(t, "POST", "/cache/preload/suno/bark")
	var last string
	for name := range names {
		last = name
	}
	assert.Equal(t, "error", last)
}

func TestPinsAreKeptAndTooManyAreRefused(t *testing.T) {
	s := newSite(t)
	assert.Equal(t, 200, s.do(t, "PUT", "/cache/pins/suno/bark", "").status)
	assert.JSONEq(t, `{"pins":["barkd/tiny","suno/bark"]}`, string(s.do(t, "PUT", "/cache/pins/barkd%2Ftiny", "").body))
	r := s.do(t, "PUT", "/cache/pins/suno/bark-small", "")
	assert.Equal(t, 409, r.status)
	assert.Contains(t, r.failure(t).Message, "barkd/tiny")
	assert.JSONEq(t, `{"pins":["suno/bark"]}`, string(s.do(t, "DELETE", "/cache/pins/barkd/tiny", "").body))
	assert.Equal(t, 404, s.do(t, "DELETE", "/cache/pins/barkd/tiny", "").status)
	assert.Equal(t, 404, s.do(t, "PUT", "/cache/pins/no/such", "").status)
}

func TestRefusalsSayWhatIsInTheWayAndWhenToComeBack(t *testing.T) {
	s := openSite(t, settings{budget: 1 << 20})
	failure := s.do(t, "POST", "/cache/preload/suno/bark", "").failure(t)
	assert.Equal(t, "model_too_large", deref(failure.Code))
	assert.Contains(t, failure.Message, "1048576")

	s = newSite(t)
	s.pool.Hold(0, "under test", 30*time.Second)
	r := s.do(t, "POST", "/cache/preload/suno/bark", "")
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "insufficient_memory", deref(r.failure(t).Code))
	assert.Contains(t, r.failure(t).Message, "under test")
	assert.NotEmpty(t, r.header.Get("Retry-After"))
}

func TestAFailedLoadCoolsDownWithAGrowingRetryAfter(t *testing.T) {
	s := openSite(t, settings{faults: `{"rules":[{"model":"suno/bark","fault":"load_fails","error":"bad_model"}]}`})
	first := s.do(t, "POST", "/cache/preload/suno/bark", "")
	assert.GreaterOrEqual(t, first.status, 500)
	r := s.do(t, "POST", "/cache/preload/suno/bark", "")
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "model_cooling_down", deref(r.failure(t).Code))
	assert.Equal(t, "10", r.header.Get("Retry-After"))
	stats := get[map[string]any](t, s.do(t, "GET", "/cache/stats", ""))
	assert.Len(t, stats["failed"], 1)
}
