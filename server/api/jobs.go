package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/server/jobs"
)

// Jobs takes orders that nobody waits for; *jobs.Queue is one.
type Jobs interface {
	Submit(ctx context.Context, model string, order []byte) (job jobs.Job, created bool, err error)
	Get(ctx context.Context, id string) (jobs.Job, error)
	Watch(ctx context.Context, id string, tell func(jobs.Job) error) error
	Audio(ctx context.Context, id string) (io.ReadCloser, int64, error)
}

// jobsPatience bounds the wait for the job queue.
const jobsPatience = 10 * time.Second

// withJobs guards a route that needs the queue.
func (s *Server) withJobs(next fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if s.Jobs == nil {
			return &Error{Status: fiber.StatusNotImplemented, Type: typeServer, Code: "jobs_off",
				Message: "This server takes no jobs: it runs without JOBS_NATS."}
		}
		return next(c)
	}
}

// addJob is POST /v1/audio/jobs: 202 for a new job, 200 for one that there is already.
func (s *Server) addJob(c *fiber.Ctx) error {
	body, err := s.jsonBody(c)
	if err != nil {
		return err
	}
	order, err := parseSpeech(body)
	if err != nil {
		return err
	}
	if order.delivery != deliverAuto {
		return badRequest("stream_format", "invalid_value", "%q is not for jobs: their audio comes whole.", "stream_format")
	}
	model, err := modelOf(c, order.request.Model)
	if err != nil {
		return err
	}
	if _, err := s.find(c, model); err != nil {
		return err
	}
	complete, err := completeOrder(body, model)
	if err != nil {
		return err
	}
	leave, err := s.admit(c, &order)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(s.base, jobsPatience)
	defer cancel()
	job, created, err := s.Jobs.Submit(ctx, model, complete)
	if err != nil {
		return jobError(err)
	}
	c.Set(fiber.HeaderLocation, "/v1/audio/jobs/"+job.ID)
	c.Set(headerModel, model)
	if created {
		c.Status(fiber.StatusAccepted)
	}
	return c.JSON(job)
}

// completeOrder is the order with all that its audio depends on, always in the same form: with the model and a seed. A
// seed that the client leaves open comes from the order itself, so that the same order is the same job.
func completeOrder(body []byte, model string) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, notJSON("object", err)
	}
	var raw map[string]json.RawMessage // numbers as they are written: a seed has more digits than a float64
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, notJSON("object", err)
	}
	for name, value := range fields {
		if value == nil {
			delete(raw, name)
		}
	}
	var err error
	if raw["model"], err = json.Marshal(model); err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	if _, given := raw["seed"]; given {
		return text, nil
	}
	sum := sha256.Sum256(text)
	raw["seed"] = fmt.Appendf(nil, "%d", binary.BigEndian.Uint64(sum[:])>>11) // 53 bits, which every JSON reader keeps exact
	if text, err = json.Marshal(raw); err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	return text, nil
}

// job is GET /v1/audio/jobs/{id}; as an event stream for clients that accept one: the job as it is, then every change
// until it has ended.
func (s *Server) job(c *fiber.Ctx) error {
	job, err := s.findJob(c)
	if err != nil {
		return err
	}
	if !wantsEvents(c) {
		return c.JSON(job)
	}
	ctx, stop := s.clientContext(c)
	sendEvents(c, stop, func(w *bufio.Writer) { s.streamJob(ctx, w, job.ID) })
	return nil
}

func (s *Server) findJob(c *fiber.Ctx) (jobs.Job, error) {
	ctx, cancel := context.WithTimeout(s.base, jobsPatience)
	defer cancel()
	job, err := s.Jobs.Get(ctx, string([]byte(c.Params("id"))))
	if err != nil {
		return jobs.Job{}, jobError(err)
	}
	return job, nil
}

// streamJob sends a job's changes until it has ended, the client is gone or the server shuts down.
func (s *Server) streamJob(ctx context.Context, w *bufio.Writer, id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := make(chan jobs.Job)
	watched := make(chan error, 1)
	go func() {
		watched <- s.Jobs.Watch(ctx, id, func(job jobs.Job) error {
			select {
			case changes <- job:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	alive := time.NewTicker(keepAliveEvery)
	defer alive.Stop()
	for err := error(nil); err == nil; {
		select {
		case job := <-changes:
			err = sendEvent(w, "audio.job", "", job)
		case <-alive.C:
			err = sendComment(w, "alive")
		case <-s.leaving:
			cancel()
			err = errDraining
		case <-watched:
			return
		}
	}
	cancel()
	<-watched
}

// jobAudio is GET /v1/audio/jobs/{id}/audio.
func (s *Server) jobAudio(c *fiber.Ctx) error {
	job, err := s.findJob(c)
	if err != nil {
		return err
	}
	if job.State != jobs.Done {
		e := &Error{Status: fiber.StatusConflict, Type: typeInvalid, Code: "job_not_done", Message: "The job is " + string(job.State) + ": it has no audio."}
		if !job.State.Ended() {
			e.RetryAfter = retrySoon
		}
		return e
	}
	audio, size, err := s.Jobs.Audio(s.base, job.ID)
	if err != nil {
		return jobError(err)
	}
	c.Set(fiber.HeaderContentType, job.Audio.ContentType)
	c.Set(fiber.HeaderETag, `"`+job.Audio.SHA256+`"`)
	c.Set(headerModel, job.Model)
	c.Context().Response.SetBodyStream(audio, int(size))
	return nil
}

// jobError says what the queue's error is to a client.
func jobError(err error) error {
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return &Error{Status: fiber.StatusNotFound, Type: typeInvalid, Param: "id", Code: "job_not_found", Message: "There is no such job, or not any more.", err: err}
	case errors.Is(err, jobs.ErrFull):
		return unavailable("overloaded", "Too many jobs are waiting.", retrySoon, err)
	case errors.Is(err, jobs.ErrUnavailable):
		return unavailable("jobs_unavailable", "The job queue does not answer.", retrySoon, err)
	}
	return err
}
