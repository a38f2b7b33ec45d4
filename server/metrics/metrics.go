// Package metrics is what barkd tells Prometheus: counters fed by what happens, and gauges read from the cache when they
// are asked for.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
	"barkd/server/speech"
)

// Metrics has a registry of its own. Its methods may be called from any goroutine and never wait.
type Metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	evictions    *prometheus.CounterVec
	ages         prometheus.Histogram
	loads        *prometheus.HistogramVec
	failures     *prometheus.CounterVec
	cancelled    *prometheus.CounterVec
	refused      *prometheus.CounterVec
	realTime     prometheus.Histogram
	firstAudio   prometheus.Histogram
	underruns    prometheus.Counter
	cleanups     prometheus.Counter
	pressureStep *prometheus.CounterVec
}

// New returns metrics that count from zero.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bark_cache_requests_total",
			Help: "Requests for a model: hit (resident), miss (began a load), join (waited for one), reject."}, []string{"model", "outcome"}),
		evictions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bark_cache_evictions_total",
			Help: "Models given up, by reason: capacity, ttl, pressure, config, admin, patience."}, []string{"model", "reason"}),
		ages: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bark_cache_age_at_eviction_seconds",
			Help: "Time since an evicted model was last used.", Buckets: prometheus.ExponentialBuckets(1, 4, 10)}),
		loads: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bark_cache_load_seconds",
			Help: "Time a load took; phase is read, as weights are used where they are mapped.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 16)},
			[]string{"model", "phase"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bark_cache_load_failures_total",
			Help: "Loads that failed: error, or stopped because nobody waited any more."}, []string{"model", "cause"}),
		cancelled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bark_cancelled_total",
			Help: "Requests whose client was gone, or that a timeout or a shutdown ended, by the stage they were in."}, []string{"stage"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bark_requests_refused_total",
			Help: "Requests answered 401, 429, 503 or 504, by the code of the error."}, []string{"code"}),
		realTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bark_real_time_factor",
			Help: "Seconds of work per second of audio.", Buckets: prometheus.ExponentialBuckets(0.0625, 2, 12)}),
		firstAudio: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bark_first_audio_seconds",
			Help: "Time from the arrival of a request to the first audio of its stream.", Buckets: prometheus.ExponentialBuckets(0.0625, 2, 12)}),
		underruns: prometheus.NewCounter(prometheus.CounterOpts{Name: "bark_stream_underruns_total",
			Help: "Times that a player of a stream, begun with the first bytes, ran out of audio: load that came after its beginning."}),
		cleanups: prometheus.NewCounter(prometheus.CounterOpts{Name: "bark_memory_cleanups_total",
			Help: "Shortages of memory that were reacted to."}),
		pressureStep: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bark_pressure_freed_bytes_total",
			Help: "Bytes given back under pressure, by reaction."}, []string{"reaction"}),
	}
	m.registry.MustRegister(m.requests, m.evictions, m.ages, m.loads, m.failures, m.cancelled, m.refused, m.realTime,
		m.firstAudio, m.underruns, m.cleanups, m.pressureStep, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Asked counts a request for a model; unknown models must not be told: each would be a series of its own.
func (m *Metrics) Asked(model string, outcome cache.Outcome) {
	m.requests.WithLabelValues(model, string(outcome)).Inc()
}

// Decided counts a decision of the cache.
func (m *Metrics) Decided(e cache.Event) {
	switch e.Kind {
	case cache.EventLoaded:
		m.loads.WithLabelValues(e.Key, "read").Observe(e.Took.Seconds())
	case cache.EventFailed:
		m.failures.WithLabelValues(e.Key, "error").Inc()
	case cache.EventStopped:
		m.failures.WithLabelValues(e.Key, "stopped").Inc()
	case cache.EventEvicted:
		m.evictions.WithLabelValues(e.Key, string(e.Reason)).Inc()
		m.ages.Observe(e.Took.Seconds())
	case cache.EventDraining:
		m.evictions.WithLabelValues(e.Key, string(e.Reason)).Inc()
	}
}

// Cancelled counts a request that was ended in a stage.
func (m *Metrics) Cancelled(stage string) { m.cancelled.WithLabelValues(stage).Inc() }

// Refused counts a request that was refused, by the code of its error, of which there are few.
func (m *Metrics) Refused(code string) { m.refused.WithLabelValues(code).Inc() }

// Spoke counts a finished request.
func (m *Metrics) Spoke(realTimeFactor float64) { m.realTime.Observe(realTimeFactor) }

// FirstAudio counts a stream that has begun.
func (m *Metrics) FirstAudio(waited time.Duration) { m.firstAudio.Observe(waited.Seconds()) }

// Underrun counts a stream that came too late for its player.
func (m *Metrics) Underrun() { m.underruns.Inc() }

// Relieved counts a reaction to a shortage.
func (m *Metrics) Relieved(r cgo.Relief) {
	if r.Level == memwatch.LevelNone {
		return
	}
	m.cleanups.Inc()
	for _, step := range r.Steps {
		m.pressureStep.WithLabelValues(step.Name).Add(float64(max(step.Freed, 0)))
	}
}

// Watched is what gauges are read from.
type Watched struct {
	Cache interface {
		Snapshot() cache.Snapshot
	}
	Audio interface {
		Stats() speech.AudioStats
	}
	Load  func() (running, waiting int)
	Slots func() int // most requests that run at one time
	Level func(device int) memwatch.Level
}

// Watch registers the gauges. It is called once.
func (m *Metrics) Watch(w Watched) { m.registry.MustRegister(&gauges{Watched: w, clock: time.Now}) }
