package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/mock"
	"barkd/server/api"
	"barkd/server/speech"
)

// serverConfig is what `barkd serve` is asked to be, checked.
type serverConfig struct {
	runtime   runtimeConfig
	address   string
	admission speech.Limits
	cache     cacheConfig
	voices    voiceConfig
	jobs      jobConfig
	rules     api.Rules
	maxBody   int      // bytes of JSON
	origins   []string // whose pages may use the server
	tls       tlsFiles
	admin     string        // address of /cache/* when it has its own; "" for none
	agent     string        // address of the port for HAProxy; "" for none
	drain     time.Duration // between the announcement of a shutdown and its beginning
	grace     time.Duration
	logLevel  zerolog.Level
	logFormat string
}

// cacheConfig says how models are kept.
type cacheConfig struct {
	maxModels     int
	audioBytes    int64            // of finished speech
	budgets       map[string]int64 // by device id; devices that are missing get the default
	devices       []string         // where models may be; none is all
	modelDevices  map[string][]string
	keepAlive     time.Duration
	kv            cgo.KVType // of the sessions
	maxWait       time.Duration
	loadTimeout   time.Duration
	pins          []string
	warmup        []string
	learn         bool // the warm-up is what the access pattern proposes
	readyPatience time.Duration
	thresholdGB   float64
	checkEvery    time.Duration // of memory, where no event tells
	tidyEvery     time.Duration
	trace, state  string // files; "" for none
}

// runtimeConfig says what runs models, checked.
type runtimeConfig struct {
	mock      bool
	timeScale float64
	faults    *mock.Faults // of the simulated runtime; nil for none
	gpus      []int64      // likewise: bytes of each
	threads   int
	models    string // "" for the default folder
}

// settings reads the values of flags and variables and collects what is wrong with them, so that all of it can be
// said at once.
type settings struct{ problems []string }

func (s *settings) bad(name, value, want string) {
	s.problems = append(s.problems, fmt.Sprintf("%s=%q must be %s", name, value, want))
}

func (s *settings) integer(name, value string, low, high int) int {
	n, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil || n < low || n > high {
		want := fmt.Sprintf("an integer from %d to %d", low, high)
		if high == math.MaxInt32 {
			want = fmt.Sprintf("an integer of at least %d", low)
		}
		s.bad(name, value, want)
	}
	return n
}

func (s *settings) number(name, value string, low float64) float64 {
	x, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || x < low {
		s.bad(name, value, fmt.Sprintf("a number of at least %g", low))
	}
	return x
}

func (s *settings) boolean(name, value string) bool {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "true", "1", "yes", "on":
		return true
	case "false", "0", "no", "off":
		return false
	}
	s.bad(name, value, "true or false")
	return false
}

func (s *settings) oneOf(name, value string, allowed ...string) string {
	for _, a := range allowed {
		if strings.EqualFold(strings.TrimSpace(value), a) {
			return a
		}
	}
	s.bad(name, value, "one of "+strings.Join(allowed, ", "))
	return allowed[0]
}

// faults reads a fault plan: JSON, or @ and the name of a file of it.
func (s *settings) faults(name, value string) *mock.Faults {
	text := []byte(strings.TrimSpace(value))
	if len(text) == 0 {
		return nil
	}
	var err error
	if file, ok := strings.CutPrefix(string(text), "@"); ok {
		if text, err = os.ReadFile(file); err != nil {
			s.problems = append(s.problems, fmt.Sprintf("%s: %v", name, err))
			return nil
		}
	}
	plan, err := mock.ParseFaults(text)
	if err != nil {
		s.problems = append(s.problems, fmt.Sprintf("%s: %v", name, err))
	}
	return plan
}

// err names every bad setting.
func (s *settings) err() error {
	if len(s.problems) == 0 {
		return nil
	}
	return &usageError{errors.New("bad settings: " + strings.Join(s.problems, "; "))}
}

