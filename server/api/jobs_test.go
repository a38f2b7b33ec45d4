package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/jobs"
)

// shelf is a job queue without workers.
type shelf struct {
	orders [][]byte
	jobs   map[string]jobs.Job
	fails  error
}

func (q *shelf) Submit(_ context.Context, model string, order []byte) (jobs.Job, bool, error) {
	if q.fails != nil {
		return jobs.Job{}, false, q.fails
	}
	q.orders = append(q.orders, order)
	id := jobs.ID(order)
	if job, ok := q.jobs[id]; ok {
		return job, false, nil
	}
	q.jobs[id] = jobs.Job{ID: id, Object: "audio.job", State: jobs.Queued, Model: model}
	return q.jobs[id], true, nil
}

func (q *shelf) Get(_ context.Context, id string) (jobs.Job, error) {
	if job, ok := q.jobs[id]; ok {
		return job, nil
	}
	return jobs.Job{}, jobs.ErrNotFound
}

func (q *shelf) Watch(ctx context.Context, id string, tell func(jobs.Job) error) error {
	job := q.jobs[id]
	for _, state := range []jobs.State{jobs.Queued, jobs.Running, jobs.Done} {
		job.State = state
		if err := tell(job); err != nil {
			return err
		}
	}
	return nil
}

func (q *shelf) Audio(context.Context, string) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader("audio")), 5, nil
}

func jobSite(t *testing.T) (*site, *shelf) {
	t.Helper()
	q := &shelf{jobs: map[string]jobs.Job{}}
	return openSite(t, settings{jobs: q}), q
}

func TestOrdersThatMeanTheSameAreOneJob(t *testing.T) {
	s, q := jobSite(t)
	var ids []string
	for i, body := range []string{
		`{"model":"suno/bark","input":"Hi.","speed":1.5}`,
		`{ "speed":1.5, "input":"Hi.", "model":"suno/bark", "voice":null }`,
		`{"input":"Hi.","speed":1.5}`,
	} {
		r := s.do(t, "POST", "/v1/audio/jobs", body, "X-Barkd-Model", "suno/bark")
		var job jobs.Job
		require.NoError(t, json.Unmarshal(r.body, &job), "%s", r.body)
		ids = append(ids, job.ID)
		assert.Equal(t, "/v1/audio/jobs/"+job.ID, r.header.Get("Location"))
		assert.Equal(t, map[bool]int{true: 202, false: 200}[i == 0], r.status)
	}
	assert.Equal(t, []string{ids[0], ids[0], ids[0]}, ids)
	var order map[string]any
	require.NoError(t, json.Unmarshal(q.orders[0], &order))
	assert.Positive(t, order["seed"], "from the order itself")
	r := s.do(t, "POST", "/v1/audio/jobs", `{"model":"suno/bark","input":"Hi.","speed":1.5,"seed":18446744073709551615}`)
	assert.Equal(t, 202, r.status, "another seed is another job")
	assert.Contains(t, string(q.orders[3]), `"seed":18446744073709551615`)
}

func TestWrongOrdersAreRefusedBeforeTheyAreQueued(t *testing.T) {
	s, q := jobSite(t)
	for body, want := range map[string]string{
		`{"model":"suno/bark","input":"Hi.","stream_format":"sse"}`: "invalid_value",
		`{"model":"suno/nope","input":"Hi."}`:                       "model_not_found",
		`{"input":"Hi."}`:                                           "missing_parameter",
		`{"model":"suno/bark","input":"Hi.","sped":2}`:              "unknown_parameter",
	} {
		assert.Equal(t, want, deref(s.do(t, "POST", "/v1/audio/jobs", body).failure(t).Code))
	}
	assert.Empty(t, q.orders)
	for fault, want := range map[error]string{jobs.ErrFull: "overloaded", jobs.ErrUnavailable: "jobs_unavailable"} {
		q.fails = fault
		r := s.do(t, "POST", "/v1/audio/jobs", `{"model":"suno/bark","input":"Hi."}`)
		assert.Equal(t, 503, r.status)
		assert.Equal(t, want, deref(r.failure(t).Code))
		assert.NotEmpty(t, r.header.Get("Retry-After"))
	}
}

