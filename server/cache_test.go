package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo/memwatch"
)

// The predecessor's defects (a Python server of the same settings and routes) that are not the cache's own, and the
// tests that show that this server does not have them. cgo/cache/defects_test.go has the others.
//
//	5   pressure is the host's memory in use, once a minute   cgo/memwatch, TestMemoryAboveTheThresholdGivesIdleModelsBack
//	7   preload cannot match suno/bark                        api: TestPreloadTakesIDsWithPlainAndEscapedSlash
//	8   a stream has no Bark                                  /synthesize/stream is not served; a 404 says so
//	9   errors are 200 with success:false                     api: TestRuntimeErrorsHaveTrueStatusCodes
//	11  a size switch in the environment sticks               TestModelsOfBothSizesAreServedSideBySide
//	12  speed, pitch, language are ignored                    api: TestWrongSpeechRequestsAreNamed
//	14  an upload's name is a path                            models: TestIDsThatCouldLeaveTheStoreAreRefused
//	15  readiness does not wait, warm-up failures are lost    api: TestReadinessWaitsForTheWarmup, TestReadinessShowsWhatTheWarmupMissed
//	16  a missing module breaks the start                     TestServerGoesOnWithoutAMemorySource
//	17  the mock is another cache                             one type: every test here runs on the mock
//	18  no drain on SIGTERM                                   TestServeSpeaksCachesAndShutsDownInOrder
//	19  cues are put into the text                            speech: TestTextThatFitsIsOnePieceUnaltered

// quick is a simulated server that takes no time and warms up nothing.
func quick(more map[string]string) map[string]string {
	env := map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "CACHE_WARMUP_ENABLED": "false",
		"MEMORY_THRESHOLD_GB": "0"} // what else uses this machine is no matter
	for name, value := range more {
		env[name] = value
	}
	return env
}

func (s server) stats(t *testing.T) map[string]any { return s.statsWith(t, "") }

func (s server) statsWith(t *testing.T, key string) map[string]any {
	t.Helper()
	req, err := http.NewRequest("GET", s.url+"/cache/stats", nil)
	require.NoError(t, err)
	req.Header.Set("x-api-key", key)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var out map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
	return out
}

func (s server) speak(t *testing.T, model, more string) {
	t.Helper()
	resp, body := s.post(t, "/v1/audio/speech", `{"model":"`+model+`","input":"Hello."`+more+`}`)
	require.Equal(t, 200, resp.StatusCode, "%s", body)
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	got := barkd(t, nil, "", "serve", "--help")
	assert.Zero(t, got.code)
	for name, value := range map[string]string{"MAX_CACHED_MODELS": "3", "MEMORY_THRESHOLD_GB": "12.0", "CACHE_WARMUP_ENABLED": "true",
		"GC_INTERVAL_SECONDS": "300", "MEMORY_CHECK_INTERVAL": "60", "KEEP_ALIVE": "-1", "KV_TYPE": "f16"} {
		flag := "--" + strings.ReplaceAll(strings.ToLower(name), "_", "-") + "=" + value
		assert.Contains(t, got.out, flag)
		assert.Contains(t, got.out, "$"+name)
	}
	cfg, err := (&serveCommand{}).withDefaults(t)
	require.NoError(t, err)
	assert.Equal(t, []string{"suno/bark-small", "suno/bark"}, cfg.cache.warmup)
}

// withDefaults reads the command's settings as the command line would, with none given that matters.
func (c *serveCommand) withDefaults(t *testing.T) (serverConfig, error) {
	t.Helper()
	var cli commandLine
	parser, err := kong.New(&cli)
	require.NoError(t, err)
	_, err = parser.Parse([]string{"serve", "--backend", "mock", "--port", "0", "--voices-dir", "off"})
	require.NoError(t, err)
	*c = cli.Serve
	return c.config()
}

func TestBadCacheSettingsAreNamedAllAtOnce(t *testing.T) {
	got := barkd(t, map[string]string{"MAX_CACHED_MODELS": "none", "MEMORY_THRESHOLD_GB": "-1", "CACHE_WARMUP_ENABLED": "perhaps",
		"GC_INTERVAL_SECONDS": "0", "MEMORY_CHECK_INTERVAL": "1.5", "KEEP_ALIVE": "soon", "KV_TYPE": "i4", "CACHE_BUDGET": "cpu=lots",
		"MAX_VOICES": "-1", "VOICES_BUDGET": "huge", "READY_TIMEOUT_SECONDS": "-1", "MODEL_WAIT_SECONDS": "0", "LOAD_TIMEOUT_SECONDS": "x", "ADMIN_ADDR": "nowhere", "AGENT_ADDR": "8002"}, "", "serve")
	assert.Equal(t, exitUsage, got.code)
	for _, name := range []string{"MAX_CACHED_MODELS", "MEMORY_THRESHOLD_GB", "CACHE_WARMUP_ENABLED", "GC_INTERVAL_SECONDS",
		"MEMORY_CHECK_INTERVAL", "KEEP_ALIVE", "KV_TYPE", "CACHE_BUDGET", "READY_TIMEOUT_SECONDS", "MODEL_WAIT_SECONDS", "LOAD_TIMEOUT_SECONDS", "ADMIN_ADDR", "AGENT_ADDR", "MAX_VOICES", "VOICES_BUDGET"} {
		assert.Contains(t, got.err, name)
	}
}