func (f runtimeFlags) read(s *settings) runtimeConfig {
	return runtimeConfig{
		mock:      s.oneOf("BARKD_BACKEND", f.Backend, "native", "mock") == "mock",
		timeScale: s.number("MOCK_TIME_SCALE", f.MockTimeScale, 0),
		faults:    s.faults("MOCK_FAULTS", f.MockFaults),
		gpus:      s.sizes("MOCK_GPUS", f.MockGPUs),
		threads:   s.integer("BARKD_THREADS", f.Threads, 0, 4096),
		models:    f.Models,
	}
}

// config checks the command's settings; the error names every bad one, after the problems that are known already.
func (c *serveCommand) config(known ...string) (serverConfig, error) {
	s := settings{problems: known}
	port := s.integer("PORT", c.Port, 0, 65535)
	cfg := serverConfig{
		runtime: c.runtimeFlags.read(&s),
		address: net.JoinHostPort(strings.Trim(c.Host, "[]"), strconv.Itoa(port)),
		admission: speech.Limits{
			Running:  s.integer("MAX_CONCURRENT_REQUESTS", c.MaxConcurrentRequests, 1, math.MaxInt32),
			Queued:   s.integer("MAX_QUEUED_REQUESTS", c.MaxQueuedRequests, 0, math.MaxInt32),
			PerModel: s.integer("MAX_QUEUED_PER_MODEL", c.MaxQueuedPerModel, 0, math.MaxInt32),
		},
		cache:     c.cacheFlags.read(&s),
		voices:    c.voiceFlags.read(&s),
		jobs:      c.jobFlags.read(&s),
		admin:     s.address("ADMIN_ADDR", c.AdminAddr),
		agent:     s.address("AGENT_ADDR", c.AgentAddr),
		drain:     s.seconds("DRAIN_SECONDS", c.DrainSeconds, 0),
		grace:     time.Duration(s.integer("SHUTDOWN_GRACE_SECONDS", c.ShutdownGraceSeconds, 0, 86400)) * time.Second,
		logFormat: s.oneOf("LOG_FORMAT", c.LogFormat, "auto", "json", "console"),
	}
	cfg.rules = c.rules(&s)
	cfg.tls = s.tls(c.TLSCert, c.TLSKey)
	cfg.origins = s.origins("CORS_ORIGINS", c.CORSOrigins)
	cfg.maxBody = s.integer("MAX_BODY_BYTES", c.MaxBodyBytes, 1<<10, 1<<30)
	cfg.rules.QueueLimit = cfg.admission.Queued
	level := s.oneOf("LOG_LEVEL", c.LogLevel, "info", "debug", "warn", "error")
	var err error
	if cfg.logLevel, err = zerolog.ParseLevel(level); err != nil {
		return cfg, err
	}
	return cfg, s.err()
}

func (c *serveCommand) rules(s *settings) api.Rules {
	rules := api.Rules{Open: api.Allowance{
		RequestsPerMinute:   s.integer("RATE_LIMIT_REQUESTS", c.RateLimitRequests, 0, math.MaxInt32),
		CharactersPerMinute: s.integer("RATE_LIMIT_CHARACTERS", c.RateLimitCharacters, 0, math.MaxInt32),
		Concurrent:          s.integer("RATE_LIMIT_CONCURRENT", c.RateLimitConcurrent, 0, math.MaxInt32),
	}}
	rules.Timeout = s.seconds("REQUEST_TIMEOUT_SECONDS", c.RequestTimeoutSeconds, 0)
	rules.MaxInputChars = s.integer("MAX_INPUT_CHARS", c.MaxInputChars, 1, math.MaxInt32)
	rules.Keys = s.keys("API_KEYS", c.APIKeys, rules.Open)
	if c.AdminKey == hidden {
		s.problems = append(s.problems, "ADMIN_KEY is what --print-config shows instead of it")
	}
	if c.AdminKey != "" {
		digest := api.DigestOf(c.AdminKey)
		rules.Admin = &digest
	}
	return rules
}

