package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"barkd/cgo/cache"
)

var small = Setup{Replicas: 6, Models: 30, Skew: 0.9, Slots: 3, Running: 2, Queue: 32, Speech: 4 * time.Second,
	Load: 2 * time.Second, Offered: 0.7, Refresh: 200 * time.Millisecond, PerServer: 400, Seed: 7}

func run(o Setup) map[string]Outcome {
	out := make(map[string]Outcome)
	for _, policy := range policies() {
		one := Simulate(o, policy)
		out[one.Policy] = one
	}
	return out
}

func TestSimulationEndsWithEveryRequestAnsweredAndRepeats(t *testing.T) {
	first, second := run(small), run(small)
	for name, o := range first {
		assert.Equal(t, small.Replicas*small.PerServer, o.Requests, name)
		answered := o.Refused
		for _, r := range o.records {
			answered += len(r)
		}
		assert.Equal(t, o.Requests, answered, name)
		assert.LessOrEqual(t, o.Evictions, o.Loads, name)
		assert.GreaterOrEqual(t, o.Evictions, o.Loads-small.Replicas*small.Slots, name)
		assert.Equal(t, o, second[name], name)
	}
}

// The simulated replicas must evict as the shipped cache does: each replica's requests are replayed on it.
func TestReplicasEvictAsTheShippedCacheDoes(t *testing.T) {
	for name, o := range run(small) {
		var loads, evictions uint64
		for replica := range small.Replicas {
			got := cache.Replay(o.Trace(replica, small.Load), cache.ReplayOptions{MaxEntries: small.Slots})
			loads, evictions = loads+got.Loads, evictions+got.Evictions
		}
		assert.EqualValues(t, o.Loads, loads, "%s: loads", name)
		assert.EqualValues(t, o.Evictions, evictions, "%s: evictions", name)
	}
}

func TestRoutingByModelLoadsLessThanRoutingBlindly(t *testing.T) {
	o := run(small)
	for _, blind := range []string{"random", "round robin", "least busy"} {
		for _, sighted := range []string{"hash, bound 200 %", "residency 3:2:2"} {
			assert.Less(t, 2*o[sighted].Loads, o[blind].Loads, "%s against %s", sighted, blind)
		}
	}
}
