package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// soakFaults make everything go wrong that a runtime can do to the cache: loads that are slow, fail, hang and do not
// listen, models that keep memory for a while, wrong estimates, sessions without memory.
const soakFaults = `{"seed": 4, "rules": [
	{"fault": "load_slow", "probability": 0.1, "factor": 20},
	{"fault": "load_fails", "model": "suno/bark-small", "probability": 0.05, "error": "internal"},
	{"fault": "load_fails", "model": "mock/*", "probability": 0.1, "error": "out_of_memory"},
	{"fault": "load_hangs", "model": "suno/*", "probability": 0.01},
	{"fault": "load_deaf", "probability": 0.05, "seconds": 0.2},
	{"fault": "leak", "probability": 0.1, "bytes": 1048576, "seconds": 1},
	{"fault": "estimate_off", "model": "mock/bark-xl", "probability": 0.3, "bytes": 4194304},
	{"fault": "estimate_fails", "probability": 0.01, "error": "internal"},
	{"fault": "session_out_of_memory", "probability": 0.02},
	{"fault": "synthesis_slow", "probability": 0.05, "factor": 10}]}`

const soakClients = 64

// TestSoak has 64 clients speak, vanish, preload, pin, plan, clear and watch while the runtime misbehaves. Every
// request must be answered, by what it asked for or by a refusal that says when to come back, and when all have left
// the books must be empty. BARKD_SOAK says for how long ('make soak' is half an hour); without it, for seconds.
func TestSoak(t *testing.T) {
	length := 4 * time.Second
	if text := os.Getenv("BARKD_SOAK"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	s := startServer(t, map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0.002", "MOCK_FAULTS": soakFaults,
		"MAX_CACHED_MODELS": "3", "CACHE_BUDGET": "12GB", "MAX_CONCURRENT_REQUESTS": "8", "MAX_QUEUED_REQUESTS": "54",
		"MODEL_WAIT_SECONDS": "2", "LOAD_TIMEOUT_SECONDS": "1", "KEEP_ALIVE": "20", "GC_INTERVAL_SECONDS": "1", "MEMORY_CHECK_INTERVAL": "1",
		"MEMORY_THRESHOLD_GB": "0"})
	k := &soak{server: s, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: soakClients}}, answers: map[string]int{}}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var clients sync.WaitGroup
	for i := range soakClients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for ctx.Err() == nil {
				k.act(random)
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond) // what a client does with its audio
			}
		})
	}
	clients.Wait()
	k.client.CloseIdleConnections()
	k.report(t)
	assert.Empty(t, k.wrong, "requests that were lost or answered with what nobody announced")
	k.checkBooks(t)
	assert.Zero(t, s.stop())
}

type soak struct {
	server server
	client *http.Client

	mu      sync.Mutex // guards what follows
	answers map[string]int
	wrong   []string
}

var soakModels = []string{"suno/bark-small", "suno/bark-small", "suno/bark", "mock/bark-xl", "barkd/tiny", "barkd/tiny"}

// act is one request of one client.
func (k *soak) act(random *rand.Rand) {
	model := soakModels[random.IntN(len(soakModels))]
	patience := 10 * time.Minute // long enough on any machine: only what hangs is lost
	if random.IntN(6) == 0 {
		patience = time.Duration(random.IntN(30)) * time.Millisecond // this one vanishes
	}
	keepAlive := []string{"-1", "-1", "-1", "0", `"100ms"`}[random.IntN(5)]
	speech := fmt.Sprintf(`{"model":%q,"input":"Soak %d.","keep_alive":%s}`, model, random.IntN(100), keepAlive)
	switch n := random.IntN(1000); {
	case n < 850:
		k.ask(patience, "POST", "/v1/audio/speech", speech)
	case n < 880:
		k.ask(patience, "POST", "/cache/preload/"+model, "")
	case n < 910:
		k.ask(patience, "GET", "/cache/plan?model="+model, "")
	case n < 940:
		k.ask(patience, "GET", "/cache/stats", "")
	case n < 960:
		k.ask(patience, "GET", "/livez", "")
	case n < 970:
		k.ask(patience, "PUT", "/cache/pins/barkd/tiny", "")
	case n < 985:
		k.ask(patience, "DELETE", "/cache/pins/barkd/tiny", "")
	case n < 989:
		k.ask(patience, "POST", "/cache/clear", "")
	case n < 990:
		k.ask(patience, "POST", "/cache/clear?force", "")
	case n < 995:
		k.ask(patience, "DELETE", "/cache/models/"+model, "")
	default:
		k.ask(patience, "POST", "/cache/warmup", `["barkd/tiny","suno/bark-small"]`)
	}
}

