package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"barkd/server/jobs"
)

// jobFlags say where jobs are taken from and what becomes of them.
type jobFlags struct {
	JobsNATS         string `name:"jobs-nats" var:"JOBS_NATS" secret:"" placeholder:"URL" help:"NATS server with JetStream, for /v1/audio/jobs: nats://user:password@host:4222."`
	JobsNATSCreds    string `name:"jobs-nats-creds" var:"JOBS_NATS_CREDS" placeholder:"FILE" help:"Credentials for it."`
	JobsResults      string `var:"JOBS_RESULTS" placeholder:"DIR" help:"Where the audio of jobs is kept: a folder that all servers share, or s3://bucket/prefix (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."`
	JobsWorkers      string `var:"JOBS_WORKERS" default:"1" placeholder:"1" help:"Jobs that this server speaks at one time; 0 only takes them."`
	JobsLeaseSeconds string `var:"JOBS_LEASE_SECONDS" default:"30" placeholder:"30" help:"A worker that is silent for so long is dead, and its job goes to another."`
	JobsMaxAttempts  string `var:"JOBS_MAX_ATTEMPTS" default:"3" placeholder:"3" help:"How often a job is begun that kills its workers."`
	JobsMaxQueued    string `var:"JOBS_MAX_QUEUED" default:"10000" placeholder:"10000" help:"Most jobs that wait; more are answered 503."`
	JobsKeepHours    string `var:"JOBS_KEEP_HOURS" default:"168" placeholder:"168" help:"How long a job is known after its last change."`
}

// jobConfig is jobFlags, checked.
type jobConfig struct {
	queue   jobs.Config
	results string
	workers int
}

func (f jobFlags) read(s *settings) jobConfig {
	cfg := jobConfig{results: f.JobsResults, workers: s.integer("JOBS_WORKERS", f.JobsWorkers, 0, 1024)}
	cfg.queue = jobs.Config{
		URL: f.JobsNATS, Credentials: f.JobsNATSCreds,
		Lease:       s.seconds("JOBS_LEASE_SECONDS", f.JobsLeaseSeconds, 1),
		MaxAttempts: s.integer("JOBS_MAX_ATTEMPTS", f.JobsMaxAttempts, 1, 1000),
		MaxQueued:   int64(s.integer("JOBS_MAX_QUEUED", f.JobsMaxQueued, 1, math.MaxInt32)),
		Keep:        time.Duration(s.integer("JOBS_KEEP_HOURS", f.JobsKeepHours, 1, 24*3650)) * time.Hour,
	}
	if (f.JobsNATS == "") != (f.JobsResults == "") {
		s.problems = append(s.problems, "JOBS_NATS and JOBS_RESULTS need each other")
	}
	return cfg
}

// jobsPatience bounds the start: NATS and the results must answer within.
const jobsPatience = 15 * time.Second

// open connects; without JOBS_NATS there is no queue.
func (cfg jobConfig) open(ctx context.Context, env func(string) string, log zerolog.Logger) (*jobs.Queue, error) {
	if cfg.queue.URL == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, jobsPatience)
	defer cancel()
	var err error
	if cfg.queue.Results, err = jobs.OpenResults(ctx, cfg.results, env); err != nil {
		return nil, fmt.Errorf("JOBS_RESULTS: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	cfg.queue.Worker, cfg.queue.Log = fmt.Sprintf("%s/%d", host, os.Getpid()), log
	queue, err := jobs.Open(ctx, cfg.queue)
	if err != nil {
		return nil, fmt.Errorf("JOBS_NATS: %w", err)
	}
	return queue, nil
}

// work speaks jobs in the background until ctx ends or the returned function is called, which waits for it.
func work(ctx context.Context, queue *jobs.Queue, workers int, speaker jobs.Speaker) (handOff func()) {
	if queue == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { queue.Work(ctx, workers, speaker) })
	return func() {
		cancel()
		working.Wait()
	}
}
