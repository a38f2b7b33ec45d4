package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// configured writes a configuration file and returns its path.
func configured(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "barkd.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	file := configured(t, "# settings\nport: 1\nmax_queued_requests: 7\nlog_level: warn\nwarmup_models: [suno/bark, barkd/tiny]\nadmin_key: sesame\n")
	env := map[string]string{"BARKD_CONFIG": file, "MAX_QUEUED_REQUESTS": "8", "LOG_LEVEL": "error", "BARKD_BACKEND": "mock"}
	got := barkd(t, env, "", "serve", "--print-config", "--log-level", "debug")
	require.Zero(t, got.code, got.err)
	for _, line := range []string{
		"port: 1 # barkd.yaml:2\n", "max_queued_requests: 8 # environment\n", "log_level: debug # --log-level\n",
		"warmup_models: suno/bark,barkd/tiny # barkd.yaml:5\n", "admin_key: (hidden) # barkd.yaml:6\n", "max_cached_models: 3 # default\n",
	} {
		assert.Contains(t, got.out, line)
	}
	assert.NotContains(t, got.out, "sesame")
	flag := barkd(t, map[string]string{"BARKD_CONFIG": "/none.yaml"}, "", "serve", "--print-config", "--config", file)
	assert.Contains(t, flag.out, "port: 1 # barkd.yaml:2\n", "--config beats its variable")
}

func TestPrintedSettingsAreAConfigurationFile(t *testing.T) {
	env := map[string]string{"BARKD_BACKEND": "mock", "PORT": "0", "KEEP_ALIVE": "5m", "HOST": "::1", "CACHE_BUDGET": "cpu=8GB", "BARKD_MODELS": "/models", "MOCK_FAULTS": `{"rules": []}`}
	first := barkd(t, env, "", "serve", "--print-config")
	require.Zero(t, first.code, first.err)
	second := barkd(t, map[string]string{"BARKD_MODELS": "", "CACHE_STATE": "", "VOICES_DIR": ""}, "", "serve", "--print-config", "--config", configured(t, first.out))
	require.Zero(t, second.code, second.err)
	values := func(text string) (out []string) {
		for line := range strings.Lines(text) {
			value, _, _ := strings.Cut(line, " # ")
			out = append(out, value)
		}
		return out
	}
	assert.Equal(t, values(first.out), values(second.out))
	env["API_KEYS"] = "sesame"
	hidden := barkd(t, env, "", "serve", "--print-config")
	again := barkd(t, nil, "", "serve", "--config", configured(t, hidden.out))
	assert.Equal(t, exitUsage, again.code, "a hidden key is no key")
	assert.Contains(t, again.err, "--print-config shows instead")
}

func TestEveryMistakeOfTheFileIsNamedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"prot: 1":                   `barkd.yaml:1: there is no setting "prot"; did you mean "port"?`,
		"\nPORT: 1":                 `barkd.yaml:2: there is no setting "PORT"; did you mean "port"?`,
		"barkd_config: x":           "there is no setting",
		"port:":                     "port has no value",
		"port: 1\nport: 2":          "barkd.yaml:2: port is set at barkd.yaml:1 already",
		"host: {a: b}":              "barkd.yaml:1: host must be",
		"- port":                    "must be a mapping",
		"port: 1\n---\nport: 2":     "one YAML document",
		"port: [":                   "barkd.yaml: yaml:",
		"port: here":                `PORT="here" must be`,
		"api_keys: [{kye: sesame}]": `did you mean "key"?`,
		"api_keys: [{key: sesame, concurrent: many}]": "entry 1",
	} {
		got := barkd(t, map[string]string{"BARKD_BACKEND": "mock", "LOG_FORMAT": "xml"}, "", "serve", "--config", configured(t, text))
		assert.Equal(t, exitUsage, got.code, text)
		assert.Contains(t, got.err, want)
		assert.Contains(t, got.err, "LOG_FORMAT", "all at once")
		assert.NotContains(t, got.err, "sesame")
		assert.Equal(t, 1, strings.Count(got.err, "\n"))
	}
	got := barkd(t, nil, "", "serve", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.err, "none.yaml")
	assert.Zero(t, barkd(t, map[string]string{"BARKD_CONFIG": "/none.yaml"}, "", "version").code, "only serve reads it")
}

