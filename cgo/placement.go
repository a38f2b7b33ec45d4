package cgo

import (
	"fmt"
	"math"
	"slices"

	"barkd/cgo/cache"
)

// placement says on which devices models may be.
type placement struct {
	devices []Device
	all     []int            // indices into devices
	models  map[string][]int // of single models
}

func newPlacement(devices []Device, opts PoolOptions) (placement, error) {
	p := placement{devices: devices, all: opts.Devices, models: opts.ModelDevices}
	if len(p.all) == 0 {
		p.all = []int{hostPool}
	}
	check := func(list []int) error {
		for _, d := range list {
			if d < 0 || d >= len(devices) {
				return fmt.Errorf("%w: device %d; there are %d", ErrNotFound, d, len(devices))
			}
		}
		return nil
	}
	err := check(p.all)
	for _, list := range p.models {
		if err == nil {
			err = check(list)
		}
	}
	return p, err
}

// of returns the devices that the model id may be on.
func (p placement) of(id string) []int {
	if list := p.models[id]; len(list) > 0 {
		return list
	}
	return p.all
}

// uses says whether any model may be on the device.
func (p placement) uses(device int) bool {
	for _, list := range p.models {
		if slices.Contains(list, device) {
			return true
		}
	}
	return slices.Contains(p.all, device)
}

// rank is 1 for the CPU beside other devices: it takes what they cannot have.
func (p placement) rank(device int) int {
	if p.devices[device].Kind == "cpu" {
		return 1
	}
	return 0
}

// Propose returns the ids that an access pattern asks for most and that fit the devices together: the warm-up of a
// server that learns. demand is sorted, most wanted first.
func (p *Pool) Propose(demand []cache.Demand) []string {
	s := p.Snapshot()
	left := make([]int64, len(s.Pools))
	for i, pool := range s.Pools {
		switch {
		case pool.Lost != "":
		case pool.Budget > 0:
			left[i] = pool.Budget
		default:
			left[i] = math.MaxInt64
		}
	}
	var ids []string
	for _, d := range demand {
		if s.MaxEntries > 0 && len(ids) == s.MaxEntries {
			break
		}
		home := -1
		for _, device := range p.placement.of(d.Key) {
			if left[device] < d.Bytes || left[device] == 0 {
				continue
			}
			rank := p.placement.rank(device)
			if home < 0 || rank < p.placement.rank(home) || rank == p.placement.rank(home) && left[device] > left[home] {
				home = device
			}
		}
		if home < 0 {
			continue
		}
		left[home] -= d.Bytes
		ids = append(ids, d.Key)
	}
	return ids
}

// Usable says whether any device that models may be on is left.
func (p *Pool) Usable() bool {
	return slices.ContainsFunc(p.placement.all, func(device int) bool { return !p.lost[device].Load() })
}