func TestPinsThatCannotBeAreRefusedAtTheStart(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"too many":       {"PINNED_MODELS": "barkd/tiny,suno/bark", "MAX_CACHED_MODELS": "1"},
		"too large":      {"PINNED_MODELS": "barkd/tiny,suno/bark", "CACHE_BUDGET": "1GB"},
		"unknown device": {"CACHE_BUDGET": "tpu:0=1GB"},
	} {
		t.Run(name, func(t *testing.T) {
			got := barkd(t, quick(env), "", "serve", "--host", "127.0.0.1", "--port", "0")
			assert.Equal(t, exitUsage, got.code, got.err)
		})
	}
}

func TestPinnedModelsAreLoadedFirstAndStay(t *testing.T) {
	s := startServer(t, quick(map[string]string{"CACHE_WARMUP_ENABLED": "true", "WARMUP_MODELS": "", "PINNED_MODELS": "barkd/tiny, no/such",
		"MAX_CACHED_MODELS": "2"}))
	s.post(t, "/cache/preload/barkd/tiny", "")
	for _, model := range []string{"suno/bark", "suno/bark-small", "mock/bark-xl"} {
		s.speak(t, model, "")
	}
	stats := s.stats(t)
	assert.Equal(t, []any{"barkd/tiny", "mock/bark-xl"}, stats["cached_models"])
	assert.Equal(t, []any{"barkd/tiny"}, stats["pins"])
	assert.Contains(t, s.log.String(), "barkd pull no/such")
}

func TestKeepAliveOfTheServerAndOfOneRequest(t *testing.T) {
	s := startServer(t, quick(map[string]string{"KEEP_ALIVE": "0"}))
	s.speak(t, "barkd/tiny", "")
	s.speak(t, "suno/bark", `,"keep_alive":"1h"`)
	require.Eventually(t, func() bool { return len(s.stats(t)["entries"].([]any)) == 1 }, 10*time.Second, time.Millisecond)
	stats := s.stats(t)
	assert.Equal(t, []any{"suno/bark"}, stats["cached_models"])
	assert.EqualValues(t, 1, stats["evictions_by_reason"].(map[string]any)["ttl"])
	expires := stats["entries"].([]any)[0].(map[string]any)["expires_s"].(float64)
	assert.InDelta(t, 3600, expires, 60)
}

func TestMemoryAboveTheThresholdGivesIdleModelsBack(t *testing.T) {
	s := startServer(t, quick(map[string]string{"MEMORY_THRESHOLD_GB": "0.001", "MEMORY_CHECK_INTERVAL": "1"}))
	s.speak(t, "suno/bark", "")
	require.Eventually(t, func() bool { return len(s.stats(t)["entries"].([]any)) == 0 }, 20*time.Second, 10*time.Millisecond)
	stats := s.stats(t)
	assert.Positive(t, stats["memory_cleanups"])
	assert.EqualValues(t, 1, stats["evictions_by_reason"].(map[string]any)["pressure"])
	assert.Equal(t, "high", stats["pools"].([]any)[0].(map[string]any)["pressure"])
	s.speak(t, "barkd/tiny", "") // the threshold gives back; it does not refuse
	s.stop()
	assert.Contains(t, s.log.String(), "memory pressure")
}

func TestServerGoesOnWithoutAMemorySource(t *testing.T) {
	s := startServer(t, quick(nil))
	s.speak(t, "barkd/tiny", "")
	m := newMachine(nil, nil, cacheConfig{}, nil, newLog(s.log, from(0), "json"))
	m.host = nowhere(t)
	for range 3 {
		used, total := m.Memory()
		assert.Zero(t, used+total)
	}
	assert.Equal(t, 1, strings.Count(s.log.String(), "cannot be read"), "said once")
}

func TestModelsOfBothSizesAreServedSideBySide(t *testing.T) {
	s := startServer(t, quick(nil))
	for _, model := range []string{"suno/bark-small", "suno/bark", "suno/bark-small"} {
		s.speak(t, model, "")
	}
	entries := s.stats(t)["entries"].([]any)
	require.Len(t, entries, 2)
	assert.NotEqual(t, entries[0].(map[string]any)["bytes"], entries[1].(map[string]any)["bytes"])
	assert.Empty(t, os.Getenv("SUNO_USE_SMALL_MODELS"))
}

