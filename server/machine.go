package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/memwatch"
	"barkd/cgo/memwatch/nvml"
	"barkd/server/metrics"
	"barkd/server/speech"
)

// Watermarks as parts of a memory. MEMORY_THRESHOLD_GB is one more, of the host's memory in use.
const (
	hostHigh, hostCritical, hostClear = 0.10, 0.04, 0.02 // available
	gpuHigh, gpuCritical, gpuClear    = 0.05, 0.02, 0.01
	hostStallPercent                  = 20 // of ten seconds in which somebody waited for memory
)

// machine watches the memory that the models live in, and has the pool give some back when it gets short. It is the
// api.Machine.
type machine struct {
	cfg      cacheConfig
	host     *memwatch.Source
	pool     *cgo.Pool
	pressure *cgo.Pressure
	metrics  *metrics.Metrics
	log      zerolog.Logger
	blind    sync.Once // the memory could not be read and the log said so
	openGPUs func() (*nvml.GPUs, error)

	mu   sync.Mutex // guards what follows
	last memwatch.Reading
	read time.Time // when last was

	watching  sync.Mutex    // guards stop, and changes of the threshold
	threshold atomic.Uint64 // bits of a float64: GB in use
	stop      func()        // ends the watch; nil when there is none
}

func newMachine(pool *cgo.Pool, audio *speech.AudioCache, cfg cacheConfig, m *metrics.Metrics, log zerolog.Logger) *machine {
	made := &machine{cfg: cfg, host: memwatch.New(), pool: pool, pressure: cgo.NewPressure(pool, dropAudio(audio)), metrics: m, log: log, openGPUs: nvml.Open}
	made.threshold.Store(math.Float64bits(cfg.thresholdGB))
	return made
}

// dropAudio gives back what the audio cache takes of the host's memory.
func dropAudio(audio *speech.AudioCache) cgo.Reaction {
	return cgo.Reaction{Name: "audio_cache", Free: func(_ context.Context, device int, need int64) int64 {
		if device != 0 {
			return 0
		}
		freed := audio.Free(need)
		if freed > 0 {
			debug.FreeOSMemory()
		}
		return freed
	}}
}

// readingAge is how old what Memory tells may be: a reading opens a dozen files.
const readingAge = time.Second

// Memory implements api.Machine. Without a source the server goes on, and says so once.
func (m *machine) Memory() (used, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.read) > readingAge {
		r, err := m.host.Read()
		if err != nil || r.TotalBytes <= 0 {
			m.blind.Do(func() { m.log.Warn().Err(err).Msg("the machine's memory cannot be read; /cache/stats shows zeros") })
			r = memwatch.Reading{}
		}
		m.last, m.read = r, now
	}
	return m.last.UsedBytes, m.last.TotalBytes
}

// ThresholdGB implements api.Machine.
func (m *machine) ThresholdGB() float64 { return math.Float64frombits(m.threshold.Load()) }

// Level implements api.Machine.
func (m *machine) Level(device int) memwatch.Level { return m.pressure.Level(device) }

// Cleanups implements api.Machine.
func (m *machine) Cleanups() uint64 { return m.pressure.Cleanups() }

// watch begins to watch every device's memory.
func (m *machine) watch() {
	m.watching.Lock()
	defer m.watching.Unlock()
	m.stop = m.watchLocked()
}

// unwatch ends the watch, for good.
func (m *machine) unwatch() {
	m.watching.Lock()
	defer m.watching.Unlock()
	m.stop()
	m.stop = nil
}

// setThreshold changes the threshold. The watch begins anew, as if there were no shortage: if there is one it says so
// at its first look.
func (m *machine) setThreshold(gb float64) {
	m.watching.Lock()
	defer m.watching.Unlock()
	if gb == m.ThresholdGB() {
		return
	}
	m.threshold.Store(math.Float64bits(gb))
	if m.stop == nil {
		return
	}
	m.stop()
	for device := range m.pool.Devices() {
		m.pressure.React(context.Background(), cgo.Shortage{Device: device})
	}
	m.stop = m.watchLocked()
}

