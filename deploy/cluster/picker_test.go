package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/deploy/cluster"
)

// The contract with the Endpoint Picker: its reading and its scores, on two servers' own metrics.
func TestThePickerFindsTheServerThatHoldsTheModel(t *testing.T) {
	binary := os.Getenv("BARKD_BIN")
	if binary == "" {
		t.Skip("BARKD_BIN does not name the program; 'make deploy-test' does")
	}
	// Loads and speech of suno/bark hang until their clients leave.
	const plan = `{"rules":[{"fault":"load_hangs","model":"mock/bark-xl"},{"fault":"synthesis_slow","model":"suno/bark","factor":1e9}]}`
	var servers []*cluster.Server
	for range 2 {
		s, err := cluster.Start(binary, "MOCK_TIME_SCALE=0.001", "MAX_CACHED_MODELS=2", "MAX_CONCURRENT_REQUESTS=1", "MOCK_FAULTS="+plan)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, s.Kill()) })
		servers = append(servers, s)
	}
	views := func() []cluster.View {
		var out []cluster.View
		for _, s := range servers {
			families, err := s.Metrics()
			require.NoError(t, err)
			v, err := cluster.ReadView(families)
			require.NoError(t, err)
			out = append(out, v)
		}
		return out
	}
	random := rand.New(rand.NewPCG(1, 1))
	picks := func(model string) [2]int {
		var n [2]int
		now := views()
		for range 20 {
			n[cluster.DefaultWeights.Pick(now, model, random)]++
		}
		return n
	}
	post(t, servers[0], "/cache/preload/suno/bark")
	post(t, servers[1], "/cache/preload/suno/bark-small")
	assert.Equal(t, [2]int{20, 0}, picks("suno/bark"))
	assert.Equal(t, [2]int{0, 20}, picks("suno/bark-small"))
	neither := picks("barkd/tiny")
	assert.Positive(t, neither[0])
	assert.Positive(t, neither[1], "both have room for it")

	post(t, servers[0], "/cache/clear")
	post(t, servers[1], "/cache/clear")
	post(t, servers[0], "/cache/preload/suno/bark-small")
	post(t, servers[1], "/cache/preload/suno/bark")
	assert.Equal(t, [2]int{0, 20}, picks("suno/bark"), "after a swap")
	assert.Equal(t, [2]int{20, 0}, picks("suno/bark-small"))

	post(t, servers[0], "/cache/preload/barkd/tiny")
	assert.Equal(t, [2]int{0, 20}, picks("mock/small-1"), "the first server is full")

	ctx, leave := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer leave()
	clients.Go(func() { request(ctx, servers[1], "/cache/preload/mock/bark-xl") })
	require.Eventually(t, func() bool { return views()[1].Loading["mock/bark-xl"] }, 10*time.Second, time.Millisecond)
	assert.InDelta(t, 0.6, views()[1].Affinity("mock/bark-xl"), 0, "full, but it is on its way there")
	assert.Zero(t, views()[1].Affinity("mock/small-1"))

	post(t, servers[0], "/cache/clear")
	post(t, servers[0], "/cache/preload/suno/bark") // now both hold it
	for range 4 {
		clients.Go(func() { request(ctx, servers[0], "/v1/audio/speech") })
	}
	require.Eventually(t, func() bool { return views()[0].Waiting == 3 }, 10*time.Second, time.Millisecond)
	assert.InDelta(t, 1, views()[0].Utilization, 0)
	assert.Equal(t, [2]int{0, 20}, picks("suno/bark"), "both hold it, the first one is busy")
}

func post(t *testing.T, s *cluster.Server, path string) {
	t.Helper()
	resp, err := http.Post("http://"+s.Address+path, "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode, path)
}

// request asks for what does not come before ctx ends.
func request(ctx context.Context, s *cluster.Server, path string) {
	body := strings.NewReader(`{"model":"suno/bark","input":"Hello."}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Address+path, body)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", path, err)) // a mistake in this file
	}
	req.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}
