package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
	"barkd/server/metrics"
	"barkd/server/models"
	"barkd/server/speech"
)

// closePatience bounds the wait for models to be freed once every request has ended.
const closePatience = 10 * time.Second

// house is everything behind the API: the pool of models and those who look after it.
type house struct {
	backend *backend
	cfg     serverConfig
	log     zerolog.Logger
	pool    *cgo.Pool
	speaker *speech.Sharing
	digests *digests

	admission *speech.Admission
	machine   *machine
	lost      chan cgo.Loss // with room for all devices
	warmup    *cgo.Warmup
	metrics   *metrics.Metrics
	trace     *traceFile // nil for none
	diary     *diary
}

func openHouse(ctx context.Context, b *backend, cfg serverConfig, log zerolog.Logger) (*house, error) {
	h := &house{backend: b, cfg: cfg, log: log, metrics: metrics.New(), lost: make(chan cgo.Loss, cache.MaxPools)}
	var err error
	if h.trace, err = openTrace(cfg.cache.trace); err != nil {
		return nil, err
	}
	demand := readDemand(cfg.cache.state, log)
	if h.pool, err = h.newPool(demand); err != nil {
		return nil, errors.Join(err, h.trace.close())
	}
	h.diary = keepDiary(h.pool, log)
	if err := h.pin(ctx); err != nil {
		return nil, errors.Join(err, h.close())
	}
	h.admission = speech.NewAdmission(cfg.admission)
	service := speech.NewService(poolModels{h.pool, b.resolve}, h.admission, log)
	h.speaker = speech.NewSharing(service, h.identify, speech.NewAudioCache(cfg.cache.audioBytes))
	h.digests = newDigests(b)
	h.machine = newMachine(h.pool, h.speaker.Audio(), cfg.cache, h.metrics, log)
	wanted := cfg.cache.warmup
	if cfg.cache.learn {
		wanted = h.pool.Propose(demand)
	}
	h.warmup = cgo.NewWarmup(append(h.pool.Snapshot().Pins, wanted...))
	h.metrics.Watch(metrics.Watched{Cache: h.pool, Audio: h.speaker.Audio(), Load: h.admission.Load, Slots: h.admission.Slots, Level: h.machine.Level})
	return h, nil
}

func (h *house) newPool(demand []cache.Demand) (*cgo.Pool, error) {
	devices, err := h.backend.runtime.Devices()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	budgets, err := deviceBudgets(devices, h.cfg.cache.budgets)
	if err != nil {
		return nil, err
	}
	opts := cgo.PoolOptions{
		MaxModels:   h.cfg.cache.maxModels,
		Load:        cgo.LoadOptions{Threads: h.cfg.runtime.threads},
		Budgets:     budgets,
		Session:     cgo.SessionOptions{KV: h.cfg.cache.kv},
		KeepAlive:   h.cfg.cache.keepAlive,
		MaxWait:     h.cfg.cache.maxWait,
		LoadTimeout: h.cfg.cache.loadTimeout,
		Demand:      demand,
		Asked:       h.metrics.Asked,
		Decided:     h.metrics.Decided,
		Trace:       h.trace.add(),
		Report: func(id string, err error) {
			h.log.Error().Str("model", id).Err(err).Msg("model not freed")
		},
		Lost: func(l cgo.Loss) { h.lost <- l },
	}
	if err := h.cfg.cache.place(devices, &opts); err != nil {
		return nil, err
	}
	return cgo.NewPool(h.backend.runtime, h.backend.resolve, opts)
}

// identify implements speech.Identify.
func (h *house) identify(ctx context.Context, id string) (version string, voices []string, err error) {
	src, err := h.backend.resolve(id)
	if err != nil {
		return "", nil, err
	}
	m, err := h.backend.catalogue.Find(ctx, id)
	return src.Version, m.Voices, err
}

// start begins what runs in the background; the returned function stops it and waits for it.
func (h *house) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { h.warmUp(ctx) })
	background.Go(func() { h.tidy(ctx) })
	background.Go(func() { h.failOver(ctx) })
	h.machine.watch()
	return func() {
		cancel()
		h.machine.unwatch()
		background.Wait()
	}
}

// change puts the settings in force that can change while the server runs.
func (h *house) change(cfg serverConfig, budgets []int64) {
	h.admission.SetLimits(cfg.admission)
	h.pool.SetMaxEntries(cfg.cache.maxModels)
	for i, bytes := range budgets {
		h.pool.SetBudget(i, bytes)
	}
	h.pool.SetKeepAlive(cfg.cache.keepAlive)
	h.machine.setThreshold(cfg.cache.thresholdGB)
}

