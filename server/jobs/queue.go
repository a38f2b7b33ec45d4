package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// The names in JetStream. What an operator has made under them (with replicas, say) is used as it is.
const (
	streamName   = "BARKD_JOBS"
	bucketName   = "barkd-jobs"
	consumerName = "workers"
	subject      = "barkd.jobs."
)

// Config of a Queue.
type Config struct {
	URL         string        // of NATS, with credentials: nats://user:password@host:4222, tls://…
	Credentials string        // a .creds file, "" for none
	Worker      string        // this server's name, for the records
	Lease       time.Duration // after which a silent worker counts as dead
	MaxAttempts int
	MaxQueued   int64
	Keep        time.Duration // of records
	Results     Results
	Log         zerolog.Logger
}

// Queue takes orders and, with Work, speaks them. Its methods may be called from any goroutine.
type Queue struct {
	cfg      Config
	conn     *nats.Conn
	js       jetstream.JetStream
	records  jetstream.KeyValue
	consumer jetstream.Consumer
}

// Open connects, and makes what is missing in JetStream. The caller must Close the queue.
func Open(ctx context.Context, cfg Config) (*Queue, error) {
	options := []nats.Option{nats.Name("barkd " + cfg.Worker), nats.MaxReconnects(-1)}
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	conn, err := nats.Connect(cfg.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	q := &Queue{cfg: cfg, conn: conn}
	if err := q.prepare(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prepare JetStream: %w", err)
	}
	return q, nil
}

func (q *Queue) prepare(ctx context.Context) (err error) {
	if q.js, err = jetstream.New(q.conn); err != nil {
		return err
	}
	stream, err := q.js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: streamName, Subjects: []string{subject + "*"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
			MaxMsgs: q.cfg.MaxQueued, MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		})
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", streamName, err)
	}
	q.records, err = q.js.KeyValue(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		q.records, err = q.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucketName, TTL: q.cfg.Keep, Storage: jetstream.FileStorage})
	}
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucketName, err)
	}
	q.consumer, err = stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: consumerName, AckPolicy: jetstream.AckExplicitPolicy, AckWait: q.cfg.Lease, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("consumer %s: %w", consumerName, err)
	}
	return nil
}

// Close disconnects. No Work may be running.
func (q *Queue) Close() { q.conn.Close() }

// ID is the job of an order: the same order is the same job.
func ID(order []byte) string {
	sum := sha256.Sum256(order)
	return hex.EncodeToString(sum[:16])
}

// Submit takes an order; it must say all that the audio depends on, the seed, too. A job that there is already is
// returned as it is, but for one that failed: it is tried again.
func (q *Queue) Submit(ctx context.Context, model string, order []byte) (job Job, created bool, err error) {
	id := ID(order)
	fresh := Job{ID: id, Object: "audio.job", State: Queued, Model: model, CreatedAt: time.Now().UTC()}
	job, revision, err := q.read(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		revision, err = q.records.Create(ctx, id, encode(fresh))
		if errors.Is(err, jetstream.ErrKeyExists) { // somebody else's, just now
			job, _, err = q.read(ctx, id)
			return job, false, err
		}
		job, created = fresh, true
	case err == nil && job.State == Failed:
		revision, err = q.records.Update(ctx, id, encode(fresh), revision)
		job, created = fresh, true
	case err == nil && job.State != Queued:
		return job, false, nil
	}
	if err != nil {
		return Job{}, false, unavailable(err)
	}
	// A job that is queued is sent again: the server that made its record may have died before it sent it.
	_, err = q.js.Publish(ctx, subject+id, order)
	switch {
	case err == nil || isThere(err):
		return job, created, nil
	case created:
		forget := q.records.Delete(context.WithoutCancel(ctx), id, jetstream.LastRevision(revision))
		err = errors.Join(err, forget)
	}
	if isFull(err) {
		return Job{}, false, ErrFull
	}
	return Job{}, false, unavailable(err)
}

// isThere says whether the stream refused a message because it has that job's already, isFull because it has too many.
func isThere(err error) bool { return refused(err, "per subject") }
func isFull(err error) bool  { return refused(err, "maximum messages exceeded") }

func refused(err error, why string) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && strings.Contains(api.Description, why)
}

// Get returns a job; ErrNotFound when there is none of that id.
func (q *Queue) Get(ctx context.Context, id string) (Job, error) {
	job, _, err := q.read(ctx, id)
	return job, err
}

func (q *Queue) read(ctx context.Context, id string) (Job, uint64, error) {
	entry, err := q.records.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return Job{}, 0, ErrNotFound
	}
	if err != nil {
		return Job{}, 0, unavailable(err)
	}
	var job Job
	if err := json.Unmarshal(entry.Value(), &job); err != nil {
		return Job{}, 0, fmt.Errorf("the record of job %s: %w", id, err)
	}
	return job, entry.Revision(), nil
}

// Audio returns the audio of a job that is done. The caller must close it.
func (q *Queue) Audio(ctx context.Context, id string) (io.ReadCloser, int64, error) {
	return q.cfg.Results.Get(ctx, id)
}

// Watch calls tell with the job as it is and with every change, until it has ended, ctx has, or tell fails.
func (q *Queue) Watch(ctx context.Context, id string, tell func(Job) error) error {
	if _, err := q.Get(ctx, id); err != nil {
		return err
	}
	watcher, err := q.records.Watch(ctx, id)
	if err != nil {
		return unavailable(err)
	}
	defer func() { _ = watcher.Stop() }() // it ends with ctx, too
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			if !ok {
				return ErrUnavailable
			}
			if entry == nil {
				continue // what was is told
			}
			if entry.Operation() != jetstream.KeyValuePut {
				return ErrNotFound
			}
			var job Job
			if err := json.Unmarshal(entry.Value(), &job); err != nil {
				return fmt.Errorf("the record of job %s: %w", id, err)
			}
			if err := tell(job); err != nil || job.State.Ended() {
				return err
			}
		}
	}
}

// encode makes a record; a Job holds nothing that JSON cannot.
func encode(job Job) []byte {
	text, err := json.Marshal(job)
	if err != nil {
		panic(fmt.Sprintf("jobs: encode a record: %v", err))
	}
	return text
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
