package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/deploy/cluster"
)

// The same comparison on three servers with the simulated runtime; the hash is that of HAProxy with the shipped file.
const (
	realModels   = 8
	realRequests = 400
	realClients  = 3
)

func TestRoutingOnThreeServers(t *testing.T) {
	binary := os.Getenv("BARKD_BIN")
	if binary == "" {
		t.Skip("BARKD_BIN does not name the program; 'make deploy-test' does")
	}
	outcomes := map[string]Outcome{}
	for _, policy := range []string{"random", "round robin", "hash by HAProxy", "residency 3:2:2"} {
		o := onServers(t, binary, policy)
		outcomes[policy] = o
		t.Logf("%15s: hit rate %.1f %%, loads %.1f and evictions %.1f per 1,000, p50 %v, p99 %v", policy, 100*o.HitRate(), o.Per1000(o.Loads),
			o.Per1000(o.Evictions), o.WaitP50.Round(time.Millisecond), o.WaitP99.Round(time.Millisecond))
	}
	assert.Less(t, 2*outcomes["residency 3:2:2"].Loads, outcomes["random"].Loads)
	assert.Less(t, 2*outcomes["residency 3:2:2"].Evictions, outcomes["random"].Evictions)
	assert.Less(t, outcomes["hash by HAProxy"].Loads, outcomes["random"].Loads)
}

// onServers loads three new servers with the same order of models. Its times are from the request to the whole answer.
func onServers(t *testing.T, binary, policy string) Outcome {
	t.Helper()
	var servers []*cluster.Server
	for range 3 {
		s, err := cluster.Start(binary, "MOCK_TIME_SCALE=0.001", "MAX_CACHED_MODELS=3")
		require.NoError(t, err)
		defer func() { assert.NoError(t, s.Kill()) }()
		servers = append(servers, s)
	}
	pick, stop := router(t, policy, servers)
	var models []int
	random, popularity := rand.New(rand.NewPCG(1, 1)), newZipf(realModels, 0.9)
	for range realRequests + 10*realClients {
		models = append(models, popularity.draw(random))
	}
	load := cluster.Begin(realClients, func(i int) (url, body, model string) {
		model = modelName(models[i%len(models)])
		return pick(model), fmt.Sprintf(`{"model":%q,"input":"Hello there.","response_format":"pcm","max_tokens":8}`, model), model
	})
	load.Await(realRequests)
	answers := load.End()
	stop()
	o := Outcome{Policy: policy, Requests: len(answers), WaitP50: cluster.Percentile(answers, 0.5), WaitP99: cluster.Percentile(answers, 0.99)}
	for _, a := range answers {
		require.False(t, a.Failed(), "%s: %d %v", policy, a.Status, a.Err)
	}
	for _, s := range servers {
		families, err := s.Metrics()
		require.NoError(t, err)
		requests, err := s.Requests()
		require.NoError(t, err)
		for _, outcomes := range requests {
			o.Hits += outcomes["hit"]
			o.Loads += outcomes["miss"]
		}
		for _, m := range families["bark_cache_evictions_total"].GetMetric() {
			o.Evictions += int(m.GetCounter().GetValue())
		}
	}
	return o
}

// router returns the way to a server for a model; stop ends what it runs.
func router(t *testing.T, policy string, servers []*cluster.Server) (pick func(model string) (url string), stop func()) {
	t.Helper()
	url := func(i int) string { return "http://" + servers[i].Address }
	switch policy {
	case "random":
		return func(string) string { return url(rand.IntN(len(servers))) }, func() {}
	case "round robin":
		var next atomic.Int64
		return func(string) string { return url(int(next.Add(1)) % len(servers)) }, func() {}
	case "hash by HAProxy":
		proxy, err := cluster.StartProxy("../../deploy/haproxy/haproxy.cfg", servers)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			states, err := proxy.States("speech")
			return err == nil && assert.ObjectsAreEqual([]string{"UP", "UP", "UP"}, states)
		}, time.Minute, 10*time.Millisecond)
		return func(string) string { return proxy.URL }, func() { _ = proxy.Close() }
	}
	p := &picking{servers: servers, random: rand.New(rand.NewPCG(1, 1)), stop: make(chan struct{})}
	require.NoError(t, p.look())
	p.looking.Go(p.watch)
	return func(model string) string { return url(p.pick(model)) }, func() {
		close(p.stop)
		p.looking.Wait()
	}
}

// picking is the stub of the Endpoint Picker with metrics that are looked at again and again.
type picking struct {
	servers []*cluster.Server
	looking sync.WaitGroup
	stop    chan struct{}

	mu     sync.Mutex // guards what follows
	views  []cluster.View
	random *rand.Rand
}

func (p *picking) watch() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			_ = p.look() // the test reads the metrics at its end, and fails if it cannot
		}
	}
}

func (p *picking) look() error {
	var views []cluster.View
	for _, s := range p.servers {
		families, err := s.Metrics()
		if err != nil {
			return err
		}
		v, err := cluster.ReadView(families)
		if err != nil {
			return err
		}
		views = append(views, v)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.views = views
	return nil
}

func (p *picking) pick(model string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cluster.DefaultWeights.Pick(p.views, model, p.random)
}
