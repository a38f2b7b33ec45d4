package cache

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Counters count since the cache was made.
type Counters struct {
	Hits         uint64 // served from a resident value at once
	Misses       uint64 // had to wait, or were refused
	Joins        uint64 // misses that joined a load or its queue
	Loads        uint64 // begun
	LoadFailures uint64 // stopped loads are none
	Evictions    uint64 // of all reasons
	Removals     uint64 // values given up by Clear, Remove and Close
	Frees        uint64 // whatever the reason
	FreeFailures uint64
	Yields       uint64 // busy values that drain because another has waited for the patience
	Refusals     uint64
	ByReason     map[Reason]uint64 // evictions
}

// Counters returns the counters without taking the lock.
func (c *Cache[V]) Counters() Counters {
	n := &c.own.counters
	out := Counters{
		Hits: n.hits.Load(), Misses: n.misses.Load(), Joins: n.joins.Load(), Loads: n.loads.Load(),
		LoadFailures: n.loadFailures.Load(), Removals: n.removals.Load(), Frees: n.frees.Load(),
		FreeFailures: n.freeFailures.Load(), Yields: n.yields.Load(), Refusals: n.refusals.Load(),
		ByReason: make(map[Reason]uint64),
	}
	for i, why := range evictionReasons {
		out.ByReason[why] = n.evictions[i].Load()
		out.Evictions += out.ByReason[why]
	}
	return out
}

// Entry describes one instance at the time of a snapshot.
type Entry struct {
	Key       string
	State     State
	Pinned    bool
	Holders   []Blocker // its leases, longest held first
	Leases    int
	Waiters   int    // callers that wait for it
	Sessions  int    // at work
	Pool      string // it lives in; "" while it waits for room
	Own       Bytes
	Session   Bytes // for each of Rooms
	Rooms     int
	Shared    []Component
	Progress  Progress      // of its load
	Age       time.Duration // since its load ended; 0 before
	Idle      time.Duration // since it was last acquired or released
	Expires   time.Duration // until it goes by itself; negative for never or while in use
	LoadTook  time.Duration
	Evictable bool
}

// Bytes is what the entry takes beside its components.
func (e *Entry) Bytes() Bytes { return e.Own.plus(e.Session.times(e.Rooms)) }

// PoolState is one pool's ledger.
type PoolState struct {
	Pool
	Booked, Reserved, Unreturned int64
	Refusing                     string    // why it takes no loads; empty when it does
	Lost                         string    // why it takes none any more
	LostAt                       time.Time // zero for not
}

// Held is a component in the ledger.
type Held struct {
	Component
	Holders int
}

// Failed is a key that rests after a failed load.
type Failed struct {
	Key   string
	Until time.Duration
	Err   error
}

// Unreturned is a freed value that has not given all of its memory back.
type Unreturned struct {
	Key   string
	Bytes int64
	Since time.Duration
}

// Snapshot is the state of a cache at one moment.
type Snapshot struct {
	Counters
	MaxEntries int     // below 1: no limit
	Entries    []Entry // least recently used first; keys that wait for room included
	Pools      []PoolState
	Components []Held
	Failed     []Failed
	Unreturned []Unreturned
	Pins       []string
	Resident   int // ready, leased or draining
	Leases     int
	Waiting    int // callers that wait
	Closed     bool
}

// Snapshot returns the cache's present state.
func (c *Cache[V]) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.own.snapshot(c.opts.Clock())
	s.Counters = c.Counters()
	return s
}

func (o *owner[V]) snapshot(now time.Time) Snapshot {
	s := Snapshot{MaxEntries: o.opts.MaxEntries, Closed: o.closed, Entries: make([]Entry, 0, len(o.entries))}
	for _, e := range o.byUse() {
		described := o.describe(now, e)
		if e.resident() {
			s.Resident++
		}
		s.Leases += described.Leases
		s.Waiting += described.Waiters
		s.Entries = append(s.Entries, described)
	}
	for i, pool := range o.ledger.pools {
		s.Pools = append(s.Pools, PoolState{Pool: pool, Booked: o.ledger.booked[i], Reserved: o.ledger.reserved[i],
			Unreturned: o.ledger.unreturned[i], Refusing: o.refusing[i].why,
			Lost: o.lost[i].why, LostAt: o.lost[i].since})
	}
	for id, h := range o.ledger.components {
		s.Components = append(s.Components, Held{Component{id, h.bytes}, h.holders})
	}
	slices.SortFunc(s.Components, func(a, b Held) int { return strings.Compare(a.ID, b.ID) })
	for key, cooling := range o.cooling {
		if cooling.until.After(now) {
			s.Failed = append(s.Failed, Failed{Key: key, Until: cooling.until.Sub(now), Err: cooling.err})
		}
	}
	slices.SortFunc(s.Failed, func(a, b Failed) int { return strings.Compare(a.Key, b.Key) })
	for r := range o.residues {
		s.Unreturned = append(s.Unreturned, Unreturned{Key: r.key, Bytes: r.bytes.Total(), Since: now.Sub(r.since)})
	}
	slices.SortFunc(s.Unreturned, func(a, b Unreturned) int { return cmp.Compare(b.Since, a.Since) })
	for key := range o.pins {
		s.Pins = append(s.Pins, key)
	}
	slices.Sort(s.Pins)
	return s
}

