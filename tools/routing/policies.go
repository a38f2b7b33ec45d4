package main

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"

	"barkd/deploy/cluster"
)

// policy chooses a replica for a request for a model.
type policy interface {
	name() string
	pick(s *simulation, model int) int
}

// policies are what is compared.
func policies() []func(Setup) policy {
	return []func(Setup) policy{
		func(Setup) policy { return random{} },
		func(Setup) policy { return new(roundRobin) },
		func(Setup) policy { return leastBusy{} },
		func(o Setup) policy { return newRing(o.Replicas, 0) },
		func(o Setup) policy { return newRing(o.Replicas, 1.25) },
		func(o Setup) policy { return newRing(o.Replicas, 1.5) },
		func(o Setup) policy { return newRing(o.Replicas, 2) },
		func(Setup) policy { return residency{cluster.Weights{Residency: 3, Queue: 1, Utilization: 1}} },
		func(Setup) policy { return residency{cluster.DefaultWeights} },
	}
}

func modelName(i int) string { return fmt.Sprintf("mock/small-%d", i+1) }

type random struct{}

func (random) name() string                  { return "random" }
func (random) pick(s *simulation, _ int) int { return s.random.IntN(len(s.replicas)) }

type roundRobin struct{ next int }

func (*roundRobin) name() string { return "round robin" }
func (p *roundRobin) pick(s *simulation, _ int) int {
	p.next++
	return p.next % len(s.replicas)
}

// leastBusy sends to the replica with the fewest of the router's own requests, any one of several.
type leastBusy struct{}

func (leastBusy) name() string { return "least busy" }
func (leastBusy) pick(s *simulation, _ int) int {
	best, ties := 0, 0
	for i, r := range s.replicas {
		switch {
		case ties == 0 || r.held < s.replicas[best].held:
			best, ties = i, 1
		case r.held == s.replicas[best].held:
			ties++
			if s.random.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

// ring is consistent hashing; with a bound, a replica that has more than bound times the mean of the requests under
// way passes to the next one, as HAProxy's hash-balance-factor does.
type ring struct {
	points []point
	bound  float64 // 0 is none
}

type point struct {
	hash    uint64
	replica int
}

const pointsPerReplica = 160

func newRing(replicas int, bound float64) *ring {
	p := &ring{bound: bound}
	for i := range replicas {
		for k := range pointsPerReplica {
			p.points = append(p.points, point{hash(strconv.Itoa(i) + "/" + strconv.Itoa(k)), i})
		}
	}
	slices.SortFunc(p.points, func(a, b point) int {
		if a.hash < b.hash {
			return -1
		}
		return 1
	})
	return p
}

// hash is FNV-1a, mixed: alone it leaves similar texts close to each other.
func hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // it never fails
	z := h.Sum64()
	z = (z ^ z>>33) * 0xff51afd7ed558ccd
	z = (z ^ z>>33) * 0xc4ceb9fe1a85ec53
	return z ^ z>>33
}

func (p *ring) name() string {
	if p.bound == 0 {
		return "hash"
	}
	return fmt.Sprintf("hash, bound %d %%", int(100*p.bound))
}

func (p *ring) pick(s *simulation, model int) int {
	want := hash(s.names[model])
	at, _ := slices.BinarySearchFunc(p.points, want, func(a point, h uint64) int {
		if a.hash < h {
			return -1
		}
		return 1
	})
	if p.bound == 0 {
		return p.points[at%len(p.points)].replica
	}
	total := 0
	for _, r := range s.replicas {
		total += r.held
	}
	most := int(math.Ceil(p.bound * float64(total+1) / float64(len(s.replicas))))
	for i := range p.points {
		if replica := p.points[(at+i)%len(p.points)].replica; s.replicas[replica].held < most {
			return replica
		}
	}
	return p.points[at%len(p.points)].replica
}

// residency is the Endpoint Picker, on metrics as old as the last look.
type residency struct{ weights cluster.Weights }

func (p residency) name() string {
	return fmt.Sprintf("residency %g:%g:%g", p.weights.Residency, p.weights.Queue, p.weights.Utilization)
}

func (p residency) pick(s *simulation, model int) int {
	return p.weights.Pick(s.views, s.names[model], s.random)
}
