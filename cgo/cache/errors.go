package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrClosed is returned by a cache that is closed or closing.
var ErrClosed = errors.New("cache is closed")

// ErrSelfBlocked is returned to a nested Acquire (Lease.Context) that could only be served after the caller's own
// leases are released.
var ErrSelfBlocked = errors.New("waits for room that the caller's own leases hold")

// ErrLost is what a Refusal wraps whose pool is lost.
var ErrLost = errors.New("the memory is lost")

var errNoPlace = errors.New("there is no place for it")

// A Refusal is why a key cannot be had now, and when it makes sense to ask again.
type Refusal struct {
	Key        string
	Code       RefusalCode
	RetryAfter time.Duration // 0: no use
	Pool       string        // which memory, where one is to blame
	Need       int64         // bytes the key needs there
	Budget     int64         // bytes there are
	Pinned     []string      // that stand in the way
	Blockers   []Blocker     // that stand in the way
	Why        string        // of a pool that takes no loads, or is lost
	Err        error         // the failed load, or the end of the caller's context
}

// RefusalCode is the kind of a Refusal.
type RefusalCode string

// The kinds of a Refusal.
const (
	RefusedTooLarge RefusalCode = "too_large"    // more than the whole budget
	RefusedPinned   RefusalCode = "pinned"       // more than the pinned values leave
	RefusedPressure RefusalCode = "pressure"     // the pool takes no loads
	RefusedLost     RefusalCode = "lost"         // the pool is lost, and so is every other place
	RefusedCooling  RefusalCode = "cooling_down" // its last load failed
	RefusedWaiting  RefusalCode = "no_room"      // the caller's context ended while it waited
)

// A Blocker is a lease in whose way somebody waits.
type Blocker struct {
	Key    string
	Holder string
	Held   time.Duration
}

func (r *Refusal) Error() string {
	switch r.Code {
	case RefusedTooLarge:
		return fmt.Sprintf("%q needs %d bytes of %s, whose budget is %d", r.Key, r.Need, r.Pool, r.Budget)
	case RefusedPinned:
		return fmt.Sprintf("%q finds no room beside what is pinned: %s", r.Key, strings.Join(r.Pinned, ", "))
	case RefusedPressure:
		return fmt.Sprintf("%q is not loaded while %s is short of memory (%s); try again in %v", r.Key, r.Pool, r.Why, r.RetryAfter)
	case RefusedLost:
		return fmt.Sprintf("%q has no place: %s is lost (%s)", r.Key, r.Pool, r.Why)
	case RefusedCooling:
		return fmt.Sprintf("%q is not tried again for %v: %v", r.Key, r.RetryAfter, r.Err)
	}
	if len(r.Blockers) == 0 {
		return fmt.Sprintf("%q is still being loaded: %v", r.Key, r.Err)
	}
	var names []string
	for _, b := range r.Blockers {
		name := b.Key
		if b.Holder != "" {
			name += " for " + b.Holder
		}
		names = append(names, fmt.Sprintf("%s (%v)", name, b.Held.Round(time.Millisecond)))
	}
	return fmt.Sprintf("%q waits for room that is in use: %s: %v", r.Key, strings.Join(names, ", "), r.Err)
}

// Unwrap returns the failed load's error, or that of the context.
func (r *Refusal) Unwrap() error { return r.Err }

// classify is the default of Options.Classify.
func classify(err error) Failure {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return FailurePlain
	}
	return FailureCools
}