// close frees every model.
func (h *house) close() error {
	patience, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	if h.digests != nil {
		h.digests.close()
	}
	writeDemand(h.cfg.cache.state, h.pool.Demand(), h.log)
	err := errors.Join(h.pool.Close(patience), h.trace.close())
	h.diary.close()
	if err == nil {
		h.log.Info().Msg("stopped")
	}
	return err
}

// poolModels lends the pool's models to the speech service.
type poolModels struct {
	pool    *cgo.Pool
	resolve cgo.Resolver
}

// Known implements speech.Models.
func (p poolModels) Known(id string) error {
	_, err := p.resolve(id)
	return err
}

// Acquire implements speech.Models.
func (p poolModels) Acquire(ctx context.Context, id string, ask cache.Ask) (speech.Lease, error) {
	lease, err := p.pool.Acquire(ctx, id, ask)
	if err != nil {
		return nil, err
	}
	return lease, nil
}

// autoBudget is the part of a memory that models and sessions may take when nobody says otherwise.
const autoBudget = 0.8

// deviceBudgets returns the budgets by device index. Without a word about it a device gets its autoBudget: of the
// smallest limit that holds for the process where it is the host's memory.
func deviceBudgets(devices []cgo.Device, given map[string]int64) ([]int64, error) {
	out := make([]int64, len(devices))
	known := make(map[string]bool)
	for i, d := range devices {
		known[d.ID] = true
		total := d.TotalBytes
		if i == 0 {
			if r, err := memwatch.New().Read(); err == nil {
				total = r.TotalBytes
			}
		}
		out[i] = int64(autoBudget * float64(total))
		if bytes, ok := given[d.ID]; ok {
			out[i] = bytes
		}
	}
	for id := range given {
		if !known[id] {
			return nil, noDevice("CACHE_BUDGET", id)
		}
	}
	return out, nil
}

// pin pins the models of the settings. One that is missing is a warning; pins that do not fit together are refused
// here, not when a request fails for it.
func (h *house) pin(ctx context.Context) error {
	for _, id := range h.cfg.cache.pins {
		err := h.pool.Pin(ctx, id)
		var refused *cache.Refusal
		switch {
		case errors.Is(err, cgo.ErrNotFound):
			h.log.Warn().Str("model", id).Msgf("a pinned model is not on this machine; 'barkd pull %s' fetches it", id)
		case errors.As(err, &refused):
			return &usageError{fmt.Errorf("PINNED_MODELS do not fit together: %w", refused)}
		case err != nil:
			h.log.Warn().Str("model", id).Err(err).Msg("a model cannot be pinned")
		}
	}
	return nil
}

// warmUp loads the models that are to be there before the first request. What is missing is a warning: the server is
// useful without it.
func (h *house) warmUp(ctx context.Context) {
	h.announceUntrained(ctx)
	find := func(ctx context.Context, id string) error {
		_, err := h.backend.catalogue.Find(ctx, id)
		return err
	}
	h.warmup.Run(ctx, h.pool, find, func(m cgo.WarmupModel) {
		switch {
		case ctx.Err() != nil || m.State == cgo.WarmupReady:
		case m.State == cgo.WarmupMissing:
			h.log.Warn().Str("model", m.ID).
				Msgf("warm-up skips a model that is not on this machine; 'barkd pull %s' fetches it", m.ID)
		default:
			h.log.Warn().Str("model", m.ID).Err(m.Err).Msg("warm-up failed")
		}
	})
}

// announceUntrained warns of a default model that cannot speak yet.
func (h *house) announceUntrained(ctx context.Context) {
	m, err := h.backend.catalogue.Find(ctx, models.DefaultID)
	switch {
	case ctx.Err() != nil: // it stops already
	case err != nil:
		h.log.Error().Err(err).Msg("the embedded model cannot be used")
	case !m.Trained:
		h.log.Warn().Str("model", m.ID).Msg("the embedded model is untrained: it makes noise, not speech")
	}
}

// tidy gives freed memory back to the system, asks again for what has not been returned, and writes the access
// pattern, every GC_INTERVAL_SECONDS.
func (h *house) tidy(ctx context.Context) {
	tick := time.NewTicker(h.cfg.cache.tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		debug.FreeOSMemory() // Go's own heap, too
		if returned, err := h.pool.Trim(); err != nil {
			h.log.Warn().Err(err).Msg("freed memory could not be given back to the system")
		} else if returned > 0 {
			h.log.Debug().Int64("bytes", returned).Msg("gave freed memory back to the system")
		}
		writeDemand(h.cfg.cache.state, h.pool.Demand(), h.log)
	}
}
