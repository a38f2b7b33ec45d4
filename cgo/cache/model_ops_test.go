package cache

import (
	"errors"
	"slices"
	"time"
)

// This file has the model's steps: what a random caller, loader or operator does, and what the model makes of it.

func pick[T any](m *model, from []T) T { return from[m.random.IntN(len(from))] }

func (m *model) chance(percent int) bool { return m.random.IntN(100) < percent }

func (m *model) act() {
	m.now = m.now.Add(time.Duration(m.random.IntN(400)) * time.Millisecond)
	switch n := m.random.IntN(100); {
	case n < 30:
		m.acquire()
	case n < 55:
		m.report()
	case n < 72:
		m.release()
	case n < 78:
		m.leave()
	case n < 84:
		m.sessionStep()
	default:
		m.operate()
	}
}

func (m *model) acquire() {
	key := pick(m, m.keys)
	m.did = "acquire " + key
	ask := Ask{Background: m.chance(15)}
	if m.chance(20) {
		ask.KeepAlive = pick(m, []time.Duration{Forever, AtOnce, 3 * time.Second})
	}
	var outer []*hold
	if len(m.holds) > 0 && m.chance(25) {
		outer = []*hold{pick(m, m.holds)}
	}
	if len(m.waits) > 7 || len(m.holds) > 7 {
		return
	}
	m.request(key, ask, outer)
}

func (m *model) request(key string, ask Ask, outer []*hold) {
	var leases []Lease[int]
	for _, h := range outer {
		leases = append(leases, h.lease)
	}
	if !ask.Background && !m.closed {
		m.asked++
	}
	current := m.current(key)
	lease, w, err := m.o.acquire(m.now, key, ask, leases)
	switch {
	case err != nil:
		m.checkRefused(key, current, err)
	case w == nil:
		i := m.byEntry[lease.entry]
		if i == nil || i != current || i.phase != resident {
			m.failf("the lease is not on the resident value")
		}
		m.give(i, lease, m.keepOf(ask))
	default:
		m.join(key, current, w, outer, m.keepOf(ask))
	}
}

func (m *model) keepOf(ask Ask) time.Duration {
	if ask.KeepAlive != 0 {
		return ask.KeepAlive
	}
	if m.config.opts.KeepAlive != 0 {
		return m.config.opts.KeepAlive
	}
	return Forever
}

// join books a waiter on the instance it was put on.
func (m *model) join(key string, current *inst, w *waiter[int], outer []*hold, keep time.Duration) {
	i := m.byEntry[w.entry]
	if i == nil {
		if current != nil {
			if !m.mayYield(current, outer) {
				m.failf("a second instance of %s", key)
			}
			current.drain = true
		}
		i = &inst{e: w.entry, key: key}
		m.insts = append(m.insts, i)
		m.byEntry[w.entry] = i
	} else if i != current || i.phase > loading {
		m.failf("joined the wrong instance of %s", key)
	}
	i.waiters++
	if outer != nil {
		i.nested++
	}
	m.waits = append(m.waits, &wait{w: w, inst: i, outer: outer, keep: keep})
}

// give books a lease.
func (m *model) give(i *inst, l Lease[int], keep time.Duration) {
	if l.entry != i.e || l.Value() != i.value {
		m.failf("the lease on %s has the value of another", i.key)
	}
	i.leases++
	m.uses++
	i.use, i.keep = m.uses, keep
	m.holds = append(m.holds, &hold{lease: l, inst: i})
}

func (m *model) release() {
	if len(m.stale) > 0 && m.chance(10) {
		m.did = "release twice"
		if m.o.release(m.now, pick(m, m.stale)) {
			m.failf("a released lease was released again")
		}
		return
	}
	if len(m.holds) > 0 {
		m.giveBack(pick(m, m.holds))
	}
}

func (m *model) giveBack(h *hold) {
	m.did = "release " + h.inst.key
	m.holds = slices.DeleteFunc(m.holds, func(other *hold) bool { return other == h })
	if len(m.stale) < 20 {
		m.stale = append(m.stale, h.lease)
	}
	h.inst.leases--
	h.inst.session -= h.session
	m.uses++
	h.inst.use, h.inst.rested = m.uses, m.now
	if !m.o.release(m.now, h.lease) {
		m.failf("a held lease was not taken back")
	}
}

// leave ends a waiter's context.
func (m *model) leave() {
	if len(m.grows) > 0 && m.chance(30) {
		m.did = "leave a session"
		g := pick(m, m.grows)
		m.o.leaveGrowth(m.now, g.hold.lease, g.g)
		m.grows = slices.DeleteFunc(m.grows, func(other *grow) bool { return other == g })
		return
	}
	if len(m.waits) == 0 {
		return
	}
	wt := pick(m, m.waits)
	m.did = "leave " + wt.inst.key
	m.unwait(wt)
	cause := errors.New("cancelled")
	err := m.o.leave(m.now, wt.w, cause)
	if !errors.Is(err, cause) {
		m.failf("the waiter that left was told %v", err)
	}
}