func TestWarmupLearnsFromTheLastRun(t *testing.T) {
	state := filepath.Join(t.TempDir(), "kept", "demand.json")
	first := startServer(t, quick(map[string]string{"CACHE_STATE": state}))
	for _, model := range []string{"suno/bark", "barkd/tiny", "barkd/tiny"} {
		first.speak(t, model, "")
	}
	require.Zero(t, first.stop())
	second := startServer(t, quick(map[string]string{"CACHE_STATE": state, "CACHE_WARMUP_ENABLED": "true", "WARMUP_MODELS": "auto", "MAX_CACHED_MODELS": "1"}))
	require.Eventually(t, func() bool { return len(second.stats(t)["cached_models"].([]any)) == 1 }, 10*time.Second, time.Millisecond)
	assert.Equal(t, []any{"barkd/tiny"}, second.stats(t)["cached_models"])

	require.NoError(t, os.WriteFile(state, []byte("{damaged"), 0o600))
	third := startServer(t, quick(map[string]string{"CACHE_STATE": state, "CACHE_WARMUP_ENABLED": "true", "WARMUP_MODELS": "auto"}))
	third.speak(t, "barkd/tiny", "")
	assert.Contains(t, third.log.String(), "begins anew")
}

func TestAdminRoutesCanHaveAnAddressAndAKeyOfTheirOwn(t *testing.T) {
	s := startServer(t, quick(map[string]string{"ADMIN_ADDR": "127.0.0.1:0", "ADMIN_KEY": "sesame"}))
	resp, err := http.Get(s.url + "/cache/stats")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 404, resp.StatusCode)
	var line struct{ Admin string }
	for text := range strings.Lines(s.log.String()) {
		if strings.Contains(text, `"serving"`) {
			require.NoError(t, json.Unmarshal([]byte(text), &line))
		}
	}
	ask := func(key string) int {
		req, err := http.NewRequest("GET", "http://"+line.Admin+"/cache/stats", nil)
		require.NoError(t, err)
		req.Header.Set("x-api-key", key)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	assert.Equal(t, 401, ask("open"))
	assert.Equal(t, 200, ask("sesame"))
}

func TestATraceIsRecordedAndReplayedAgainstOtherLimits(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace.jsonl")
	s := startServer(t, quick(map[string]string{"CACHE_TRACE": trace, "MAX_CACHED_MODELS": "1"}))
	for _, model := range []string{"suno/bark", "barkd/tiny", "suno/bark", "barkd/tiny"} {
		s.speak(t, model, "")
	}
	require.Zero(t, s.stop())
	got := barkd(t, nil, "", "cache", "replay", trace, "--models", "1,2", "--budget", "100GB,1MB")
	require.Zero(t, got.code, got.err)
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	require.Len(t, lines, 5)
	assert.Equal(t, []string{"1", "100", "GB", "4", "0.000", "4", "3"}, strings.Fields(lines[1])[:7])
	assert.Equal(t, []string{"2", "100", "GB", "4", "0.500", "2", "0"}, strings.Fields(lines[3])[:7])
	assert.Equal(t, "4", strings.Fields(lines[2])[11], "refused: nothing fits a megabyte")

	require.NoError(t, os.WriteFile(trace, []byte("{\n"), 0o600))
	for _, args := range [][]string{{trace}, {trace + ".none"}, {trace, "--budget", "much"}, {trace, "--models", "-1"}} {
		got := barkd(t, nil, "", append([]string{"cache", "replay"}, args...)...)
		assert.NotZero(t, got.code)
		assert.Equal(t, 1, strings.Count(got.err, "\n"), got.err)
	}
}

// nowhere is a source of memory on a machine that has nothing to read.
func nowhere(t *testing.T) *memwatch.Source {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "proc", "meminfo"), 0o755)) // a folder is no file
	return memwatch.NewAt(dir)
}

func TestALoadThatHangsHoldsUpNoShutdown(t *testing.T) {
	s := startServer(t, quick(map[string]string{"CACHE_WARMUP_ENABLED": "true", "WARMUP_MODELS": "barkd/tiny",
		"MOCK_FAULTS": `{"rules":[{"fault":"load_hangs"}]}`}))
	require.Eventually(t, func() bool {
		entries := s.stats(t)["entries"].([]any)
		return len(entries) == 1 && entries[0].(map[string]any)["state"] == "loading"
	}, 10*time.Second, time.Millisecond)
	began := time.Now()
	assert.Zero(t, s.stop())
	assert.Less(t, time.Since(began), closePatience)
}