func (o *owner[V]) describe(now time.Time, e *entry[V]) Entry {
	out := Entry{Key: e.key, State: e.state, Pinned: o.pinned(e.key), Holders: o.holders(now, e), Leases: e.leases.length,
		Waiters: e.waiters.length, Sessions: e.sessions, Progress: e.progress, Idle: now.Sub(e.usedAt), Expires: -1,
		LoadTook: e.loadTook, Rooms: e.rooms}
	if e.state != Reserving {
		out.Own, out.Session, out.Shared = e.footprint.Own, e.footprint.Session, e.footprint.Shared
		out.Pool = o.poolName(e.footprint.Home)
	}
	if !e.loadedAt.IsZero() {
		out.Age = now.Sub(e.loadedAt)
	}
	if e.state == Ready && !e.expires.IsZero() {
		out.Expires = max(0, e.expires.Sub(now))
	}
	out.Evictable = e.state == Ready && !out.Pinned
	return out
}

// Plan says what a load of a key would do now.
type Plan struct {
	Key       string
	State     State // of the key; Freeing when it is absent
	Resident  bool
	Pool      string // where it lives, or would
	Footprint Footprint
	Needs     Bytes // what it would add, given the components that are held
	Fits      bool  // without evicting anybody
	Victims   []Entry
	Frees     Bytes // what the victims give back
	RunnerUp  string
	Wait      time.Duration // until it is ready, by what was measured so far; 0 when resident
	Blockers  []Blocker     // whose leases are in the way
	Ahead     []string      // keys that wait before it
	Refusal   error         // why it would be refused
}

// plan answers without changing anything. places are where key could be.
func (o *owner[V]) plan(now time.Time, key string, places []Footprint) Plan {
	probe := &entry[V]{key: key, state: Reserving, sized: true, places: places, footprint: places[0], queuedAt: now, rooms: 1}
	refused := o.refusal(now, probe)
	f := probe.footprint
	p := Plan{Key: key, State: Freeing, Pool: o.poolName(f.Home), Footprint: f, Needs: o.ledger.cost(&f)}
	if e := o.current[key]; e != nil {
		if e.sized {
			p.Pool = o.poolName(e.footprint.Home)
		}
		p.State, p.Resident = e.state, e.state == Ready || e.state == Leased
		if p.Resident {
			p.Needs = Bytes{}
			return p
		}
		p.Wait = o.expectedWait(now, e)
		p.Blockers = o.blockers(now, e)
		return p
	}
	if p.Refusal = refused; p.Refusal != nil {
		return p
	}
	o.queue.all(func(e *entry[V]) bool {
		p.Ahead = append(p.Ahead, e.key)
		return true
	})
	load := time.Duration(o.loadPace.mean * float64(f.Whole().Total()) * float64(time.Second))
	p.Wait = load
	if o.slots()-o.claimed > 0 && o.ledger.fits(p.Needs, o.claims) {
		p.Fits = true
		return p
	}
	idle := o.candidates()
	s := o.situation(idle, o.claims, o.claimed)
	found := choose(&s, &f)
	if !found.ok {
		p.Wait = o.expectedWait(now, probe)
		p.Blockers = o.blockers(now, probe)
		return p
	}
	gone := make(map[*entry[V]]bool)
	for _, i := range found.victims {
		gone[idle[i]] = true
		p.Victims = append(p.Victims, o.describe(now, idle[i]))
	}
	if found.runnerUp >= 0 {
		p.RunnerUp = idle[found.runnerUp].key
	}
	p.Frees = o.heldBy(gone)
	return p
}

func (o *owner[V]) poolName(pool int) string {
	if pool >= len(o.ledger.pools) {
		return ""
	}
	return o.ledger.pools[pool].Name
}

// refusal is why a newcomer would be told at once that it cannot be had; nil when it would not.
func (o *owner[V]) refusal(now time.Time, e *entry[V]) error {
	if o.closed {
		return ErrClosed
	}
	if r := o.coolingDown(now, e.key); r != nil {
		return r
	}
	if r := o.place(now, e); r != nil {
		return r
	}
	if r := o.impossible(e.key, &e.footprint); r != nil {
		return r
	}
	return nil
}
