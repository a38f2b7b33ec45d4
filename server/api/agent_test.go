package api_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo/memwatch"
)

// agent serves the agent's port of a site; the returned function asks it.
func (s *site) agent(t *testing.T) (ask func() string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { s.ServeAgent(listener) })
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		serving.Wait()
	})
	return func() string {
		conn, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		line, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		return string(line)
	}
}

func TestTheAgentWeighsPressureAndQueue(t *testing.T) {
	s := newSite(t)
	ask := s.agent(t)
	assert.Equal(t, "ready up 100%\n", ask())
	s.pressure.Store(int32(memwatch.LevelHigh))
	assert.Equal(t, "ready up 50%\n", ask())
	s.pressure.Store(int32(memwatch.LevelCritical))
	assert.Equal(t, "ready up 10%\n", ask())
	s.pressure.Store(int32(memwatch.LevelNone))

	entered, release := s.busy(t)
	defer release()
	var clients sync.WaitGroup
	defer clients.Wait()
	for range 2 {
		clients.Go(func() { assert.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a"}`).status) })
	}
	<-entered
	assert.Eventually(t, func() bool { return ask() == "ready up 10%\n" }, 10*time.Second, time.Millisecond, "the queue is full")
	release()
	clients.Wait()
	assert.Equal(t, "ready up 100%\n", ask())
}

func TestTheAgentIsDownWhileTheWarmupRuns(t *testing.T) {
	s := openSite(t, settings{warmup: []string{"suno/bark"}})
	ask := s.agent(t)
	assert.Equal(t, "down#warming_up\n", ask())
	s.warmup.Run(t.Context(), s.pool, found, nil)
	assert.Equal(t, "ready up 100%\n", ask())
}

func TestADrainingServerAnswersAndSaysSo(t *testing.T) {
	s := newSite(t)
	ask := s.agent(t)
	s.Drain()
	assert.Equal(t, "drain\n", ask())
	assert.Equal(t, 503, s.do(t, "GET", "/readyz", "").status)
	assert.Contains(t, string(s.do(t, "GET", "/health", "").body), `"status":"draining"`)
	assert.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a"}`).status, "it still takes what comes")
}
