package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/speech/speechtest"
)

// busy makes the one running request wait until the returned function is called.
func (s *site) busy(t *testing.T) (entered <-chan struct{}, release func()) {
	t.Helper()
	in, out := make(chan struct{}, 9), make(chan struct{})
	s.model.Work = func(ctx context.Context, _ cgo.Request) error {
		in <- struct{}{}
		select {
		case <-out:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in, sync.OnceFunc(func() { close(out) })
}

func TestFullQueueAnswers503WithRetryAfter(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() { assert.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a"}`).status) })
	}
	<-entered
	require.Eventually(t, func() bool {
		return strings.Contains(string(s.do(t, "GET", "/health", "").body), `"waiting":1`)
	}, 10*time.Second, time.Millisecond)
	r := s.speak(t, `{"model":"suno/bark","input":"a"}`)
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "overloaded", deref(r.failure(t).Code))
	assert.NotEmpty(t, r.header.Get("Retry-After"))
	release()
	clients.Wait()
}

func TestVanishedClientCancelsItsRequest(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	body := `{"model":"suno/bark","input":"a"}`
	_, err = fmt.Fprintf(conn, "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	require.NoError(t, err)
	<-entered
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return strings.Contains(s.log.String(), `"status":499`) }, 10*time.Second, 5*time.Millisecond)
	assert.Zero(t, s.models.Leases())
}

func TestShutdownLetsRequestsFinishAndRefusesNewOnes(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	answered := make(chan reply, 1)
	go func() { answered <- s.speak(t, `{"model":"suno/bark","input":"a"}`) }()
	<-entered
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	require.NoError(t, <-s.served)
	_, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.Error(t, err, "it accepts no more")
	release()
	assert.Equal(t, 200, (<-answered).status)
	require.NoError(t, <-down)
	s.served = nil
}

func TestShutdownAnswersOnceMoreOnAKeptConnection(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	ask := func(request string) *http.Response {
		_, err := io.WriteString(conn, request)
		require.NoError(t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		return resp
	}
	assert.False(t, ask("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Close)
	answered := make(chan reply, 1)
	go func() { answered <- s.speak(t, `{"model":"suno/bark","input":"a"}`) }()
	<-entered
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	require.NoError(t, <-s.served)
	resp := ask("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
	assert.Equal(t, 503, resp.StatusCode)
	assert.NotEmpty(t, resp.Header.Get("Retry-After"))
	assert.True(t, resp.Close, "it is told that this was the last answer")
	release()
	assert.Equal(t, 200, (<-answered).status)
	require.NoError(t, <-down)
	s.served = nil
}

func TestShutdownCancelsRequestsAfterTheGrace(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	answered := make(chan reply, 1)
	go func() { answered <- s.speak(t, `{"model":"suno/bark","input":"a"}`) }()
	<-entered
	grace, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, s.Shutdown(grace))
	r := <-answered
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "shutting_down", deref(r.failure(t).Code))
	require.NoError(t, <-s.served)
	s.served = nil
}

func TestManyClientsAtOnce(t *testing.T) {
	s := newSite(t, "mine")
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for range 4 {
				r := s.speak(t, fmt.Sprintf(`{"model":"suno/bark","input":"%s","voice":"mine","response_format":"pcm"}`, strings.Repeat("a", i+1)))
				if r.status == 200 {
					assert.Len(t, r.body, 2*(i+1)*speechtest.SamplesPerRune)
				} else {
					assert.Equal(t, 503, r.status)
				}
				s.do(t, "GET", "/cache/stats", "")
				s.do(t, "POST", "/cache/preload/suno%2Fbark", "")
			}
		})
	}
	clients.Wait()
	sessions, voices := s.model.Live()
	assert.Zero(t, sessions+voices+s.models.Leases())
}
