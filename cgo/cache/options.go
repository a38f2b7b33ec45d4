package cache

import (
	"context"
	"time"
)

// How long a value stays when nobody uses it. Other values are durations.
const (
	Forever time.Duration = -1 // until something else needs the room
	AtOnce  time.Duration = 1  // it is freed at its last release
)

// Failure says what a failed load means for the next one.
type Failure uint8

// The kinds of failure that Options.Classify tells apart.
const (
	FailureCools  Failure = iota // the key is not tried again until it has cooled down
	FailurePlain                 // the next one may try at once: there is no such key, or somebody cancelled
	FailureNoRoom                // out of memory: idle values are freed and it is tried once more, then as FailureCools
)

// Options of a Cache. Load and Free are required.
type Options[V any] struct {
	// Pools with their budgets; at most MaxPools.
	Pools []Pool
	// MaxEntries limits the instances that exist at one time, those being loaded and freed included. Below 1 there is
	// no limit.
	MaxEntries int
	// Estimate tells what the value of key will take, before it is loaded, in each place where it could be; nil says
	// nothing is counted. It runs on a goroutine of the cache and its error is the load's.
	Estimate func(ctx context.Context, key string) ([]Footprint, error)
	// Load makes the value of key in the place whose Footprint.Home is home. It runs on a goroutine of the cache, for
	// one key at most once at a time; its ctx ends when nobody waits for it any more or the cache closes. A panic
	// becomes the load's error.
	Load func(ctx context.Context, key string, home int, progress func(done, total int64)) (V, error)
	// Measure tells what a loaded value really takes; nil takes the estimate for it.
	Measure func(value V) Footprint
	// Free releases a value that nobody uses. It runs once per value, outside every lock. residue tells what of the
	// value's own bytes has not come back, now and whenever it is called again; nil says all has.
	Free func(key string, value V) (residue func() Bytes, err error)
	// Classify tells failed loads apart; nil cools down after each but those whose context ended.
	Classify func(err error) Failure
	// Report receives errors that no caller waits for: those of Free. May be nil.
	Report func(key string, err error)
	// Observe hears of every decision as the journal does. It is called under the lock and must not wait. May be nil.
	Observe func(Event)
	// Trace receives every finished lease and load, for a record that can be replayed. It is called under the lock
	// and must not wait. May be nil.
	Trace func(TraceEvent)

	// KeepAlive is the default of Ask.KeepAlive; 0 is Forever.
	KeepAlive time.Duration
	// Patience bounds how long a key can wait for room that busy residents never give up: once the first in the
	// queue has waited this long, a resident that is asked for again drains instead of taking a new lease. 0 is no
	// bound.
	Patience time.Duration
	// CoolDown is how long a key rests after its first failed load; it doubles with each further one, up to
	// MaxCoolDown. 0 is none.
	CoolDown, MaxCoolDown time.Duration
	// Ghosts is how many keys the miss-ratio curve remembers; 0 is 1024.
	Ghosts int
	// Journal is how many events are kept; 0 is 1024.
	Journal int
	// Demand is the access pattern of an earlier life, as Cache.Demand gave it.
	Demand []Demand
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time
}

func (o *Options[V]) fill() {
	if o.Load == nil || o.Free == nil {
		panic("cache: Options.Load and Options.Free are required")
	}
	if len(o.Pools) > MaxPools {
		panic("cache: too many pools")
	}
	if o.Report == nil {
		o.Report = func(string, error) {}
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Trace == nil {
		o.Trace = func(TraceEvent) {}
	}
	if o.Classify == nil {
		o.Classify = classify
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = Forever
	}
	if o.Ghosts == 0 {
		o.Ghosts = 1024
	}
	if o.Journal == 0 {
		o.Journal = 1024
	}
}

// Ask says how a key is asked for. The zero value is a plain request.
type Ask struct {
	Holder string // who: for the journal, and for those who wait because of it
	// KeepAlive is how long the value stays after its last release: 0 for the default, Forever, AtOnce or a duration.
	KeepAlive time.Duration
	// Background asks are not demand: preloads and warm-ups count as neither hit nor miss.
	Background bool
	// Waits, if set, is called on the goroutine of Acquire when the key is not to be had at once, before the wait. It
	// must not panic.
	Waits func()
}

// Outcome is how a key was come by.
type Outcome string

// The outcomes of an Acquire.
const (
	Hit    Outcome = "hit"    // it was resident
	Miss   Outcome = "miss"   // it had to be loaded
	Join   Outcome = "join"   // somebody else's load was under way, or waited for room
	Reject Outcome = "reject" // not at all
)
