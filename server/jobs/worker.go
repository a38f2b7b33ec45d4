package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Speaker speaks an order into a file. A *Failure is why it cannot; any other error counts as an attempt.
type Speaker interface {
	SpeakJob(ctx context.Context, id string, order []byte, to io.WriteSeeker, progress func(Progress)) (contentType string, seconds float64, err error)
}

const (
	progressEvery = 500 * time.Millisecond
	fetchPatience = 5 * time.Second // with NATS for a message, before it is asked again
	closePatience = 5 * time.Second // for the last words about a job when the worker stops
)

// Work speaks jobs, n at a time, until ctx ends; then it gives back what it has and returns.
func (q *Queue) Work(ctx context.Context, n int, speaker Speaker) {
	var slots sync.WaitGroup
	for range n {
		slots.Go(func() {
			for ctx.Err() == nil {
				q.next(ctx, speaker)
			}
		})
	}
	slots.Wait()
}

// next waits for one job and speaks it.
func (q *Queue) next(ctx context.Context, speaker Speaker) {
	fetch, stop := context.WithTimeout(ctx, fetchPatience)
	defer stop()
	message, err := q.consumer.Next(jetstream.FetchContext(fetch))
	if err != nil {
		if fetch.Err() == nil { // neither nothing to do nor the end
			q.cfg.Log.Warn().Err(err).Msg("the job queue does not answer")
			<-fetch.Done() // not again before the patience is over
		}
		return
	}
	stop()
	a := &attempt{queue: q, message: message, id: message.Subject()[len(subject):]}
	if err := a.run(ctx, speaker); err != nil {
		q.cfg.Log.Warn().Err(err).Str("job", a.id).Msg("job not ended")
	}
}

// attempt is one try at a job.
type attempt struct {
	queue   *Queue
	message jetstream.Msg
	id      string

	mu       sync.Mutex // guards job, revision and told
	job      Job
	revision uint64
	told     time.Time // when progress was last written
}

// run returns nil when the message is dealt with.
func (a *attempt) run(ctx context.Context, speaker Speaker) error {
	var err error
	a.job, a.revision, err = a.queue.read(ctx, a.id)
	switch {
	case errors.Is(err, ErrNotFound): // too old: nobody can ask for it any more
		return a.message.Term()
	case err != nil:
		return err
	case a.job.State.Ended():
		return a.message.DoubleAck(ctx)
	}
	if a.job.Attempts >= a.queue.cfg.MaxAttempts {
		return a.end(ctx, Failed, func(j *Job) {
			j.Error = &Failure{Code: "attempts", Message: fmt.Sprintf("It was begun %d times and never ended: its workers died of it, or were killed.", j.Attempts)}
		})
	}
	now := time.Now().UTC()
	if err := a.write(ctx, func(j *Job) {
		j.State, j.StartedAt, j.Worker, j.Attempts, j.Progress, j.Error = Running, &now, a.queue.cfg.Worker, j.Attempts+1, nil, nil
	}); err != nil {
		if ctx.Err() != nil { // not begun: any other worker may have it at once
			return a.message.Nak()
		}
		return err // another worker has it, and will acknowledge it
	}
	speaking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := a.stayAlive(speaking)
	audio, err := a.speak(speaking, cancel, speaker)
	cancel(nil)
	alive.Wait()
	if errors.Is(context.Cause(speaking), errTaken) {
		return errTaken
	}
	return a.settle(ctx, audio, err)
}

