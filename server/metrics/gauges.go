package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"barkd/cgo/cache"
)

// gauges reads the cache's state when Prometheus asks.
type gauges struct {
	Watched
	clock func() time.Time
}

var (
	leases     = gauge("bark_cache_leases", "Requests that use a model.", "model")
	waiters    = gauge("bark_cache_waiters", "Requests that wait for a model.", "model")
	bytes      = gauge("bark_cache_model_bytes", "What a resident model takes beside shared components, by the pool it lives in.", "model", "pool")
	budget     = gauge("bark_cache_budget_bytes", "Budget of a memory pool; 0 is no limit.", "pool")
	booked     = gauge("bark_cache_booked_bytes", "Bytes of resident models, components and sessions.", "pool")
	reserved   = gauge("bark_cache_reserved_bytes", "Bytes reserved for loads under way.", "pool")
	unreturned = gauge("bark_cache_unreturned_bytes", "Bytes of freed models that have not come back. Anything but 0 is a defect.", "pool")
	lost       = gauge("bark_device_lost", "1 when the device of a pool is lost: it is not used again before the server is started again.", "pool")
	pressure   = gauge("bark_pressure_level", "0 none, 1 high, 2 critical.", "pool")
	running    = gauge("bark_requests_running", "Requests that speak.")
	waiting    = gauge("bark_requests_waiting", "Requests that wait for their turn or their model.")
	used       = gauge("bark_utilization", "Requests that speak, as a part (0..1) of those that may at one time.")
	audioBytes = gauge("bark_audio_cache_bytes", "Finished speech that is kept.")
	audioAsked = gauge("bark_audio_cache_requests_total", "Requests with a seed: hit (kept), join (an equal one ran), miss.", "outcome")
	audioGone  = gauge("bark_audio_cache_evictions_total", "Speech that was dropped for room or memory.")
	residency  = gauge("bark_cache_residency_info", "Unix time; the labels say which models are resident, which are being loaded, "+
		"and how many there could be, in the form of the Endpoint Picker.", "max_lora", "running_lora_adapters", "waiting_lora_adapters")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, to) }

// Collect implements prometheus.Collector.
func (g *gauges) Collect(to chan<- prometheus.Metric) {
	send := func(what *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(what, prometheus.GaugeValue, value, labels...)
	}
	s := g.Cache.Snapshot()
	for key, sum := range byModel(s) {
		send(leases, float64(sum.leases), key)
		send(waiters, float64(sum.waiters), key)
		for pool, n := range sum.bytes {
			send(bytes, float64(n), key, pool)
		}
	}
	for i, p := range s.Pools {
		send(budget, float64(max(p.Budget, 0)), p.Name)
		send(booked, float64(p.Booked), p.Name)
		send(reserved, float64(p.Reserved), p.Name)
		send(unreturned, float64(p.Unreturned), p.Name)
		send(pressure, float64(g.Level(i)), p.Name)
		gone := 0.0
		if p.Lost != "" {
			gone = 1
		}
		send(lost, gone, p.Name)
	}
	audio := g.Audio.Stats()
	send(audioBytes, float64(audio.Bytes))
	count := func(what *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(what, prometheus.CounterValue, float64(n), labels...)
	}
	count(audioAsked, audio.Hits, "hit")
	count(audioAsked, audio.Joins, "join")
	count(audioAsked, audio.Misses, "miss")
	count(audioGone, audio.Evictions)
	speaking, queued := g.Load()
	send(running, float64(speaking))
	send(waiting, float64(queued))
	send(used, min(1, float64(speaking)/float64(max(1, g.Slots()))))
	resident, loading := residents(s)
	send(residency, float64(g.clock().Unix()), room(s), strings.Join(resident, ","), strings.Join(loading, ","))
}

// usage is what all instances of a key add up to: one may drain while the next one loads.
type usage struct {
	leases, waiters int64
	bytes           map[string]int64 // by pool
}

func byModel(s cache.Snapshot) map[string]usage {
	sums := make(map[string]usage)
	for _, e := range s.Entries {
		sum := sums[e.Key]
		if sum.bytes == nil {
			sum.bytes = make(map[string]int64)
		}
		if e.Pool != "" {
			sum.bytes[e.Pool] += e.Bytes().Total()
		}
		sums[e.Key] = usage{sum.leases + int64(e.Leases), sum.waiters + int64(e.Waiters), sum.bytes}
	}
	return sums
}

func residents(s cache.Snapshot) (resident, loading []string) {
	for _, e := range s.Entries {
		switch e.State {
		case cache.Ready, cache.Leased:
			resident = append(resident, e.Key)
		case cache.Reserving, cache.Loading:
			loading = append(loading, e.Key)
		}
	}
	slices.Sort(resident)
	slices.Sort(loading)
	return resident, loading
}

// room is how many models there could be at one time: those that are, and as many of their mean size as still fit where
// they live, on GPUs if any does.
func room(s cache.Snapshot) string {
	var models, sum int64
	onGPU := false
	home := make(map[string]int64) // models by pool
	for _, e := range s.Entries {
		for i, p := range s.Pools {
			if e.Pool == p.Name && e.Bytes()[i] > 0 {
				models++
				sum += e.Bytes()[i]
				home[p.Name]++
				onGPU = onGPU || i > 0
			}
		}
	}
	most, known := s.MaxEntries, s.MaxEntries > 0
	fit := int64(0)
	for i, p := range s.Pools {
		switch {
		case p.Lost != "" || (i > 0) != onGPU:
		case p.Budget < 1 || sum == 0: // nobody can say
			return strconv.Itoa(most)
		default:
			left := max(0, p.Budget-p.Booked-p.Reserved-p.Unreturned)
			fit += home[p.Name] + left*models/sum
		}
	}
	if !known || int(fit) < most {
		most = int(fit)
	}
	return strconv.Itoa(most)
}