func (m *model) unwait(wt *wait) {
	m.waits = slices.DeleteFunc(m.waits, func(other *wait) bool { return other == wt })
	wt.inst.waiters--
	if wt.outer != nil {
		wt.inst.nested--
	}
	if wt.inst.stopped() && wt.inst.phase != loading {
		wt.inst.phase = gone
	}
}

func (m *model) sessionStep() {
	if len(m.holds) == 0 {
		return
	}
	h := pick(m, m.holds)
	if m.chance(50) {
		m.did = "enter " + h.inst.key
		g, ok := m.o.enterSession(m.now, h.lease)
		switch {
		case !ok:
			m.failf("a held lease may not enter")
		case g == nil:
			m.enter(h)
		default:
			m.grows = append(m.grows, &grow{g: g, hold: h})
		}
		return
	}
	m.did = "exit " + h.inst.key
	if h.session > 0 {
		h.session--
		h.inst.session--
	}
	m.o.exitSession(m.now, h.lease)
}

func (m *model) enter(h *hold) {
	h.session++
	h.inst.session++
}

// report ends one of the effects that run.
func (m *model) report() {
	if len(m.pending) == 0 {
		return
	}
	at := m.random.IntN(len(m.pending))
	what := m.pending[at]
	m.pending = slices.Delete(m.pending, at, at+1)
	m.end(what, m.random.IntN(10))
}

// end ends an effect; luck says how, and 9 is well.
func (m *model) end(what effect[int], luck int) {
	i := m.byEntry[what.entry]
	switch what.kind {
	case doEstimate:
		m.did = "estimated " + i.key
		m.endEstimate(i, luck)
	case doLoad:
		m.did = "loaded " + i.key
		m.endLoad(i, luck)
	case doFree:
		m.did = "freed " + i.key
		m.endFree(i, luck)
	}
}

func (m *model) endEstimate(i *inst, luck int) {
	places := slices.Clone(m.placesOf(i.key))
	var err error
	switch luck {
	case 0:
		err = errors.New("no such file")
	case 1:
		for p := range places {
			places[p].Own[0] += 100 * int64(min(1, len(m.budgets)))
		}
	}
	if i.phase != gone {
		i.places, i.size = places, places[0]
		if i.phase = queued; err != nil {
			m.fails(i)
		}
	}
	m.o.estimated(m.now, i.e, places, err)
}

// fails ends an instance whose estimate or load has failed.
func (m *model) fails(i *inst) {
	i.phase = gone
	if cd := m.config.opts.CoolDown; cd > 0 && i.waiters > 0 && !m.closed {
		delay := max(cd, 2*m.cool[i.key].delay)
		if limit := m.config.opts.MaxCoolDown; limit > 0 {
			delay = min(delay, limit)
		}
		m.cool[i.key] = coolRef{until: m.now.Add(delay), delay: delay}
	}
}

func (m *model) endLoad(i *inst, luck int) {
	actual := i.size
	var err error
	switch luck {
	case 0:
		err = errors.New("broken")
	case 1:
		err = errNoRoom
	case 2:
		actual.Own[0] += int64(m.random.IntN(4))
	case 3:
		if len(actual.Shared) > 0 { // it is larger than it said, or not there
			actual.Shared = slices.Clone(actual.Shared)
			actual.Shared[0].Bytes[0]++
			actual.Shared = actual.Shared[m.random.IntN(2):]
		}
	}
	if len(m.budgets) == 0 {
		actual.Own[0] = 0
	}
	switch {
	case err == nil:
		m.may.grow = true
		m.arrive(i, actual)
	case m.lost[i.size.Home] && i.waiters > 0 && !m.closed:
		m.again(i)
	case errors.Is(err, errNoRoom) && !i.retried && i.waiters > 0 && !m.closed:
		i.retried = true
		m.again(i)
	default:
		m.fails(i)
	}
	m.made++
	i.value = m.made
	m.o.loaded(m.now, i.e, m.made, actual, err)
}

// arrive makes i resident; components have the size they were first loaded with.
func (m *model) arrive(i *inst, actual Footprint) {
	for _, c := range actual.Shared {
		first := true
		for _, other := range m.insts {
			if other != i && other.isLoaded() && other.has(c.ID) {
				first = false
			}
		}
		if first {
			m.comps[c.ID] = c.Bytes
		}
	}
	delete(m.cool, i.key)
	i.size = actual
	i.phase = resident
	i.drain = i.drain || m.lost[actual.Home]
	i.rested = m.now
	m.uses++
	i.use = m.uses
}

func (i *inst) has(id string) bool {
	return slices.ContainsFunc(i.size.Shared, func(c Component) bool { return c.ID == id })
}

func (m *model) endFree(i *inst, luck int) {
	var left Bytes
	var err error
	switch luck {
	case 0:
		left = i.size.Own
	case 1:
		err = errors.New("the driver says no")
	}
	i.phase = gone
	m.left = m.left.plus(left)
	m.o.freedNow(m.now, i.e, left, func() Bytes { return Bytes{} }, err)
}
