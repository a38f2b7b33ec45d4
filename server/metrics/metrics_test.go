package metrics_test

import (
	"context"
	"io"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
	"barkd/cgo/mock"
	"barkd/server/metrics"
	"barkd/server/speech"
)

// scrape returns the samples by their name and labels.
func scrape(t *testing.T, m *metrics.Metrics) map[string]string {
	t.Helper()
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	out := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			out[name] = value
		}
	}
	return out
}

func TestMetricsTellWhatTheCacheDoes(t *testing.T) {
	m := metrics.New()
	pool, err := cgo.NewPool(mock.New(mock.Options{}), mock.Resolve, cgo.PoolOptions{MaxModels: 1, Budgets: []int64{1 << 40},
		Asked: m.Asked, Decided: m.Decided})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close(context.Background())) })
	m.Watch(metrics.Watched{Cache: pool, Audio: speech.NewAudioCache(1), Load: func() (int, int) { return 2, 5 }, Slots: func() int { return 8 },
		Level: func(int) memwatch.Level { return memwatch.LevelHigh }})
	for _, id := range []string{"barkd/tiny", "barkd/tiny", "suno/bark"} {
		lease, err := pool.Acquire(t.Context(), id, cache.Ask{})
		require.NoError(t, err)
		lease.Release()
	}
	lease, err := pool.Acquire(t.Context(), "suno/bark", cache.Ask{})
	require.NoError(t, err)
	defer lease.Release()
	m.Cancelled("coarse")
	m.Spoke(0.5)
	m.Relieved(cgo.Relief{Shortage: cgo.Shortage{Level: memwatch.LevelHigh}, Steps: []cgo.ReliefStep{{Name: "trim", Freed: 7}}})
	got := scrape(t, m)
	for name, want := range map[string]string{
		`bark_cache_requests_total{model="barkd/tiny",outcome="miss"}`:     "1",
		`bark_cache_requests_total{model="barkd/tiny",outcome="hit"}`:      "1",
		`bark_cache_evictions_total{model="barkd/tiny",reason="capacity"}`: "1",
		`bark_cache_age_at_eviction_seconds_count`:                         "1",
		`bark_cache_load_seconds_count{model="suno/bark",phase="read"}`:    "1",
		`bark_cache_leases{model="suno/bark"}`:                             "1",
		`bark_cache_waiters{model="suno/bark"}`:                            "0",
		`bark_cache_budget_bytes{pool="cpu"}`:                              "1.099511627776e+12",
		`bark_cache_reserved_bytes{pool="cpu"}`:                            "0",
		`bark_cache_unreturned_bytes{pool="cpu"}`:                          "0",
		`bark_pressure_level{pool="cpu"}`:                                  "1",
		`bark_audio_cache_bytes`:                                           "0",
		`bark_audio_cache_requests_total{outcome="hit"}`:                   "0",
		`bark_requests_running`:                                            "2",
		`bark_requests_waiting`:                                            "5",
		`bark_utilization`:                                                 "0.25",
		`bark_cancelled_total{stage="coarse"}`:                             "1",
		`bark_real_time_factor_sum`:                                        "0.5",
		`bark_pressure_freed_bytes_total{reaction="trim"}`:                 "7",
		`bark_memory_cleanups_total`:                                       "1",
	} {
		assert.Equal(t, want, got[name], name)
	}
	assert.NotEqual(t, "", got[`bark_cache_booked_bytes{pool="cpu"}`])
}

func TestResidencyIsInTheFormOfTheEndpointPicker(t *testing.T) {
	m := metrics.New()
	pool, err := cgo.NewPool(mock.New(mock.Options{}), mock.Resolve, cgo.PoolOptions{MaxModels: 3})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close(context.Background())) })
	m.Watch(metrics.Watched{Cache: pool, Audio: speech.NewAudioCache(1), Load: func() (int, int) { return 0, 0 }, Slots: func() int { return 1 }, Level: func(int) memwatch.Level { return 0 }})
	require.NoError(t, pool.Preload(t.Context(), "suno/bark", nil))
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	got := scrape(t, m)
	value, ok := got[`bark_cache_residency_info{max_lora="3",running_lora_adapters="barkd/tiny,suno/bark",waiting_lora_adapters=""}`]
	require.True(t, ok, "%v", got)
	at, err := strconv.ParseFloat(value, 64)
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), time.Unix(int64(at), 0), time.Minute, "the newest series is the true one")
}
