package cache

// A candidate is an idle resident value that could be evicted.
type candidate struct {
	held   Bytes       // beside its components
	shared []Component // of its footprint
}

// A situation is what choose decides on: the books as they will be when everything that leaves by itself has left.
type situation struct {
	ledger  *ledger
	used    Bytes          // booked, reserved, unreturned and claimed by those ahead, less what is being freed
	holders map[string]int // of each component, less those being freed
	slots   int            // instances that may still be added; negative when there are too many
	idle    []candidate    // least recently used first, none that is pinned
}

// A choice says which candidates have to go.
type choice struct {
	ok       bool  // with the victims gone there is room
	victims  []int // indices into the situation's idle
	runnerUp int   // who would have been next; -1 for nobody
}

// choose picks victims so that f (nil for nothing) fits: the least recently used first, none that would not help, and
// no more than needed: put back any one of them and f does not fit.
func choose(s *situation, f *Footprint) choice {
	w := weighing{situation: s, f: f, out: make([]bool, len(s.idle)), dropped: make(map[string]int)}
	found := choice{runnerUp: -1}
	over, fits := w.lack()
	for i := 0; i < len(s.idle) && !fits; i++ {
		if w.helps(i, over) {
			w.set(i, true)
			over, fits = w.lack()
		}
	}
	if !fits {
		return found
	}
	for i := len(s.idle) - 1; i >= 0; i-- { // the most recently used are spared first
		if !w.out[i] {
			continue
		}
		w.set(i, false)
		if _, fits := w.lack(); !fits {
			w.set(i, true)
		}
	}
	found.ok = true
	for i, out := range w.out {
		switch {
		case out:
			found.victims = append(found.victims, i)
		case found.runnerUp < 0:
			found.runnerUp = i
		}
	}
	return found
}

// least picks victims so that what is beyond the limits becomes as little as it can, which may be more than nothing.
func least(s situation) choice {
	w := weighing{situation: &s, out: make([]bool, len(s.idle)), dropped: make(map[string]int)}
	for i := range s.idle {
		w.set(i, true)
	}
	over, _ := w.lack()
	s.used = s.used.minus(over)
	s.slots = max(s.slots, -len(s.idle))
	return choose(&s, nil)
}

// weighing is choose's arithmetic for one set of victims.
type weighing struct {
	*situation
	f       *Footprint
	out     []bool
	count   int
	freed   Bytes          // of the victims, beside components
	dropped map[string]int // component → holders among the victims
}

func (w *weighing) set(i int, out bool) {
	sign := 1
	if !out {
		sign = -1
	}
	w.out[i] = out
	w.count += sign
	c := &w.idle[i]
	if out {
		w.freed = w.freed.plus(c.held)
	} else {
		w.freed = w.freed.minus(c.held)
	}
	for _, part := range c.shared {
		w.dropped[part.ID] += sign
	}
}

// lack returns the bytes still missing in each pool, and whether nothing is missing.
func (w *weighing) lack() (over Bytes, fits bool) {
	used := w.used.minus(w.freed)
	for id, n := range w.dropped {
		if n > 0 && n >= w.holders[id] {
			used = used.minus(w.ledger.components[id].bytes)
		}
	}
	slots := w.slots + w.count
	if w.f == nil {
		over, beyond := w.ledger.over(used)
		return over, !beyond && slots >= 0
	}
	used = used.plus(w.f.Own).plus(w.f.Session)
	for _, c := range w.f.Shared {
		if w.holders[c.ID] <= w.dropped[c.ID] {
			used = used.plus(c.Bytes)
		}
	}
	over, short := w.ledger.short(used, w.f.Whole())
	return over, !short && slots > 0
}

// helps says whether candidate i takes any of what is missing.
func (w *weighing) helps(i int, over Bytes) bool {
	slots := w.slots + w.count
	if w.f != nil {
		slots--
	}
	if slots < 0 {
		return true
	}
	takes := w.idle[i].held
	for _, c := range w.idle[i].shared {
		takes = takes.plus(c.Bytes)
	}
	for pool, missing := range over {
		if missing > 0 && takes[pool] > 0 {
			return true
		}
	}
	return false
}
