package cache

import "slices"

// This file has the model's idea of places, and of pools that are lost.

// placeConfigs are caches of values that could be on one of two devices, some in host memory where neither can be had.
func placeConfigs() []modelConfig {
	on := func(home int, bytes, host int64) Footprint {
		f := Footprint{Own: In(home, bytes), Session: In(home, 1), Home: home}
		f.Own[0] += host
		return f
	}
	last := func(bytes int64) Footprint {
		f := on(0, bytes, 0)
		f.Rank = 1
		return f
	}
	places := map[string][]Footprint{
		"a": {on(1, 3, 1), on(2, 3, 1), last(4)},
		"b": {on(1, 2, 0), on(2, 2, 0)},
		"c": {on(2, 4, 1)},
		"d": {with(on(1, 1, 0), "1:codec", 0, 3), with(on(2, 1, 0), "2:codec", 0, 0, 3), last(2)},
		"e": {last(5), on(1, 7, 1), on(2, 7, 1)},
		"f": {with(on(1, 2, 1), "1:codec", 0, 3), with(on(2, 2, 1), "2:codec", 0, 0, 3)},
	}
	return []modelConfig{
		{name: "places", opts: Options[int]{Pools: pool(8, 10, 9)}, places: places, budgets: true, loses: true},
		{name: "places and a count", opts: Options[int]{Pools: pool(8, 9, 9), MaxEntries: 3, CoolDown: epochStep,
			KeepAlive: 5 * epochStep, Patience: epochStep}, places: places, budgets: true, loses: true},
		{name: "places that are not lost", opts: Options[int]{Pools: pool(7, 8, 11), Patience: epochStep}, places: places, budgets: true},
	}
}

// placesOf is what an estimate of key says.
func (m *model) placesOf(key string) []Footprint {
	if m.config.places != nil {
		return m.config.places[key]
	}
	return []Footprint{m.sizes[key]}
}

// choices are the places in which i may be now: where it is, else those of the lowest rank in which it can be at all.
func (m *model) choices(i *inst) []Footprint {
	if i.takesRoom() || len(i.places) < 2 {
		return []Footprint{i.size}
	}
	var out []Footprint
	for _, f := range i.places {
		if !m.possible(i, f) || len(out) > 0 && f.Rank > out[0].Rank {
			continue
		}
		if len(out) > 0 && f.Rank < out[0].Rank {
			out = nil
		}
		out = append(out, f)
	}
	return out
}

// possible says that i could be in a place if all that is not pinned were gone.
func (m *model) possible(i *inst, f Footprint) bool {
	whole := f.Whole()
	for p := range m.held {
		if whole[p] > 0 {
			return false
		}
	}
	left := m.left
	defer func() { m.left = left }()
	m.left = Bytes{}
	return !m.lost[f.Home] && m.roomAs(f, func(o *inst) bool { return !m.pins[o.key] || o.drain || leaves(o) }, false)
}

// checkPlace: a load begins in a place that is there, and in one of a higher rank only if there is none of a lower one.
func (m *model) checkPlace(i *inst) {
	if m.lost[i.size.Home] {
		m.failf("%s is loaded into pool %d, which is lost", i.key, i.size.Home)
	}
	for _, f := range i.places {
		if f.Rank < i.size.Rank && m.possible(i, f) {
			m.failf("%s is loaded into pool %d though pool %d can be had", i.key, i.size.Home, f.Home)
		}
	}
}

// loseStep loses a device, rarely.
func (m *model) loseStep() {
	if !m.config.loses || !m.chance(6) {
		return
	}
	p := m.random.IntN(len(m.budgets))
	m.did = "lose"
	if was := m.lost[p]; m.o.lose(m.now, p, "it burns") == was {
		m.failf("pool %d was lost for the first time: %v", p, !was)
	}
	m.lost[p] = true
	for _, i := range m.insts {
		if i.phase == resident && i.size.Home == p {
			i.drain = true
		}
	}
}

// checkLost: nothing new is in a lost pool, and nothing idle.
func (m *model) checkLost() {
	for _, i := range m.insts {
		if i.phase == resident && m.lost[i.size.Home] && (!i.drain || i.leases == 0) {
			m.failf("%s stays in pool %d, which is lost", i.key, i.size.Home)
		}
	}
	for _, g := range m.grows {
		if m.lost[g.hold.inst.size.Home] {
			m.failf("a session of %s waits for room in pool %d, which is lost", g.hold.inst.key, g.hold.inst.size.Home)
		}
	}
}

// again puts i first in the queue.
func (m *model) again(i *inst) {
	i.phase = queued
	m.insts = slices.DeleteFunc(m.insts, func(other *inst) bool { return other == i })
	m.insts = append([]*inst{i}, m.insts...)
}
