package cache

import (
	"slices"
	"time"
)

// operate is a step of those who run the cache: clear, pressure, pins, limits, time.
func (m *model) operate() {
	switch m.random.IntN(12) {
	case 0:
		if m.chance(30) {
			m.clear("")
		}
	case 1:
		m.clear(pick(m, m.keys))
	case 2:
		m.relieve()
	case 3, 4:
		m.hold()
	case 5:
		m.pinStep()
	case 6:
		m.did = "unpin"
		key := pick(m, m.keys)
		if was := m.pins[key]; was {
			if i := m.current(key); i != nil {
				i.rested = m.now // its keep-alive begins
			}
		}
		delete(m.pins, key)
		m.o.unpin(m.now, key)
	case 7:
		m.limits()
	case 8, 9:
		m.did = "expire"
		m.now = m.now.Add(time.Duration(m.random.IntN(6)) * time.Second)
		m.o.expire(m.now)
		m.observe()
		for _, i := range m.insts {
			if i.phase == resident && i.leases == 0 && i.keep > 0 && !m.pins[i.key] && !m.now.Before(i.rested.Add(i.keep)) {
				m.failf("%s has outlived its keep-alive", i.key)
			}
		}
	case 10:
		m.did = "returned"
		m.giveBackResidues()
	case 11:
		m.loseStep()
	}
}

// clear takes a key, or all, out of use.
func (m *model) clear(key string) {
	m.did = "clear " + key
	chosen := func(k string) bool { return key == "" || k == key }
	for _, i := range m.insts {
		if chosen(i.key) && (i.phase == loading || i.phase == resident) {
			i.drain = true
		}
	}
	m.o.clear(m.now, chosen, m.chance(30), ReasonAdmin)
}

func (m *model) relieve() {
	if len(m.budgets) == 0 {
		return
	}
	m.did = "relieve"
	p := m.random.IntN(len(m.budgets))
	want := int64(m.random.IntN(8))
	done, _ := m.o.relieve(m.now, p, want)
	m.observe()
	if done.Bytes >= want {
		return
	}
	for _, i := range m.insts {
		if i.phase == resident && i.leases == 0 && i.size.Own[p] > 0 && !m.pins[i.key] {
			m.failf("%s could have gone and %d of %d bytes came", i.key, done.Bytes, want)
		}
	}
}

func (m *model) hold() {
	if len(m.budgets) == 0 {
		return
	}
	m.did = "hold"
	p := m.random.IntN(len(m.budgets))
	if m.held[p] || m.chance(60) {
		delete(m.held, p)
		m.o.hold(m.now, p, "", 0)
		return
	}
	m.held[p] = true
	m.o.hold(m.now, p, "watermark", time.Minute)
}

func (m *model) pinStep() {
	key := pick(m, m.keys)
	if len(m.pins) > 1 {
		return
	}
	m.did = "pin " + key
	if m.o.pin(m.now, key, m.placesOf(key)) == nil {
		m.pins[key] = true
	}
}

func (m *model) limits() {
	if !m.config.budgets {
		return
	}
	m.did = "limits"
	if m.chance(30) && m.config.opts.MaxEntries > 0 {
		m.entries = 1 + m.random.IntN(m.config.opts.MaxEntries+1)
		m.o.setMaxEntries(m.now, m.entries)
		return
	}
	p := m.random.IntN(len(m.budgets))
	m.budgets[p] = m.config.opts.Pools[p].Budget - 3 + int64(m.random.IntN(6))
	m.o.setBudget(m.now, p, m.budgets[p])
}

// observe takes over what the owner did in a step: who was answered, and which effects it asks for.
func (m *model) observe() {
	m.sweepComponents()
	m.collectLeases()
	for _, what := range m.o.effects {
		m.begin(what)
	}
	m.collectErrors()
	m.collect()
	m.insts = slices.DeleteFunc(m.insts, func(i *inst) bool { return i.phase == gone })
	m.sweepComponents()
	m.checkEvictions()
}

func (m *model) collectLeases() {
	for _, wt := range slices.Clone(m.waits) {
		if !wt.answered() || wt.w.err != nil {
			continue
		}
		if wt.inst.phase != resident {
			m.failf("a lease on %s, which is not resident", wt.inst.key)
		}
		m.unwait(wt)
		m.give(wt.inst, wt.w.lease, wt.keep)
	}
	for _, g := range slices.Clone(m.grows) {
		select {
		case <-g.g.answered:
		default:
			continue
		}
		m.grows = slices.DeleteFunc(m.grows, func(other *grow) bool { return other == g })
		if g.g.err == nil {
			m.enter(g.hold)
		}
	}
}

func (m *model) collectErrors() {
	for _, wt := range slices.Clone(m.waits) {
		if wt.answered() {
			m.checkAnswer(wt)
			m.unwait(wt)
		}
	}
}

func (wt *wait) answered() bool {
	select {
	case <-wt.w.answered:
		return true
	default:
		return false
	}
}

// begin books an effect that the owner asks for.
func (m *model) begin(what effect[int]) {
	i := m.byEntry[what.entry]
	if i == nil {
		m.failf("an effect on an unknown instance")
	}
	switch what.kind {
	case doEstimate:
		if i.phase != asking && i.phase != gone {
			m.failf("%s is estimated in phase %d", i.key, i.phase)
		}
	case doLoad:
		i.size = what.entry.footprint
		m.beginLoad(i)
	case doFree:
		if i.phase != resident || i.leases > 0 {
			m.failf("%s is freed in phase %d with %d leases", i.key, i.phase, i.leases)
		}
		if i.frees++; i.frees > 1 {
			m.failf("%s is freed twice", i.key)
		}
		i.phase = freeing
	}
}

func (m *model) beginLoad(i *inst) {
	if i.phase != queued || i.waiters == 0 {
		m.failf("%s is loaded in phase %d with %d waiters", i.key, i.phase, i.waiters)
	}
	for _, other := range m.insts {
		if other.key == i.key && other.phase == loading {
			m.failf("two loads of %s at once", i.key)
		}
	}
	for _, c := range i.size.Shared {
		if _, held := m.comps[c.ID]; !held {
			m.comps[c.ID] = c.Bytes
		}
	}
	i.phase = loading
	m.loads++
	m.started = append(m.started, i)
}