func (f cacheFlags) read(s *settings) cacheConfig {
	cfg := cacheConfig{
		maxModels:     s.integer("MAX_CACHED_MODELS", f.MaxCachedModels, 1, math.MaxInt32),
		budgets:       s.budgets("CACHE_BUDGET", f.CacheBudget),
		devices:       s.devices("DEVICES", f.Devices),
		modelDevices:  s.modelDevices("MODEL_DEVICES", f.ModelDevices),
		audioBytes:    s.bytes("AUDIO_CACHE_BYTES", f.AudioCacheBytes),
		keepAlive:     s.keepAlive("KEEP_ALIVE", f.KeepAlive),
		kv:            cgo.KVTypes[s.oneOf("KV_TYPE", f.KVType, "f16", "i8", "f32")],
		maxWait:       s.seconds("MODEL_WAIT_SECONDS", f.ModelWaitSeconds, 1),
		loadTimeout:   s.seconds("LOAD_TIMEOUT_SECONDS", f.LoadTimeoutSeconds, 1),
		pins:          splitList(f.PinnedModels),
		readyPatience: s.seconds("READY_TIMEOUT_SECONDS", f.ReadyTimeoutSeconds, 0),
		thresholdGB:   s.number("MEMORY_THRESHOLD_GB", f.MemoryThresholdGB, 0),
		checkEvery:    s.seconds("MEMORY_CHECK_INTERVAL", f.MemoryCheckInterval, 1),
		tidyEvery:     s.seconds("GC_INTERVAL_SECONDS", f.GCIntervalSeconds, 1),
		trace:         f.CacheTrace,
		state:         stateFile(f.CacheState),
	}
	if s.boolean("CACHE_WARMUP_ENABLED", f.CacheWarmupEnabled) {
		cfg.learn = strings.EqualFold(strings.TrimSpace(f.WarmupModels), "auto")
		if !cfg.learn {
			cfg.warmup = splitList(f.WarmupModels)
		}
	}
	if len(cfg.pins) > cfg.maxModels {
		s.problems = append(s.problems, fmt.Sprintf("PINNED_MODELS=%q has %d models but MAX_CACHED_MODELS is %d",
			f.PinnedModels, len(cfg.pins), cfg.maxModels))
	}
	return cfg
}

// stateFile is where the access pattern is kept: as given, "off" for nowhere, or in the user's cache folder.
func stateFile(given string) string {
	switch {
	case strings.EqualFold(given, "off"):
		return ""
	case given != "":
		return given
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "" // a process without a home keeps nothing
	}
	return filepath.Join(dir, "barkd", "demand.json")
}

func (s *settings) seconds(name, value string, low int) time.Duration {
	return time.Duration(s.integer(name, value, low, 1<<30)) * time.Second
}

func (s *settings) keepAlive(name, value string) time.Duration {
	d, err := speech.ParseKeepAlive(value)
	if err != nil {
		s.bad(name, value, "seconds or a duration such as 5m; -1 for ever, 0 to free a model at its last release")
	}
	return d
}

// address reads host:port; none is "".
func (s *settings) address(name, value string) string {
	if value == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(value)
	if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 {
		s.bad(name, value, "an address such as 127.0.0.1:8001")
	}
	return value
}

// origins reads a list of origins; "*" alone is all of them.
func (s *settings) origins(name, value string) []string {
	list := splitList(value)
	for _, origin := range list {
		u, err := url.Parse(origin)
		if origin == "*" && len(list) == 1 {
			continue
		}
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			s.bad(name, value, "*, or origins such as https://example.com or http://localhost:3000")
			break
		}
	}
	return list
}

// budgets reads "8GB" (of the host's memory) or "cpu=8GB,cuda:0=20GiB"; "auto" and none are the defaults.
func (s *settings) budgets(name, value string) map[string]int64 {
	out := make(map[string]int64)
	if strings.EqualFold(strings.TrimSpace(value), "auto") {
		return out
	}
	for _, part := range splitList(value) {
		device, size, named := strings.Cut(part, "=")
		if !named {
			device, size = "cpu", part
		}
		bytes, err := humanize.ParseBytes(size)
		if err != nil || bytes == 0 || bytes > math.MaxInt64/1024 {
			s.bad(name, value, "auto, or sizes such as 8GB or cpu=8GB,cuda:0=20GB")
			break
		}
		out[strings.TrimSpace(device)] = int64(bytes)
	}
	return out
}

// splitList reads a list with commas; empty parts are skipped.
func splitList(text string) []string {
	var out []string
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
