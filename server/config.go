package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"barkd/cgo/mock"
)

// serverConfig is what `barkd serve` is asked to be, checked.
type serverConfig struct {
	runtime         runtimeConfig
	address         string
	maxCachedModels int
	maxRunning      int
	maxWaiting      int
	warmup          []string
	thresholdGB     float64
	grace           time.Duration
	logLevel        zerolog.Level
	logFormat       string
}

// runtimeConfig says what runs models, checked.
type runtimeConfig struct {
	mock      bool
	timeScale float64
	faults    *mock.Faults // of the simulated runtime; nil for none
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
		threads:   s.integer("BARKD_THREADS", f.Threads, 0, 4096),
		models:    f.Models,
	}
}

// config checks the command's settings; the error names every bad one.
func (c *serveCommand) config() (serverConfig, error) {
	var s settings
	port := s.integer("PORT", c.Port, 0, 65535)
	cfg := serverConfig{
		runtime:         c.runtimeFlags.read(&s),
		address:         net.JoinHostPort(strings.Trim(c.Host, "[]"), strconv.Itoa(port)),
		maxCachedModels: s.integer("MAX_CACHED_MODELS", c.MaxCachedModels, 1, math.MaxInt32),
		maxRunning:      s.integer("MAX_CONCURRENT_REQUESTS", c.MaxConcurrentRequests, 1, math.MaxInt32),
		maxWaiting:      s.integer("MAX_QUEUED_REQUESTS", c.MaxQueuedRequests, 0, math.MaxInt32),
		thresholdGB:     s.number("MEMORY_THRESHOLD_GB", c.MemoryThresholdGB, 0),
		grace:           time.Duration(s.integer("SHUTDOWN_GRACE_SECONDS", c.ShutdownGraceSeconds, 0, 86400)) * time.Second,
		logFormat:       s.oneOf("LOG_FORMAT", c.LogFormat, "auto", "json", "console"),
	}
	level := s.oneOf("LOG_LEVEL", c.LogLevel, "info", "debug", "warn", "error")
	if s.boolean("CACHE_WARMUP_ENABLED", c.CacheWarmupEnabled) {
		cfg.warmup = splitList(c.WarmupModels)
	}
	var err error
	if cfg.logLevel, err = zerolog.ParseLevel(level); err != nil {
		return cfg, err
	}
	return cfg, s.err()
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
