// Package haproxy_test runs the shipped configuration in front of three servers.
package haproxy_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/deploy/cluster"
)

const (
	models    = 12
	clients   = 24
	maxFlying = 20 // maxconn of a server in haproxy.cfg
)

// site is three servers behind HAProxy.
type site struct {
	url     string
	proxy   *cluster.Proxy
	servers []*cluster.Server
	client  *http.Client
}

func open(t *testing.T) *site {
	t.Helper()
	binary := os.Getenv("BARKD_BIN")
	if binary == "" {
		t.Skip("BARKD_BIN does not name the program; 'make deploy-test' does")
	}
	s := &site{client: cluster.NewClient()}
	for range 3 {
		server, err := cluster.Start(binary, "MOCK_TIME_SCALE=0.001", "MAX_CACHED_MODELS=8", "DRAIN_SECONDS=5")
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Kill() }) // it may have ended
		s.servers = append(s.servers, server)
	}
	var err error
	s.proxy, err = cluster.StartProxy("haproxy.cfg", s.servers)
	require.NoError(t, err)
	t.Cleanup(func() {
		log := s.proxy.Close()
		if t.Failed() {
			t.Log(log)
		}
	})
	s.url = s.proxy.URL
	s.await(t, "UP", "UP", "UP")
	return s
}

// await waits until HAProxy has heard of the servers' states.
func (s *site) await(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := s.proxy.States("speech")
		return err == nil && slices.Equal(want, got)
	}, time.Minute, 10*time.Millisecond, "%v", want)
}

func name(i int) string { return fmt.Sprintf("mock/small-%d", i%models+1) }

// order is for one model after the other; every eighth answer is a stream.
func (s *site) order(i int) (url, body, model string) {
	more := ""
	if i%8 == 0 {
		more = `,"stream_format":"audio"`
	}
	return s.url, fmt.Sprintf(`{"model":%q,"input":"Hello there.","response_format":"pcm","max_tokens":8%s}`, name(i), more), name(i)
}

// homes asks for each model a few times, one request at a time, and returns the server that got them: by now or since
// the last call, exactly one.
func (s *site) homes(t *testing.T) map[string]int {
	t.Helper()
	before := s.counts(t)
	for range 3 {
		for i := range models {
			url, body, model := s.order(i)
			answer := cluster.Ask(s.client, url, body, model)
			require.False(t, answer.Failed(), "%s: %d %v", model, answer.Status, answer.Err)
		}
	}
	after := s.counts(t)
	out := make(map[string]int)
	for i := range models {
		for server := range s.servers {
			switch got := after[server][name(i)] - before[server][name(i)]; got {
			case 0:
			case 3:
				out[name(i)] = server
			default:
				t.Errorf("server %d got %d of 3 requests for %s", server, got, name(i))
			}
		}
	}
	require.Len(t, out, models)
	return out
}

// counts are the requests by server and model; a server that is gone has none.
func (s *site) counts(t *testing.T) []map[string]int {
	t.Helper()
	out := make([]map[string]int, len(s.servers))
	for i, server := range s.servers {
		out[i] = make(map[string]int)
		requests, err := server.Requests()
		if err != nil {
			continue
		}
		for model, outcomes := range requests {
			for _, n := range outcomes {
				out[i][model] += n
			}
		}
	}
	return out
}

func share(homes map[string]int) []int {
	out := make([]int, 3)
	for _, server := range homes {
		out[server]++
	}
	return out
}

func failures(answers []cluster.Answer) int {
	n := 0
	for _, a := range answers {
		if a.Failed() {
			n++
		}
	}
	return n
}

func summary(answers []cluster.Answer) string {
	return fmt.Sprintf("%d requests, %d failed, p50 %v, p99 %v", len(answers), failures(answers),
		cluster.Percentile(answers, 0.5).Round(time.Millisecond), cluster.Percentile(answers, 0.99).Round(time.Millisecond))
}

