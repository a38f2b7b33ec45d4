package jobs

import (
	"errors"
	"fmt"
	"time"
)

// State of a job.
type State string

// The states: queued → running → done or failed; running → queued when its worker gives it back.
const (
	Queued  State = "queued"
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
)

// Ended says whether nothing more will happen to the job, unless a failed one is ordered again.
func (s State) Ended() bool { return s == Done || s == Failed }

// Job is the record of an order, as clients see it.
type Job struct {
	ID        string     `json:"id"`
	Object    string     `json:"object"` // "audio.job"
	State     State      `json:"state"`
	Model     string     `json:"model"`
	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"` // by the last worker
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Attempts  int        `json:"attempts"` // begun, those that were given back not counted
	Worker    string     `json:"worker,omitempty"`
	Progress  *Progress  `json:"progress,omitempty"` // while it runs
	Audio     *Audio     `json:"audio,omitempty"`    // of a job that is done
	Error     *Failure   `json:"error,omitempty"`    // of one that failed, or why it was given back last
}

// Progress of a running job.
type Progress struct {
	Piece  int    `json:"piece"` // from 1
	Pieces int    `json:"pieces"`
	Stage  string `json:"stage"`
	Done   int    `json:"done"`
	Total  int    `json:"total"`
}

// Audio describes the result.
type Audio struct {
	ContentType string  `json:"content_type"`
	Bytes       int64   `json:"bytes"`
	Seconds     float64 `json:"seconds"`
	SHA256      string  `json:"sha256"`
}

// Failure is why an order could not be spoken. One with a RetryAfter passes by itself: the job is given back.
type Failure struct {
	Code       string        `json:"code"`
	Message    string        `json:"message"`
	RetryAfter time.Duration `json:"-"`
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %s", f.Code, f.Message) }

var (
	// ErrNotFound is about a job that there is not, or not any more.
	ErrNotFound = errors.New("there is no such job")
	// ErrFull is about an order that the stream has no room for.
	ErrFull = errors.New("too many jobs are waiting")
	// ErrUnavailable is wrapped by what goes wrong between here and NATS.
	ErrUnavailable = errors.New("the job queue does not answer")

	errTaken = errors.New("another worker has the job")
)
