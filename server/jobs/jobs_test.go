package jobs_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/jobs"
)

func submit(t *testing.T, q *jobs.Queue, order string) jobs.Job {
	t.Helper()
	job, created, err := q.Submit(t.Context(), "m", []byte(order))
	require.NoError(t, err)
	require.True(t, created)
	return job
}

func TestAJobIsSpokenAndItsAudioKept(t *testing.T) {
	url, _ := startNATS(t)
	q := open(t, config(t, url))
	job := submit(t, q, "one")
	assert.Equal(t, jobs.Queued, job.State)
	assert.Equal(t, jobs.ID([]byte("one")), job.ID)
	work(t, q, 1, &speaker{})
	job, states := ended(t, q, job.ID)
	assert.Equal(t, jobs.Done, job.State, "%v", states)
	assert.Equal(t, 1, job.Attempts)
	assert.Equal(t, "test", job.Worker)
	sum := sha256.Sum256([]byte("audio of one"))
	assert.Equal(t, &jobs.Audio{ContentType: "audio/test", Bytes: 12, Seconds: 1.5, SHA256: hex.EncodeToString(sum[:])}, job.Audio)
	assert.Equal(t, "audio of one", audio(t, q, job.ID))
}

func TestTheSameOrderIsTheSameJob(t *testing.T) {
	url, _ := startNATS(t)
	q := open(t, config(t, url))
	job := submit(t, q, "one")
	for range 3 { // while it waits
		again, created, err := q.Submit(t.Context(), "m", []byte("one"))
		require.NoError(t, err)
		assert.False(t, created)
		assert.Equal(t, job.ID, again.ID)
	}
	var submitting sync.WaitGroup
	var mu sync.Mutex
	news := 0
	for range 8 { // at one time
		submitting.Go(func() {
			_, created, err := q.Submit(t.Context(), "m", []byte("two"))
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			if created {
				news++
			}
		})
	}
	submitting.Wait()
	assert.Equal(t, 1, news)
	s := &speaker{}
	work(t, q, 2, s)
	for _, order := range []string{"one", "two"} {
		done, _ := ended(t, q, jobs.ID([]byte(order)))
		assert.Equal(t, jobs.Done, done.State)
		again, created, err := q.Submit(t.Context(), "m", []byte(order)) // when it is done
		require.NoError(t, err)
		assert.False(t, created)
		assert.Equal(t, jobs.Done, again.State)
	}
	submit(t, q, "last")
	ended(t, q, jobs.ID([]byte("last")))
	assert.Equal(t, 1, s.count("one"))
	assert.Equal(t, 1, s.count("two"))
}

func TestAWorkerThatStopsGivesItsJobBackAtOnce(t *testing.T) {
	url, _ := startNATS(t)
	cfg := config(t, url)
	cfg.Lease = time.Hour // only what is given back is spoken again
	q := open(t, cfg)
	job := submit(t, q, "one")
	begun := make(chan struct{})
	stop := work(t, q, 1, &speaker{work: func(ctx context.Context, _ string, _ int, _ func(jobs.Progress)) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}})
	<-begun
	stop()
	job, err := q.Get(t.Context(), job.ID)
	require.NoError(t, err)
	assert.Equal(t, jobs.Queued, job.State)
	assert.Zero(t, job.Attempts)
	assert.Equal(t, "worker_stopped", job.Error.Code)
	work(t, q, 1, &speaker{})
	job, _ = ended(t, q, job.ID)
	assert.Equal(t, jobs.Done, job.State)
	assert.Nil(t, job.Error)
}

// A worker that hangs without a sign of life, and comes back when another one has the job, must leave it alone.
func TestAWorkerThatComesBackLateIsRefused(t *testing.T) {
	url, _ := startNATS(t)
	late := config(t, url)
	late.Worker, late.Lease = "late", time.Hour
	first := open(t, late)
	job := submit(t, first, "one")
	hung, goOn := make(chan struct{}), make(chan struct{})
	gone := make(chan error, 1)
	stopFirst := work(t, first, 1, &speaker{work: func(ctx context.Context, _ string, call int, progress func(jobs.Progress)) error {
		if call > 1 {
			return errors.New("the late worker has it twice")
		}
		close(hung)
		<-goOn
		progress(jobs.Progress{Stage: "late"})
		<-ctx.Done()
		gone <- context.Cause(ctx)
		return ctx.Err()
	}})
	<-hung
	steal(t, url, job.ID) // as if the lease had run out
	close(goOn)
	require.ErrorContains(t, <-gone, "another worker")
	stopFirst()
	got, err := first.Get(t.Context(), job.ID)
	require.NoError(t, err)
	assert.Equal(t, "thief", got.Worker, "the record is the other worker's")
	assert.Equal(t, jobs.Running, got.State)
}

