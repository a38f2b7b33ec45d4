package cache

import "time"

// This file has the room of sessions: every resident has room for one at work; more take room of their own. So a
// lease always comes to its session in the end: those at work finish, and they wait for nothing.

// enterSession gives r room for one more session, or a growth that will be answered.
func (o *owner[V]) enterSession(now time.Time, l Lease[V]) (*growth[V], bool) {
	r, e := l.record, l.entry
	if !l.holds() {
		return nil, false
	}
	if e.growing == 0 && (e.sessions < e.rooms || !o.isLost(&e.footprint) && o.grow(now, e)) {
		e.sessions++
		r.sessions++
		return nil, true
	}
	g := &growth[V]{entry: e, record: r, answered: make(chan struct{})}
	e.growing++
	o.growths.push(g)
	if o.isLost(&e.footprint) {
		o.answerGrowth(g, o.lostRefusal(e.key, e.footprint.Home))
	}
	return g, true
}

// grow makes room for one more session of e, if it does not take what those in the queue wait for.
func (o *owner[V]) grow(now time.Time, e *entry[V]) bool {
	need := e.footprint.Session
	if !o.ledger.fits(need, o.claims) {
		if o.queue.length > 0 {
			return false
		}
		idle := o.candidates()
		s := o.situation(idle, Bytes{}, 0)
		s.slots = 1
		found := choose(&s, &Footprint{Session: need})
		for _, i := range found.victims {
			o.evict(now, idle[i], ReasonCapacity, e.key, "")
		}
		return false
	}
	o.ledger.booked = o.ledger.booked.plus(need)
	e.rooms++
	return true
}

// growSessions serves leases that wait for a session, where there is room by now.
func (o *owner[V]) growSessions(now time.Time) {
	o.growths.all(func(g *growth[V]) bool {
		if e := g.entry; e.sessions < e.rooms || o.grow(now, e) {
			e.sessions++
			g.record.sessions++
			o.answerGrowth(g, nil)
		}
		return true
	})
}

// exitSession gives the room of one of the lease's sessions back.
func (o *owner[V]) exitSession(now time.Time, l Lease[V]) {
	if !l.holds() || l.record.sessions == 0 {
		return
	}
	l.record.sessions--
	o.leaveSession(l.entry)
	o.advance(now)
}

func (o *owner[V]) leaveSession(e *entry[V]) {
	e.sessions--
	if e.rooms > 1 {
		e.rooms--
		o.ledger.booked = o.ledger.booked.minus(e.footprint.Session)
	}
}

// answerGrowth answers one that waits for a session.
func (o *owner[V]) answerGrowth(g *growth[V], err error) {
	o.growths.remove(g)
	g.entry.growing--
	g.err = err
	close(g.answered)
}

// leaveGrowth takes back a growth whose context ended. If it was answered meanwhile its room is given back.
func (o *owner[V]) leaveGrowth(now time.Time, l Lease[V], g *growth[V]) {
	select {
	case <-g.answered:
		if g.err == nil {
			o.exitSession(now, l)
		}
	default:
		o.answerGrowth(g, nil)
	}
}
