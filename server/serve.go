package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/memwatch"
	"barkd/server/api"
	"barkd/server/models"
	"barkd/server/speech"
)

// closePatience bounds the wait for models to be freed once every request has ended.
const closePatience = 10 * time.Second

// serveCommand is `barkd serve`. Its settings are texts until config has looked at all of them.
type serveCommand struct {
	runtimeFlags
	Host                  string `var:"HOST" placeholder:"ADDR" help:"Address to listen on; default is all."`
	Port                  string `var:"PORT" default:"8000" placeholder:"8000" help:"Port to listen on; 0 picks one."`
	MaxCachedModels       string `var:"MAX_CACHED_MODELS" default:"3" placeholder:"3" help:"Most models in memory."`
	MaxConcurrentRequests string `var:"MAX_CONCURRENT_REQUESTS" default:"2" placeholder:"2" help:"Most requests that speak at one time."`
	MaxQueuedRequests     string `var:"MAX_QUEUED_REQUESTS" default:"32" placeholder:"32" help:"Most requests that wait; more are answered 503."`
	CacheWarmupEnabled    string `var:"CACHE_WARMUP_ENABLED" default:"true" placeholder:"true" help:"Load models at start, in the background."`
	WarmupModels          string `var:"WARMUP_MODELS" default:"suno/bark-small,suno/bark" placeholder:"ID,ID" help:"Which; those not on this machine are skipped."`
	MemoryThresholdGB     string `name:"memory-threshold-gb" var:"MEMORY_THRESHOLD_GB" default:"12.0" placeholder:"12.0" help:"Reported by /cache/stats."`
	ShutdownGraceSeconds  string `var:"SHUTDOWN_GRACE_SECONDS" default:"30" placeholder:"30" help:"How long running requests may finish after SIGTERM."`
	LogLevel              string `var:"LOG_LEVEL" default:"info" placeholder:"info" help:"debug, info, warn or error."`
	LogFormat             string `var:"LOG_FORMAT" default:"auto" placeholder:"auto" help:"json, console, or auto: console on a terminal."`
}

// Run serves until ctx ends, then shuts down in order: refuse new requests, let running ones finish for the grace,
// cancel them, stop the warm-up, free the models.
func (c *serveCommand) Run(ctx context.Context, io stdio) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	log := newLog(io.err, cfg.logLevel, cfg.logFormat)
	b, err := openBackend(cfg.runtime, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cfg.address)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	pool := newPool(b, cfg, log)
	server := api.New(api.Options{
		Speaker:   speech.NewService(poolModels{pool}, speech.NewAdmission(cfg.maxRunning, cfg.maxWaiting), log),
		Catalogue: b.catalogue,
		Cache:     &poolCache{pool: pool, memory: memwatch.New(), thresholdGB: cfg.thresholdGB, log: log},
		Log:       log, Version: version, Backend: b.name, DefaultModel: models.DefaultID,
	})
	warm, stopWarming := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { warmUp(warm, b, pool, cfg.warmup, log) })
	err = serve(ctx, server, listener, cfg.grace, log)
	stopWarming()
	background.Wait()
	return errors.Join(err, closePool(pool, log))
}

func newLog(w io.Writer, level zerolog.Level, format string) zerolog.Logger {
	file, ok := w.(*os.File)
	if format == "console" || format == "auto" && ok && isatty.IsTerminal(file.Fd()) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

func newPool(b *backend, cfg serverConfig, log zerolog.Logger) *cgo.Pool {
	return cgo.NewPool(b.runtime, b.resolve, cgo.PoolOptions{
		MaxModels: cfg.maxCachedModels,
		Load:      cgo.LoadOptions{Threads: cfg.runtime.threads},
		Loaded: func(id string, took time.Duration, memory cgo.Memory, err error) {
			switch {
			case err == nil:
				log.Info().Str("model", id).Dur("took_ms", took).Int64("bytes", memory.TotalBytes).Msg("model loaded")
			case errors.Is(err, cgo.ErrNotFound) || errors.Is(err, context.Canceled): // its request's line says it
				log.Debug().Str("model", id).Err(err).Msg("model not loaded")
			default:
				log.Error().Str("model", id).Err(err).Msg("model not loaded")
			}
		},
		Freed: func(id string, err error) {
			if err != nil {
				log.Error().Str("model", id).Err(err).Msg("model not freed")
				return
			}
			log.Info().Str("model", id).Msg("model freed")
		},
	})
}

// serve answers until ctx ends and every request is answered.
func serve(ctx context.Context, server *api.Server, listener net.Listener, grace time.Duration, log zerolog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info().Str("address", listener.Addr().String()).Str("version", version).Str("backend", server.Backend).Msg("serving")
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info().Dur("grace_ms", grace).Msg("shutting down")
	patience, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(server.Shutdown(patience), <-served)
}

func closePool(pool *cgo.Pool, log zerolog.Logger) error {
	patience, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	if err := pool.Close(patience); err != nil {
		return err
	}
	log.Info().Msg("stopped")
	return nil
}

// warmUp loads the models that are to be there before the first request. What is missing is a warning: the server is
// useful without it.
func warmUp(ctx context.Context, b *backend, pool *cgo.Pool, ids []string, log zerolog.Logger) {
	announceUntrained(ctx, b, log)
	var known []string
	for _, id := range ids {
		if _, err := b.catalogue.Find(ctx, id); err != nil {
			skipped := log.Warn().Str("model", id)
			if errors.Is(err, cgo.ErrNotFound) {
				skipped.Msgf("warm-up skips a model that is not on this machine; 'barkd pull %s' fetches it", id)
			} else {
				skipped.Err(err).Msg("warm-up skips a model")
			}
			continue
		}
		known = append(known, id)
	}
	for _, result := range pool.Warmup(ctx, known) {
		if result.Err != nil && ctx.Err() == nil {
			log.Warn().Str("model", result.ID).Err(result.Err).Msg("warm-up failed")
		}
	}
}

// announceUntrained warns of a default model that cannot speak yet.
func announceUntrained(ctx context.Context, b *backend, log zerolog.Logger) {
	m, err := b.catalogue.Find(ctx, models.DefaultID)
	switch {
	case err != nil:
		log.Error().Err(err).Msg("the embedded model cannot be used")
	case !m.Trained:
		log.Warn().Str("model", m.ID).Msg("the embedded model is untrained: it makes noise, not speech")
	}
}
