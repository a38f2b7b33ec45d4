package cache

import "time"

// TraceEvent is one finished lease, of a request and not of a preload, or one finished load.
type TraceEvent struct {
	At     time.Time // when it was asked for, or the load began
	Key    string
	Waited time.Duration // for the lease
	Held   time.Duration
	Load   time.Duration
	// Footprint is what a loaded value takes; nil for a lease.
	Footprint *Footprint
}