// settle says how the try went. It goes on for a while after ctx has ended.
func (a *attempt) settle(ctx context.Context, audio *Audio, err error) error {
	stopped := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
	defer cancel()
	var failure *Failure
	switch {
	case err == nil:
		return a.end(ctx, Done, func(j *Job) { j.Audio = audio })
	case stopped:
		return a.giveBack(ctx, &Failure{Code: "worker_stopped", Message: "Its worker was stopped; another one goes on."}, 0)
	case errors.As(err, &failure) && failure.RetryAfter > 0:
		return a.giveBack(ctx, failure, failure.RetryAfter)
	case errors.As(err, &failure):
		return a.end(ctx, Failed, func(j *Job) { j.Error = failure })
	case a.job.Attempts >= a.queue.cfg.MaxAttempts:
		a.queue.cfg.Log.Error().Err(err).Str("job", a.id).Msg("job failed")
		return a.end(ctx, Failed, func(j *Job) {
			j.Error = &Failure{Code: "internal_error", Message: "The worker failed; its log says more under the job's id."}
		})
	}
	a.queue.cfg.Log.Warn().Err(err).Str("job", a.id).Msg("job tried again")
	return errors.Join(a.write(ctx, func(j *Job) { j.State, j.Progress = Queued, nil }), a.message.NakWithDelay(a.queue.cfg.Lease))
}

// end writes the last state, then acknowledges: a message whose record has ended is never spoken again.
func (a *attempt) end(ctx context.Context, state State, set func(*Job)) error {
	now := time.Now().UTC()
	if err := a.write(ctx, func(j *Job) {
		j.State, j.EndedAt, j.Progress = state, &now, nil
		set(j)
	}); err != nil {
		return err
	}
	a.queue.cfg.Log.Info().Str("job", a.id).Str("model", a.job.Model).Str("state", string(state)).Int("attempts", a.job.Attempts).Msg("job ended")
	return a.message.DoubleAck(ctx)
}

// giveBack leaves the job to any worker, after a delay; the try does not count.
func (a *attempt) giveBack(ctx context.Context, why *Failure, after time.Duration) error {
	err := a.write(ctx, func(j *Job) { j.State, j.Progress, j.Error, j.Attempts = Queued, nil, why, j.Attempts-1 })
	if err != nil {
		return err
	}
	return a.message.NakWithDelay(after)
}

// write changes the record if nobody else has since this attempt wrote it last.
func (a *attempt) write(ctx context.Context, change func(*Job)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	job := a.job
	change(&job)
	revision, err := a.queue.records.Update(ctx, a.id, encode(job), a.revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return errTaken
	}
	if err != nil {
		return unavailable(err)
	}
	a.job, a.revision = job, revision
	return nil
}

// stayAlive keeps the message from going to another worker, until ctx ends.
func (a *attempt) stayAlive(ctx context.Context) *sync.WaitGroup {
	var beating sync.WaitGroup
	beating.Go(func() {
		tick := time.NewTicker(a.queue.cfg.Lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := a.message.InProgress(); err != nil {
					a.queue.cfg.Log.Warn().Err(err).Str("job", a.id).Msg("the job queue has not heard that a job goes on")
				}
			}
		}
	})
	return &beating
}

// speak makes the audio and stores it.
func (a *attempt) speak(ctx context.Context, cancel context.CancelCauseFunc, speaker Speaker) (_ *Audio, err error) {
	file, err := os.CreateTemp("", "barkd-job-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	contentType, seconds, err := speaker.SpeakJob(ctx, a.id, a.message.Data(), file, func(p Progress) { a.tell(ctx, cancel, p) })
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := a.queue.cfg.Results.Put(ctx, a.id, contentType, file, size); err != nil {
		return nil, fmt.Errorf("store the audio: %w", err)
	}
	return &Audio{ContentType: contentType, Bytes: size, Seconds: seconds, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// tell writes the progress, now and then. A worker that has lost its job stops.
func (a *attempt) tell(ctx context.Context, cancel context.CancelCauseFunc, p Progress) {
	a.mu.Lock()
	recent := time.Since(a.told) < progressEvery
	if !recent {
		a.told = time.Now()
	}
	a.mu.Unlock()
	if recent {
		return
	}
	err := a.write(ctx, func(j *Job) { j.Progress = &p })
	if errors.Is(err, errTaken) {
		cancel(errTaken)
	} else if err != nil && ctx.Err() == nil {
		a.queue.cfg.Log.Debug().Err(err).Str("job", a.id).Msg("progress not written")
	}
}
