package cache

import "slices"

// This file compares an owner with the model.

// current is the instance that a request for key finds: at most one.
func (m *model) current(key string) *inst {
	var found *inst
	for _, i := range m.insts {
		if i.key != key || i.drain || i.phase >= freeing || i.stopped() {
			continue
		}
		if found != nil {
			m.failf("two current instances of %s", key)
		}
		found = i
	}
	return found
}

// sweepComponents forgets the components that nobody holds.
func (m *model) sweepComponents() {
	for id := range m.comps {
		if !slices.ContainsFunc(m.insts, func(i *inst) bool { return i.takesRoom() && i.has(id) }) {
			delete(m.comps, id)
		}
	}
}

// recount adds up what the instances take that leave does not name.
func (m *model) recount(leave func(*inst) bool) (booked, reserved Bytes, count int, comps map[string]bool) {
	comps = map[string]bool{} // held → loaded
	for _, i := range m.insts {
		if !i.takesRoom() || leave(i) {
			continue
		}
		count++
		bytes := i.size.Own.plus(i.size.Session.times(max(1, i.session)))
		if i.phase == loading {
			reserved = reserved.plus(bytes)
		} else {
			booked = booked.plus(bytes)
		}
		for _, c := range i.size.Shared {
			comps[c.ID] = comps[c.ID] || i.phase != loading
		}
	}
	for id, loaded := range comps {
		if loaded {
			booked = booked.plus(m.comps[id])
		} else {
			reserved = reserved.plus(m.comps[id])
		}
	}
	return booked, reserved, count, comps
}

func nobody(*inst) bool { return false }

// leaves names what is gone when everything that runs has ended.
func leaves(i *inst) bool { return i.phase == freeing || i.phase == loading && i.stopped() }

// room says whether i could be loaded into one of its choices when those that leave does name are gone. adds says that
// only the pools matter to which it adds bytes, else all that it touches.
func (m *model) room(i *inst, leave func(*inst) bool, adds bool) bool {
	return slices.ContainsFunc(m.choices(i), func(f Footprint) bool { return m.roomAs(f, leave, adds) })
}

func (m *model) roomAs(f Footprint, leave func(*inst) bool, adds bool) bool {
	booked, reserved, count, comps := m.recount(leave)
	need := f.Own.plus(f.Session)
	for _, c := range f.Shared {
		if _, held := comps[c.ID]; !held {
			need = need.plus(c.Bytes)
		}
	}
	touched := need
	if !adds {
		touched = f.Whole()
	}
	used := booked.plus(reserved).plus(m.left).plus(need)
	for p, budget := range m.budgets {
		if touched[p] > 0 && budget > 0 && used[p] > budget {
			return false
		}
	}
	return m.entries < 1 || count < m.entries
}

func (m *model) check() {
	m.checkBooks()
	m.checkStarts()
	m.checkLists()
	m.checkContexts()
	m.checkQueue()
	m.checkLimits()
	m.checkDeadlock()
	m.checkLost()
}

// The books equal a recount, and beyond a budget nothing grows but by a correction or a lowered budget.
func (m *model) checkBooks() {
	booked, reserved, count, _ := m.recount(nobody)
	l := &m.o.ledger
	if booked != l.booked || reserved != l.reserved || m.left != l.unreturned {
		m.failf("booked %v reserved %v unreturned %v, but %v %v %v were counted", l.booked[:3], l.reserved[:3],
			l.unreturned[:3], booked[:3], reserved[:3], m.left[:3])
	}
	if count != m.o.occupied {
		m.failf("%d take room, %d were counted", m.o.occupied, count)
	}
	used := l.used()
	for p, budget := range m.budgets {
		if budget > 0 && used[p] > budget && used[p] > m.before[p] && !m.may.grow {
			m.failf("pool %d grew to %d of %d", p, used[p], budget)
		}
	}
	if m.o.counters.loads.Load() != uint64(m.loads) {
		m.failf("%d loads were counted, %d began", m.o.counters.loads.Load(), m.loads)
	}
	if n := m.o.counters.hits.Load() + m.o.counters.misses.Load(); n != m.asked {
		m.failf("%d hits and misses of %d requests", n, m.asked)
	}
}

// A load begins only where there is room, and leaves the room of those who came before.
func (m *model) checkStarts() {
	used := m.o.ledger.used()
	for _, i := range m.started {
		m.checkPlace(i)
		if m.entries > 0 && m.o.occupied > m.entries {
			m.failf("%s was started as number %d of %d", i.key, m.o.occupied, m.entries)
		}
		added := i.size.Own.plus(i.size.Session)
		for p, budget := range m.budgets {
			if added[p] > 0 && budget > 0 && used[p] > budget {
				m.failf("%s was started beyond the budget of pool %d", i.key, p)
			}
		}
		for _, earlier := range m.insts {
			if earlier == i {
				break
			}
			if earlier.phase != queued || i.nested > 0 || earlier.waitsForItself(m) {
				continue
			}
			left := func(f Footprint) bool {
				cost := m.o.ledger.cost(&f)
				for p, budget := range m.budgets {
					if added[p] > 0 && cost[p] > 0 && budget > 0 && used[p]+cost[p] > budget {
						return false
					}
				}
				return true
			}
			if open := m.choices(earlier); len(open) > 0 && !earlier.retried && !slices.ContainsFunc(open, left) {
				m.failf("%s took the room of %s", i.key, earlier.key)
			}
			if m.entries > 0 && m.o.occupied+1 > m.entries {
				m.failf("%s took the place of %s", i.key, earlier.key)
			}
		}
	}
}