// watchLocked begins to watch; the returned function ends it. A machine that cannot be watched is no reason not to serve.
func (m *machine) watchLocked() (stop func()) {
	var gpus *nvml.GPUs
	if len(m.pool.Devices()) > 1 {
		var err error
		if gpus, err = m.openGPUs(); err != nil {
			m.log.Warn().Err(err).Msg("the memory of GPUs is not watched")
		}
	}
	watcher, err := memwatch.Watch(memwatch.Config{
		Pools: m.pools(gpus), Interval: m.cfg.checkEvery, OnEvent: m.react, OnTrouble: m.trouble,
	})
	if err != nil {
		m.log.Error().Err(err).Msg("memory is not watched")
		watcher = nil
	}
	return func() {
		var err error
		if watcher != nil {
			err = watcher.Close()
		}
		if gpus != nil {
			err = errors.Join(err, gpus.Close())
		}
		if err != nil {
			m.log.Warn().Err(err).Msg("the watch over memory has not ended in order")
		}
	}
}

// pools are the host and the GPUs that CUDA shows and the driver tells of: both know a GPU by its UUID.
func (m *machine) pools(gpus *nvml.GPUs) []memwatch.Pool {
	pools := []memwatch.Pool{{Name: m.pool.Devices()[0].ID, Memory: m.host, Marks: m.hostMarks()}}
	if gpus == nil {
		return pools
	}
	for _, d := range m.pool.Devices()[1:] {
		g := gpus.Find(d.UUID)
		if g == nil {
			m.log.Warn().Str("device", d.ID).Str("uuid", d.UUID).Msg("the memory of a GPU is not watched: the driver does not list it")
			continue
		}
		pools = append(pools, memwatch.Pool{Name: d.ID, Memory: g, Marks: part(d.TotalBytes, gpuHigh, gpuCritical, gpuClear)})
	}
	return pools
}

func (m *machine) hostMarks() memwatch.Marks {
	_, total := m.Memory()
	marks := part(total, hostHigh, hostCritical, hostClear)
	marks.HighUsedBytes = int64(m.ThresholdGB() * (1 << 30))
	marks.HighStallPercent = hostStallPercent
	return marks
}

func part(total int64, high, critical, margin float64) memwatch.Marks {
	return memwatch.Marks{
		HighAvailableBytes:     int64(high * float64(total)),
		CriticalAvailableBytes: int64(critical * float64(total)),
		ClearMarginBytes:       int64(margin * float64(total)),
	}
}

// react gives memory back, and says what that came to.
func (m *machine) react(ctx context.Context, e memwatch.Event) {
	device := 0
	for i, d := range m.pool.Devices() {
		if d.ID == e.Pool {
			device = i
		}
	}
	relief := m.pressure.React(ctx, cgo.Shortage{
		Device: device, Level: e.After, Need: e.NeedBytes, RetryAfter: m.cfg.checkEvery,
		Why: fmt.Sprintf("%d of %d bytes available", e.Reading.AvailableBytes, e.Reading.TotalBytes),
	})
	m.metrics.Relieved(relief)
	line := m.log.Debug()
	if e.After > e.Before || relief.Evicted() > 0 {
		line = m.log.Warn()
	} else if e.After < e.Before {
		line = m.log.Info()
	}
	line = line.Str("pool", e.Pool).Stringer("level", e.After).Str("cause", e.Cause).Int64("need_bytes", e.NeedBytes).
		Int64("available_bytes", e.Reading.AvailableBytes).Int64("used_bytes", e.Reading.UsedBytes)
	for _, step := range relief.Steps {
		line = line.Int64(step.Name+"_bytes", step.Freed)
	}
	line.Bool("refuses_loads", relief.Refuses).Msg("memory pressure")
}

// trouble says once that a memory cannot be watched as it should be.
func (m *machine) trouble(pool string, err error) {
	switch {
	case err == nil:
		m.log.Info().Str("pool", pool).Msg("the memory can be read again")
	case errors.Is(err, memwatch.ErrIntervalOnly):
		m.log.Info().Str("pool", pool).Err(err).Msg("memory is looked at every MEMORY_CHECK_INTERVAL, without events of the kernel")
	default:
		m.log.Warn().Str("pool", pool).Err(err).Msg("the memory cannot be read; the server goes on without")
	}
}