// hup sends SIGHUP to the process and waits until the server has said more lines with the message.
func (s server) hup(t *testing.T, message string) {
	t.Helper()
	before := strings.Count(s.log.String(), message)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.Eventually(t, func() bool { return strings.Count(s.log.String(), message) > before }, 10*time.Second, time.Millisecond)
}

func (s server) speakWith(t *testing.T, key, text string) *http.Response {
	t.Helper()
	req, err := http.NewRequest("POST", s.url+"/v1/audio/speech", strings.NewReader(`{"model":"barkd/tiny","input":"`+text+`"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("x-api-key", key)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}

func TestSIGHUPChangesWhatCanChange(t *testing.T) {
	file := configured(t, "api_keys: [one]\nmax_cached_models: 2\nmemory_threshold_gb: 1000\n")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	s := startServer(t, map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "CACHE_WARMUP_ENABLED": "false", "ADMIN_KEY": "root",
		"BARKD_CONFIG": file})
	assert.Equal(t, 200, s.speakWith(t, "one", "Hello.").StatusCode)
	assert.Equal(t, 401, s.speakWith(t, "two", "Hello.").StatusCode)

	write("api_keys: [two]\nmax_input_chars: 8\nmax_cached_models: 1\nmemory_threshold_gb: 500\nrate_limit_requests: 9\nlog_level: error\n" +
		"max_concurrent_requests: 3\nkeep_alive: 1h\ncache_budget: 6GB\n")
	s.hup(t, "settings reloaded")
	assert.Equal(t, 401, s.speakWith(t, "one", "Hello.").StatusCode)
	resp := s.speakWith(t, "two", "Hello.")
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, "9", resp.Header.Get("x-ratelimit-limit-requests"))
	assert.Equal(t, 400, s.speakWith(t, "two", "Too long now.").StatusCode)
	stats := s.statsWith(t, "root")
	assert.EqualValues(t, 1, stats["max_cache_size"])
	assert.EqualValues(t, 500, stats["memory_threshold_gb"])
	assert.EqualValues(t, 6e9, stats["pools"].([]any)[0].(map[string]any)["budget_bytes"])
	assert.InDelta(t, 3600, stats["entries"].([]any)[0].(map[string]any)["expires_s"], 60)
	log := s.log.String()
	assert.Contains(t, log, `MAX_CACHED_MODELS: 2 → 1`)
	assert.Contains(t, log, `"API_KEYS"`)
	assert.NotContains(t, log, "two")
	assert.Equal(t, 1, strings.Count(log, `"status":401`), "from then on only errors are logged")
}

func TestBadFileChangesNothing(t *testing.T) {
	file := configured(t, "api_keys: [one]\n")
	s := startServer(t, quick(map[string]string{"BARKD_CONFIG": file}))
	for _, bad := range []string{"api_keys: [two]\nmax_cached_models: 0\n", "api_keys: [two]\ncache_budget: tpu:0=1GB\n", "api_keys: [", "api_kesy: []"} {
		require.NoError(t, os.WriteFile(file, []byte(bad), 0o600))
		s.hup(t, "settings not reloaded")
		assert.Equal(t, 200, s.speakWith(t, "one", "Hello.").StatusCode, bad)
	}
	require.NoError(t, os.Remove(file))
	s.hup(t, "settings not reloaded")
	assert.Equal(t, 200, s.speakWith(t, "one", "Hello.").StatusCode)
	assert.Contains(t, s.log.String(), `did you mean \"api_keys\"?`)

	require.NoError(t, os.WriteFile(file, []byte("api_keys: [two]\nport: 81\n"), 0o600))
	s.hup(t, "settings reloaded")
	assert.NotContains(t, s.log.String(), "at_restart", "the flag goes before the file")
	require.NoError(t, os.WriteFile(file, []byte("api_keys: [two]\nmax_body_bytes: 2048\n"), 0o600))
	s.hup(t, "settings reloaded")
	assert.Contains(t, s.log.String(), `"at_restart":["MAX_BODY_BYTES: 1048576 → 2048"]`)
	assert.Equal(t, 200, s.speakWith(t, "two", "Hello.").StatusCode)
}