// One test, as each part begins where the last one ended.
func TestThreeServersBehindHAProxy(t *testing.T) {
	s := open(t)
	homes := s.homes(t)
	t.Logf("at rest: models by server %v, each at one server", share(homes))

	load := cluster.Begin(clients, s.order)
	load.Await(60 * models)
	answers := load.End()
	t.Logf("under load: %s", summary(answers))
	require.Zero(t, failures(answers))
	home, all := 0, 0
	for server, counts := range s.counts(t) {
		for model, n := range counts {
			all += n
			if homes[model] == server {
				home += n
			}
		}
	}
	t.Logf("under load: %.1f %% of requests at their model's server, the rest passed on by the bound", 100*float64(home)/float64(all))
	assert.Greater(t, 2*home, all, "by chance it would be a third")

	victim := homes[name(0)]
	states := func(of string) []string {
		out := []string{"UP", "UP", "UP"}
		out[victim] = of
		return out
	}
	load = cluster.Begin(clients, s.order)
	load.Await(5 * models)
	require.NoError(t, s.servers[victim].Kill())
	s.await(t, states("DOWN")...)
	load.Await(5 * models)
	answers = load.End()
	t.Logf("server %d killed under load: %s", victim, summary(answers))
	assert.LessOrEqual(t, failures(answers), maxFlying, "more than were on their way at it")
	moved := s.homes(t)
	t.Logf("without it: models by server %v", share(moved))
	for model, server := range moved {
		if homes[model] != victim {
			assert.Equal(t, homes[model], server, "only the dead server's models move")
		}
	}

	load = cluster.Begin(clients, s.order)
	load.Await(2 * models)
	require.NoError(t, s.servers[victim].Restart())
	s.await(t, "UP", "UP", "UP")
	load.Await(2 * models)
	answers = load.End()
	t.Logf("it returns under load: %s", summary(answers))
	assert.Zero(t, failures(answers))
	assert.Equal(t, homes, s.homes(t), "it has its models again")

	load = cluster.Begin(clients, s.order)
	load.Await(5 * models)
	stopped := make(chan error, 1)
	go func() { stopped <- s.servers[victim].Stop() }()
	s.await(t, states("DRAIN")...)
	require.NoError(t, <-stopped)
	s.await(t, states("DOWN")...)
	load.Await(5 * models)
	answers = load.End()
	t.Logf("it drains and stops under load: %s", summary(answers))
	assert.Zero(t, failures(answers), "a drained server loses nothing")

	require.NoError(t, s.servers[victim].Restart())
	s.await(t, "UP", "UP", "UP")
	assert.Equal(t, homes, s.homes(t), "it has its models again: its agent has ended the drain")
}

func TestOneBusyModelSpillsOverToOtherServers(t *testing.T) {
	s := open(t)
	load := cluster.Begin(3*clients, func(int) (string, string, string) { return s.order(0) })
	load.Await(200)
	answers := load.End()
	by := make([]int, 3)
	for server, counts := range s.counts(t) {
		by[server] = counts[name(0)]
	}
	t.Logf("one model, %d clients: %s; by server %v", 3*clients, summary(answers), by)
	assert.Zero(t, failures(answers))
	assert.Greater(t, len(answers), slices.Max(by), "more than one server helps")
}

func TestTheOperatorsSideIsNotForThePublic(t *testing.T) {
	s := open(t)
	for path, want := range map[string]int{"/cache/stats": 404, "/metrics": 404, "/v1/models": 200, "/health": 200} {
		resp, err := s.client.Get(s.url + path)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, want, resp.StatusCode, path)
	}
}

func TestAHeaderNamesTheModelForTheRouter(t *testing.T) {
	s := open(t)
	homes := s.homes(t)
	before := s.counts(t)
	for i := range models {
		req, err := http.NewRequest("POST", s.url+"/v1/audio/speech", strings.NewReader(`{"input":"Hello.","response_format":"pcm"}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Barkd-Model", name(i))
		resp, err := s.client.Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, name(i), resp.Header.Get("X-Barkd-Model"))
	}
	after := s.counts(t)
	for i := range models {
		assert.Equal(t, 1, after[homes[name(i)]][name(i)]-before[homes[name(i)]][name(i)], name(i))
	}
}
