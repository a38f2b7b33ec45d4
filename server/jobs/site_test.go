package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/server/jobs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startNATS runs a NATS server with JetStream in the process and returns its URL.
func startNATS(t *testing.T) (url string, stop func()) {
	t.Helper()
	s := runNATS(t, t.TempDir(), server.RANDOM_PORT)
	return s.url, s.stop
}

type natsServer struct {
	url  string
	port int
	stop func()
}

func runNATS(t *testing.T, dir string, port int) natsServer {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(10*time.Second))
	stop := sync.OnceFunc(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	t.Cleanup(stop)
	return natsServer{s.ClientURL(), s.Addr().(*net.TCPAddr).Port, stop}
}

func config(t *testing.T, url string) jobs.Config {
	t.Helper()
	results, err := jobs.OpenResults(t.Context(), t.TempDir(), nil)
	require.NoError(t, err)
	return jobs.Config{URL: url, Worker: "test", Lease: time.Second, MaxAttempts: 3, MaxQueued: 100, Keep: time.Hour, Results: results, Log: zerolog.Nop()}
}

func open(t *testing.T, cfg jobs.Config) *jobs.Queue {
	t.Helper()
	q, err := jobs.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(q.Close)
	return q
}

// speaker says its orders in capital letters, so to speak. Its work may be given.
type speaker struct {
	mu    sync.Mutex
	calls map[string]int // by order
	work  func(ctx context.Context, order string, call int, progress func(jobs.Progress)) error
}

// SpeakJob implements jobs.Speaker.
func (s *speaker) SpeakJob(ctx context.Context, _ string, order []byte, to io.WriteSeeker, progress func(jobs.Progress)) (string, float64, error) {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[string(order)]++
	call := s.calls[string(order)]
	s.mu.Unlock()
	if s.work != nil {
		if err := s.work(ctx, string(order), call, progress); err != nil {
			return "", 0, err
		}
	}
	_, err := fmt.Fprintf(to, "audio of %s", order)
	return "audio/test", 1.5, err
}

func (s *speaker) count(order string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[order]
}

// work runs workers in the background; the returned function stops them as SIGTERM does.
func work(t *testing.T, q *jobs.Queue, n int, s jobs.Speaker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() { q.Work(ctx, n, s) })
	stop = sync.OnceFunc(func() {
		cancel()
		working.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// ended waits for the job's end and returns all of its states that were told.
func ended(t *testing.T, q *jobs.Queue, id string) (jobs.Job, []jobs.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last jobs.Job
	var states []jobs.State
	err := q.Watch(ctx, id, func(job jobs.Job) error {
		last, states = job, append(states, job.State)
		return nil
	})
	require.NoError(t, err, "%+v", last)
	return last, states
}

func audio(t *testing.T, q *jobs.Queue, id string) string {
	t.Helper()
	from, size, err := q.Audio(t.Context(), id)
	require.NoError(t, err)
	text, err := io.ReadAll(from)
	require.NoError(t, errors.Join(err, from.Close()))
	require.Len(t, text, int(size))
	return string(text)
}
