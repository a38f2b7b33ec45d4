package cache

import (
	"errors"
	"slices"
	"time"
)

// This file has what the model thinks of evictions, answers and the end.

// Idle values are evicted for a request only if that makes it fit, no more than needed, and never a pinned one.
func (m *model) checkEvictions() {
	events := m.o.journal.since(m.seen)
	victims := map[string][]string{}
	for _, e := range events {
		m.seen = e.Seq
		if e.Kind != EventEvicted {
			continue
		}
		if m.pins[e.Key] {
			m.failf("%s was evicted and is pinned", e.Key)
		}
		if e.Reason == ReasonCapacity {
			victims[e.For] = append(victims[e.For], e.Key)
		}
	}
	if len(victims) != 1 {
		return
	}
	var first *inst
	for _, i := range m.insts {
		if i.phase == queued && !i.waitsForItself(m) {
			first = i
			break
		}
	}
	if first == nil || first.retried || victims[first.key] == nil || len(m.started) > 0 || m.o.nested > 0 {
		return
	}
	first.size = first.e.footprint // of its places, the one they were evicted for
	if !m.roomAs(first.size, leaves, false) {
		m.failf("%v were evicted and %s does not fit", victims, first.key)
	}
	for _, key := range victims[first.key] {
		spared := func(i *inst) bool {
			return leaves(i) && !(i.key == key && i.phase == freeing && i.frees == 1 && m.fresh(i))
		}
		if m.roomAs(first.size, spared, false) {
			m.failf("%s was evicted for %s without need", key, first.key)
		}
	}
}

// fresh says that i's free began in this step.
func (m *model) fresh(i *inst) bool {
	return slices.ContainsFunc(m.pending[max(0, len(m.pending)-8):], func(e effect[int]) bool { return e.entry == i.e && e.kind == doFree })
}

// checkRefused checks an answer given at once.
func (m *model) checkRefused(key string, current *inst, err error) {
	r := new(Refusal)
	switch {
	case m.closed && errors.Is(err, ErrClosed):
	case errors.As(err, &r) && r.Code == RefusedCooling && current == nil && m.cool[key].until.After(m.now) &&
		r.RetryAfter == m.cool[key].until.Sub(m.now):
	default:
		m.failf("%s was refused: %v", key, err)
	}
}

// checkAnswer checks a waiter's error.
func (m *model) checkAnswer(wt *wait) {
	i := wt.inst
	r := new(Refusal)
	whole := i.size.Whole()
	switch err := wt.w.err; {
	case errors.Is(err, ErrClosed) && m.closed:
	case errors.Is(err, ErrSelfBlocked) && wt.outer != nil:
	case errors.As(err, &r) && len(i.places) > 1 && r.Code != RefusedWaiting:
		if open := m.choices(i); len(open) > 0 {
			m.failf("%s was refused and could be in pool %d: %v", i.key, open[0].Home, err)
		}
		i.phase = gone
	case errors.As(err, &r) && r.Code == RefusedLost && m.lost[i.size.Home]:
		i.phase = gone
	case errors.As(err, &r) && r.Code == RefusedPressure:
		for p := range m.held {
			if whole[p] > 0 {
				i.phase = gone
				return
			}
		}
		m.failf("%s was refused by a pool that takes loads", i.key)
	case errors.As(err, &r) && (r.Code == RefusedTooLarge || r.Code == RefusedPinned):
		pinned := func(o *inst) bool { return !m.pins[o.key] || o.drain || leaves(o) }
		left := m.left
		m.left = Bytes{}
		if m.room(i, pinned, false) {
			m.failf("%s was refused and would fit: %v", i.key, err)
		}
		m.left = left
		i.phase = gone
	case i.phase == gone:
	default:
		m.failf("%s was answered %v", i.key, err)
	}
}

// mayYield says whether a resident may go instead of taking a lease.
func (m *model) mayYield(i *inst, outer []*hold) bool {
	if m.config.opts.Patience <= 0 || outer != nil || i.phase != resident || m.pins[i.key] {
		return false
	}
	return slices.ContainsFunc(m.insts, func(first *inst) bool {
		return first.phase == queued && m.now.Sub(first.e.queuedAt) >= m.config.opts.Patience
	})
}

// checkEnd: the owner is empty.
func (m *model) checkEnd() {
	m.did = "end"
	if len(m.o.entries) > 0 || m.o.ledger.used() != (Bytes{}) || len(m.o.ledger.components) > 0 || m.o.running != 0 {
		m.failf("something is left")
	}
	if !m.o.closed {
		m.failf("it is not closed")
	}
	select {
	case <-m.o.empty:
	case <-time.After(time.Second):
		m.failf("Close would wait for ever")
	}
	loads, frees := uint64(m.loads), m.o.counters.frees.Load()
	if loads < frees {
		m.failf("%d loads and %d frees", loads, frees)
	}
}

// calm lets everything end well: then everyone has been answered.
func (m *model) calm() {
	m.did = "calm"
	for p := range m.held {
		delete(m.held, p)
		m.o.hold(m.now, p, "", 0)
	}
	m.observe()
	for len(m.pending)+len(m.holds)+len(m.o.residues) > 0 {
		for len(m.pending) > 0 {
			what := m.pending[0]
			m.pending = m.pending[1:]
			m.end(what, 9)
			m.observe()
		}
		m.giveBackResidues()
		m.observe()
		if len(m.holds) > 0 {
			m.giveBack(m.holds[0])
			m.observe()
		}
	}
	m.did = "calm"
	if len(m.waits) > 0 {
		m.failf("%d wait though nothing runs and nobody holds a lease", len(m.waits))
	}
	m.before, m.may.grow, m.started = m.o.ledger.used(), true, nil
}

func (m *model) giveBackResidues() {
	for r := range m.o.residues {
		m.left = m.left.minus(r.bytes)
		m.o.returned(m.now, r, Bytes{})
		m.observe()
	}
}

// wind shuts the owner down and ends what runs.
func (m *model) wind(first bool) {
	switch {
	case first:
		m.did = "shut"
		m.closed = true
		m.pins = map[string]bool{}
		for _, i := range m.insts {
			switch {
			case i.phase == resident:
				i.drain = true
			case i.phase < loading:
				i.phase = gone
			}
		}
		m.o.shut(m.now)
	case m.chance(20):
		m.acquire()
	case m.chance(50):
		m.release()
	default:
		m.report()
	}
}
