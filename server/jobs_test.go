package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/deploy/cluster"
	"barkd/server/jobs"
)

// startNATS runs a NATS server with JetStream in the process.
func startNATS(t *testing.T) string {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(10*time.Second))
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s.ClientURL()
}

// program runs this program as a process of its own.
func program(t *testing.T, settings ...string) *cluster.Server {
	t.Helper()
	s, err := cluster.Start(os.Args[0], append(settings, "BARKD_TEST_PROGRAM=1")...)
	require.NoError(t, err)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = s.Kill() // the test may have done it
	})
	return s
}

// follow reads a job's event stream.
func follow(t *testing.T, url string, each func(jobs.Job)) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { assert.NoError(t, resp.Body.Close()) }()
	require.Equal(t, 200, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var job jobs.Job
			require.NoError(t, json.Unmarshal([]byte(data), &job))
			each(job)
		}
	}
	require.NoError(t, lines.Err())
}

func postJSON(t *testing.T, url, body string) (int, []byte) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	require.NoError(t, err)
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, all
}

func TestAWorkerKilledInTheMiddleOfAJob(t *testing.T) {
	url := startNATS(t)
	settings := []string{"JOBS_NATS=" + url, "JOBS_RESULTS=" + t.TempDir(), "JOBS_LEASE_SECONDS=1", "MOCK_TIME_SCALE=0.002"}
	front := program(t, append(settings, "JOBS_WORKERS=0")...)
	victim := program(t, append(settings, "MOCK_TIME_SCALE=0.03")...) // slow enough to be killed in time
	text := strings.Repeat("The quick brown fox jumps over the lazy dog and walks home. ", 6)
	order := fmt.Sprintf(`{"model":"suno/bark-small","input":%q,"response_format":"wav","seed":7}`, text)

	base := "http://" + front.Address + "/v1/audio/"
	status, body := postJSON(t, base+"jobs", order)
	require.Equal(t, 202, status, "%s", body)
	var job jobs.Job
	require.NoError(t, json.Unmarshal(body, &job))

	killed := false
	var rescuer *cluster.Server
	var ends int
	var workers []string
	follow(t, base+"jobs/"+job.ID, func(now jobs.Job) {
		if n := len(workers); now.Worker != "" && (n == 0 || workers[n-1] != now.Worker) {
			workers = append(workers, now.Worker)
		}
		if now.State.Ended() {
			ends++
		}
		if !killed && now.Progress != nil && now.Progress.Piece > 1 { // in the middle
			killed = true
			require.NoError(t, victim.Kill())
			rescuer = program(t, settings...)
		}
		job = now
	})
	require.True(t, killed)
	assert.Equal(t, jobs.Done, job.State, "%+v", job.Error)
	assert.Equal(t, 1, ends)
	assert.Equal(t, 2, job.Attempts)
	assert.Len(t, workers, 2)

	resp, err := http.Get(base + "jobs/" + job.ID + "/audio")
	require.NoError(t, err)
	audio, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, "audio/wav", resp.Header.Get("Content-Type"))
	status, direct := postJSON(t, base+"speech", order)
	require.Equal(t, 200, status)
	assert.Equal(t, direct, audio, "the same as if nobody had been killed")

	status, body = postJSON(t, base+"jobs", order)
	assert.Equal(t, 200, status, "the same order is the job that is done: %s", body)
	assert.Zero(t, waiting(t, url))
	require.NoError(t, rescuer.Stop())
	require.NoError(t, front.Stop())
}

// waiting counts the messages of the work queue.
func waiting(t *testing.T, url string) uint64 {
	t.Helper()
	conn, err := nats.Connect(url)
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "BARKD_JOBS")
	require.NoError(t, err)
	return stream.CachedInfo().State.Msgs
}

func TestJobSettingsNeedEachOtherAndAServer(t *testing.T) {
	got := barkd(t, map[string]string{"BARKD_BACKEND": "mock", "JOBS_NATS": "nats://127.0.0.1:1", "JOBS_LEASE_SECONDS": "0", "JOBS_WORKERS": "-1"}, "", "serve")
	assert.Equal(t, exitUsage, got.code)
	for _, want := range []string{"JOBS_NATS and JOBS_RESULTS", "JOBS_LEASE_SECONDS", "JOBS_WORKERS"} {
		assert.Contains(t, got.err, want)
	}
	got = barkd(t, quick(map[string]string{"JOBS_NATS": "nats://127.0.0.1:1", "JOBS_RESULTS": t.TempDir()}), "", "serve", "--host", "127.0.0.1", "--port", "0")
	assert.Equal(t, exitFailed, got.code)
	assert.Contains(t, got.err, "JOBS_NATS: connect to NATS")
}