func (i *inst) waitsForItself(m *model) bool {
	return slices.ContainsFunc(m.insts, func(other *inst) bool { return other.key == i.key && other.phase == loading })
}

// Every list and map of the owner has what the model says, in its order.
func (m *model) checkLists() {
	var idle, queue []*inst
	count := 0
	for _, i := range m.insts {
		count++
		if i.phase == resident && i.leases == 0 {
			idle = append(idle, i)
			if i.drain {
				m.failf("%s drains and is idle", i.key)
			}
		}
		if i.phase == asking || i.phase == queued {
			queue = append(queue, i)
		}
		if i.e.leases.length != i.leases || i.e.waiters.length != i.waiters || i.e.sessions != i.session {
			m.failf("%s has %d leases, %d waiters, %d sessions; %d, %d and %d were counted", i.key, i.e.leases.length,
				i.e.waiters.length, i.e.sessions, i.leases, i.waiters, i.session)
		}
	}
	slices.SortFunc(idle, func(a, b *inst) int { return a.use - b.use })
	m.checkList("idle", &m.o.idle, idle)
	m.checkList("queue", &m.o.queue, queue)
	if count != len(m.o.entries) {
		m.failf("%d instances, %d were counted", len(m.o.entries), count)
	}
	for _, key := range m.keys {
		if i := m.current(key); (i == nil) != (m.o.current[key] == nil) || i != nil && m.o.current[key] != i.e {
			m.failf("another instance of %s is current", key)
		}
	}
}

func (m *model) checkList(name string, l *list[entry[int]], want []*inst) {
	n := 0
	l.all(func(e *entry[int]) bool {
		if n >= len(want) || want[n].e != e {
			m.failf("%s is number %d in the %s list", e.key, n, name)
		}
		n++
		return true
	})
	if n != len(want) || n != l.length {
		m.failf("the %s list has %d, %d were counted", name, n, len(want))
	}
}

// What runs is stopped when, and only when, nobody waits for it.
func (m *model) checkContexts() {
	for _, what := range m.pending {
		if i := m.byEntry[what.entry]; what.kind != doFree && (what.ctx.Err() != nil) != (i.waiters == 0) {
			m.failf("%s has %d waiters and its context says %v", i.key, i.waiters, what.ctx.Err())
		}
	}
}

// The first in the queue waits only if it must: it does not fit, and no eviction would make it fit.
func (m *model) checkQueue() {
	for _, i := range m.insts {
		if i.phase != queued || i.waitsForItself(m) {
			continue
		}
		if i.retried && slices.ContainsFunc(m.insts, func(i *inst) bool { return i.phase == freeing }) {
			return
		}
		if m.room(i, nobody, true) && m.o.nested == 0 {
			m.failf("%s waits though it fits", i.key)
		}
		if m.o.nested == 0 && !m.room(i, leaves, false) && m.eviction(i) != nil {
			m.failf("%s waits though evicting would make room", i.key)
		}
		return
	}
}

// While a limit stays exceeded when all that leave have left, nothing that would help is idle.
func (m *model) checkLimits() {
	booked, reserved, count, _ := m.recount(leaves)
	used := booked.plus(reserved).plus(m.left)
	for _, i := range m.insts {
		if i.phase != resident || i.leases > 0 || m.pins[i.key] {
			continue
		}
		if m.entries > 0 && count > m.entries {
			m.failf("%s is idle with %d of %d", i.key, count, m.entries)
		}
		for p, budget := range m.budgets {
			if budget > 0 && used[p] > budget && i.size.Own[p] > 0 {
				m.failf("%s is idle with pool %d at %d of %d", i.key, p, used[p], budget)
			}
		}
	}
}

// eviction looks for any set of idle values that makes room for i.
func (m *model) eviction(i *inst) []*inst {
	var idle []*inst
	for _, other := range m.insts {
		if other.phase == resident && other.leases == 0 && !m.pins[other.key] {
			idle = append(idle, other)
		}
	}
	for set := 1; set < 1<<len(idle); set++ {
		out := func(other *inst) bool {
			at := slices.Index(idle, other)
			return leaves(other) || at >= 0 && set>>at&1 == 1
		}
		if m.room(i, out, false) {
			return idle
		}
	}
	return nil
}

// When nothing runs and every lease belongs to somebody who waits, nobody would ever be served.
func (m *model) checkDeadlock() {
	if len(m.pending) > 0 || len(m.waits) == 0 || m.left != (Bytes{}) {
		return
	}
	for _, h := range m.holds {
		if !slices.ContainsFunc(m.waits, func(wt *wait) bool { return slices.Contains(wt.outer, h) }) {
			return
		}
	}
	m.failf("%d wait for each other", len(m.waits))
}