func TestJobsAreAskedForAndWatched(t *testing.T) {
	s, q := jobSite(t)
	q.jobs["a"] = jobs.Job{ID: "a", State: jobs.Running, Model: "suno/bark"}
	q.jobs["b"] = jobs.Job{ID: "b", State: jobs.Done, Model: "suno/bark", Audio: &jobs.Audio{ContentType: "audio/flac", SHA256: "ab"}}
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/jobs/a", "").body), `"state":"running"`)
	events := s.do(t, "GET", "/v1/audio/jobs/a", "", "Accept", "text/event-stream")
	assert.Equal(t, "text/event-stream", events.header.Get("Content-Type"))
	assert.Equal(t, 3, bytes.Count(events.body, []byte("event: audio.job\n")))
	assert.Contains(t, string(events.body), `"state":"done"`)
	early := s.do(t, "GET", "/v1/audio/jobs/a/audio", "")
	assert.Equal(t, 409, early.status)
	assert.NotEmpty(t, early.header.Get("Retry-After"))
	audio := s.do(t, "GET", "/v1/audio/jobs/b/audio", "")
	assert.Equal(t, "audio", string(audio.body))
	assert.Equal(t, "audio/flac", audio.header.Get("Content-Type"))
	assert.Equal(t, `"ab"`, audio.header.Get("ETag"))
	for _, path := range []string{"/v1/audio/jobs/c", "/v1/audio/jobs/c/audio"} {
		assert.Equal(t, "job_not_found", deref(s.do(t, "GET", path, "").failure(t).Code))
	}
}

func TestWithoutAQueueTheRoutesSaySo(t *testing.T) {
	s := newSite(t)
	for _, r := range []reply{s.do(t, "POST", "/v1/audio/jobs", `{}`), s.do(t, "GET", "/v1/audio/jobs/a", ""), s.do(t, "GET", "/v1/audio/jobs/a/audio", "")} {
		assert.Equal(t, 501, r.status)
		assert.Equal(t, "jobs_off", deref(r.failure(t).Code))
	}
}

func TestAJobIsSpokenIntoAFileAndItsFailuresTold(t *testing.T) {
	s := openSite(t, settings{kv: cgo.KVI8})
	var told int
	speak := func(order string) (*buffer, string, error) {
		to := &buffer{}
		kind, _, err := s.SpeakJob(t.Context(), "id", []byte(order), to, func(jobs.Progress) { told++ })
		return to, kind, err
	}
	to, kind, err := speak(`{"model":"suno/bark","input":"Hello.","response_format":"wav","seed":1}`)
	require.NoError(t, err)
	assert.Equal(t, "audio/wav", kind)
	assert.Positive(t, told)
	assert.Equal(t, []cgo.KVType{cgo.KVI8}, s.model.Caches())
	assert.Equal(t, s.speak(t, `{"model":"suno/bark","input":"Hello.","response_format":"wav","seed":1}`).body, to.text)

	var failure *jobs.Failure
	_, _, err = speak(`{"model":"suno/nope","input":"Hello."}`)
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, "model_not_found", failure.Code)
	assert.Zero(t, failure.RetryAfter)
	s.model.Work = func(context.Context, cgo.Request) error { return cgo.ErrOutOfMemory }
	_, _, err = speak(`{"model":"suno/bark","input":"Hello."}`)
	require.ErrorAs(t, err, &failure)
	assert.Positive(t, failure.RetryAfter, "it passes")
	s.model.Work = func(context.Context, cgo.Request) error { panic("oh") }
	_, _, err = speak(`{"model":"suno/bark","input":"Hello."}`)
	require.ErrorContains(t, err, "panic: oh")
}

// buffer is a file in memory.
type buffer struct {
	text []byte
	at   int
}

func (b *buffer) Write(p []byte) (int, error) {
	if more := b.at + len(p) - len(b.text); more > 0 {
		b.text = append(b.text, make([]byte, more)...)
	}
	b.at += copy(b.text[b.at:], p)
	return len(p), nil
}

func (b *buffer) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		b.at = int(offset)
	case io.SeekCurrent:
		b.at += int(offset)
	case io.SeekEnd:
		b.at = len(b.text) + int(offset)
	}
	return int64(b.at), nil
}