func TestFailuresEndOrPass(t *testing.T) {
	url, _ := startNATS(t)
	q := open(t, config(t, url))
	s := &speaker{work: func(_ context.Context, order string, call int, _ func(jobs.Progress)) error {
		switch {
		case order == "wrong":
			return &jobs.Failure{Code: "invalid_value", Message: "No."}
		case order == "busy" && call < 6: // more often than attempts: it does not count
			return &jobs.Failure{Code: "overloaded", Message: "Later.", RetryAfter: time.Millisecond}
		case order == "broken":
			return errors.New("disk full")
		}
		return nil
	}}
	for _, order := range []string{"wrong", "busy", "broken"} {
		submit(t, q, order)
	}
	work(t, q, 3, s)
	wrong, _ := ended(t, q, jobs.ID([]byte("wrong")))
	assert.Equal(t, jobs.Failed, wrong.State)
	assert.Equal(t, "invalid_value", wrong.Error.Code)
	busy, _ := ended(t, q, jobs.ID([]byte("busy")))
	assert.Equal(t, jobs.Done, busy.State)
	assert.Equal(t, 6, s.count("busy"))
	broken, _ := ended(t, q, jobs.ID([]byte("broken")))
	assert.Equal(t, jobs.Failed, broken.State)
	assert.Equal(t, "internal_error", broken.Error.Code)
	assert.Equal(t, 3, s.count("broken"))

	s.mu.Lock()
	s.work = nil
	s.mu.Unlock()
	_, created, err := q.Submit(t.Context(), "m", []byte("wrong"))
	require.NoError(t, err)
	assert.True(t, created, "a failed one may be ordered again")
	wrong, _ = ended(t, q, wrong.ID)
	assert.Equal(t, jobs.Done, wrong.State)
}

func TestProgressIsTold(t *testing.T) {
	url, _ := startNATS(t)
	q := open(t, config(t, url))
	job := submit(t, q, "one")
	told, goOn := make(chan struct{}), make(chan struct{})
	work(t, q, 1, &speaker{work: func(_ context.Context, _ string, _ int, progress func(jobs.Progress)) error {
		progress(jobs.Progress{Piece: 1, Pieces: 2, Stage: "coarse", Done: 3, Total: 4})
		close(told)
		<-goOn
		return nil
	}})
	<-told
	got, err := q.Get(t.Context(), job.ID)
	require.NoError(t, err)
	assert.Equal(t, &jobs.Progress{Piece: 1, Pieces: 2, Stage: "coarse", Done: 3, Total: 4}, got.Progress)
	close(goOn)
	_, states := ended(t, q, job.ID)
	assert.Equal(t, jobs.Done, states[len(states)-1])
}

func TestAFullQueueAndOneThatIsGoneSaySo(t *testing.T) {
	url, stop := startNATS(t)
	cfg := config(t, url)
	cfg.MaxQueued = 2
	q := open(t, cfg)
	submit(t, q, "one")
	submit(t, q, "two")
	_, _, err := q.Submit(t.Context(), "m", []byte("three"))
	require.ErrorIs(t, err, jobs.ErrFull)
	_, err = q.Get(t.Context(), jobs.ID([]byte("three")))
	require.ErrorIs(t, err, jobs.ErrNotFound, "nothing is left of it")
	_, created, err := q.Submit(t.Context(), "m", []byte("one"))
	require.NoError(t, err)
	assert.False(t, created)
	for _, id := range []string{"none", "../x", "a b", ""} {
		_, err = q.Get(t.Context(), id)
		require.ErrorIs(t, err, jobs.ErrNotFound, id)
	}
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err = q.Submit(ctx, "m", []byte("four"))
	require.ErrorIs(t, err, jobs.ErrUnavailable)
}

func TestJobsAndWorkersOutliveARestartOfNATS(t *testing.T) {
	dir := t.TempDir()
	first := runNATS(t, dir, -1) // any port
	q := open(t, config(t, first.url))
	begun := make(chan struct{}, 1)
	s := &speaker{work: func(ctx context.Context, order string, call int, _ func(jobs.Progress)) error {
		if order == "under way" && call == 1 {
			begun <- struct{}{}
			<-ctx.Done()
		}
		return ctx.Err()
	}}
	stop := work(t, q, 1, s)
	submit(t, q, "under way")
	<-begun
	submit(t, q, "waiting")
	first.stop()
	stop() // it cannot say that it gives the job back
	runNATS(t, dir, first.port)
	work(t, q, 1, s)
	for _, order := range []string{"under way", "waiting"} {
		require.Eventually(t, func() bool {
			job, err := q.Get(t.Context(), jobs.ID([]byte(order)))
			return err == nil && job.State == jobs.Done
		}, time.Minute, 10*time.Millisecond, order)
		assert.Equal(t, "audio of "+order, audio(t, q, jobs.ID([]byte(order))))
	}
}
