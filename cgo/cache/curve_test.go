package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestForgottenResidentKeepsItsBytesOnTheCurve(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(0), Ghosts: 2}, map[string]Footprint{"a": own(64), "b": own(64), "c": own(64)})
	for range 2 {
		for _, key := range []string{"a", "b", "c"} {
			r.release(r.resident(key, Ask{}))
		}
	}
	r.release(r.resident("c", Ask{}))
	last := r.o.curve.snapshot().ByBytes
	assert.Equal(t, []BytesPoint{{Bytes: bucketTop(bucket(64)), HitRate: 1.0 / 7}}, last)
}

// A cache of n keys that evicts the least recently used, by hand.
func lruHits(requests []int, n int, size func(int) int64, bytes int64) uint64 {
	var stack []int // most recent first
	var hits uint64
	for _, key := range requests {
		at := slices.Index(stack, key)
		if at >= 0 {
			var sum int64
			for _, k := range stack[:at+1] {
				sum += size(k)
			}
			if at < n && sum <= bytes {
				hits++
			}
			stack = slices.Delete(stack, at, at+1)
		}
		stack = slices.Insert(stack, 0, key)
	}
	return hits
}

func TestCurveEqualsASimulationOfEverySize(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 13))
		const known = 12
		size := func(key int) int64 { return int64(key*key*37 + 1) }
		c := newCurve(known)
		var requests []int
		nodes := map[int]*demand{}
		for range 400 {
			key := min(r.IntN(known), r.IntN(known))
			requests = append(requests, key)
			nodes[key] = c.touch(epoch, fmt.Sprint(key), nodes[key])
			c.size(nodes[key], size(key))
		}
		s := c.snapshot()
		rate := func(hits uint64) float64 { return float64(hits) / float64(len(requests)) }
		for n := range s.ByModels {
			assert.InDelta(t, rate(lruHits(requests, n+1, size, 1<<60)), s.ByModels[n], 1e-12, "seed %d, %d models", seed, n+1)
		}
		for _, at := range s.ByBytes {
			low := bucketTop(bucket(at.Bytes) - 1) // sizes in one bucket are told as its largest
			assert.GreaterOrEqual(t, at.HitRate+1e-12, rate(lruHits(requests, known, size, low)), "seed %d", seed)
			assert.InDelta(t, rate(lruHits(requests, known, size, at.Bytes)), at.HitRate, 1e-12, "seed %d, %d bytes", seed, at.Bytes)
		}
	}
}

func TestBucketsCoverAllSizesWithinAnEighth(t *testing.T) {
	for bytes := int64(0); bytes < 1<<60; bytes += 1 + bytes/7 {
		top := bucketTop(bucket(bytes))
		assert.GreaterOrEqual(t, top, bytes)
		assert.LessOrEqual(t, top-bytes, bytes/8, "%d", bytes)
	}
}

func TestDemandHalvesEachDay(t *testing.T) {
	c := newCurve(4)
	c.touch(epoch, "often", nil)
	c.touch(epoch, "often", nil)
	c.touch(epoch.Add(demandHalfLife), "late", nil)
	c.touch(epoch.Add(demandHalfLife), "late", nil)
	now := epoch.Add(demandHalfLife)
	got := c.demands(now)
	assert.Equal(t, []Demand{{Key: "late", Score: 2, At: now}, {Key: "often", Score: 1, At: now}}, got)
	again := newCurve(1)
	again.remember(got)
	assert.Equal(t, got[:1], again.demands(now), "the most wanted is remembered")
}