// ask sends one request and judges its answer.
func (k *soak) ask(patience time.Duration, method, path, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, k.server.url+path, strings.NewReader(body))
	if err != nil {
		k.book("", err.Error())
		return
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := k.client.Do(req)
	if err != nil {
		if patience < time.Second && errors.Is(err, context.DeadlineExceeded) {
			k.book("vanished", "")
			return
		}
		k.book("", fmt.Sprintf("%s %s: %v", method, path, err))
		return
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil && patience > time.Second {
		k.book("", fmt.Sprintf("%s %s: %v", method, path, err))
		return
	}
	k.judge(method, path, resp, text)
}

// judge says whether an answer is one that the API announces.
func (k *soak) judge(method, path string, resp *http.Response, text []byte) {
	route, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "?")
	var failure struct {
		Error struct{ Code string }
	}
	_ = json.Unmarshal(text, &failure)
	kind := fmt.Sprintf("%s %d %s", strings.Join(strings.SplitN(route, "/", 3)[:min(2, strings.Count(route, "/")+1)], "/"), resp.StatusCode, failure.Error.Code)
	fine := resp.StatusCode < 300
	switch resp.StatusCode {
	case http.StatusServiceUnavailable: // announced, with when to come back
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		fine = err == nil && seconds > 0
	case http.StatusNotFound:
		fine = method == "DELETE" && failure.Error.Code == "not_pinned"
	case http.StatusInternalServerError: // the first request of a load that fails
		fine = failure.Error.Code == "internal_error" || strings.HasPrefix(route, "cache/warmup")
	}
	if !fine {
		k.book("", fmt.Sprintf("%s: %s", kind, bytes.TrimSpace(text)))
		return
	}
	k.book(kind, "")
}

func (k *soak) book(answer, wrong string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if wrong != "" {
		if len(k.wrong) < 20 {
			k.wrong = append(k.wrong, wrong)
		}
		return
	}
	k.answers[answer]++
}

func (k *soak) report(t *testing.T) {
	var kinds []string
	total := 0
	for kind, n := range k.answers {
		kinds = append(kinds, fmt.Sprintf("%7d  %s", n, kind))
		total += n
	}
	slices.Sort(kinds)
	t.Logf("%d requests were answered:\n%s", total, strings.Join(kinds, "\n"))
}

// checkBooks waits until all that was asked for has ended, and looks at the ledger.
func (k *soak) checkBooks(t *testing.T) {
	t.Helper()
	type stats struct {
		Entries []struct {
			Model           string
			State           string
			Leases, Waiters int
			Bytes           int64
		}
		Pools []struct {
			Booked     int64 `json:"booked_bytes"`
			Reserved   int64 `json:"reserved_bytes"`
			Unreturned int64 `json:"unreturned_bytes"`
			Budget     int64 `json:"budget_bytes"`
		}
		Components []struct{ Bytes int64 }
		Unreturned []struct{ Model string }
	}
	read := func() (s stats) {
		resp, err := http.Get(k.server.url + "/cache/stats")
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&s))
		return s
	}
	idle := func(s stats) bool {
		for _, e := range s.Entries {
			if e.State != "ready" || e.Leases+e.Waiters > 0 {
				return false
			}
		}
		return true
	}
	require.Eventually(t, func() bool { return idle(read()) }, 20*time.Second, 50*time.Millisecond, "something is still at work")
	s := read()
	var sum int64
	for _, e := range s.Entries {
		sum += e.Bytes
	}
	for _, c := range s.Components {
		sum += c.Bytes
	}
	assert.Equal(t, sum, s.Pools[0].Booked, "the ledger is what its entries add up to")
	assert.Zero(t, s.Pools[0].Reserved)
	assert.LessOrEqual(t, s.Pools[0].Booked, s.Pools[0].Budget)
	k.server.post(t, "/cache/clear", "")
	require.Eventually(t, func() bool {
		s := read()
		return len(s.Entries) == 0 && len(s.Unreturned) == 0
	}, 20*time.Second, 50*time.Millisecond, "models or their memory are left")
	s = read()
	assert.Zero(t, s.Pools[0].Booked)
	assert.Zero(t, s.Pools[0].Unreturned)
	assert.Empty(t, s.Components)
}
