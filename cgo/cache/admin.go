package cache

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"
)

// Cleared says what Clear, Remove and Close did.
type Cleared struct {
	Freed    []string // idle ones, freed when the call returned; least recently used first
	Draining []string // in use or being loaded: freed at their last release
	Bytes    int64    // of those freed
}

// Clear takes everything out of use: idle values are freed before it returns, leased ones and those being loaded
// at their last release. Whatever is acquired after Clear was loaded after Clear.
func (c *Cache[V]) Clear() Cleared {
	return c.retire(func(*entry[V]) bool { return true })
}

// Remove does for one key what Clear does for all. An absent key is not an error.
func (c *Cache[V]) Remove(key string) Cleared {
	return c.retire(func(e *entry[V]) bool { return e.key == key })
}

func (c *Cache[V]) retire(chosen func(*entry[V]) bool) Cleared {
	var cleared Cleared
	c.mu.Lock()
	freeing := c.retireLockedWhere(chosen, &cleared)
	c.counters.Removals += uint64(len(cleared.Freed) + len(cleared.Draining))
	c.advanceLocked()
	c.mu.Unlock()
	for _, e := range freeing {
		<-e.freed
	}
	return cleared
}

// retireLockedWhere retires the chosen entries that Acquire finds, except those that wait for room: they will be
// loaded afresh anyway. It returns those whose free has begun.
func (c *Cache[V]) retireLockedWhere(chosen func(*entry[V]) bool, cleared *Cleared) []*entry[V] {
	var found, freeing []*entry[V]
	for _, e := range c.current {
		if e.state != Reserving && chosen(e) {
			found = append(found, e)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].use < found[j].use })
	for _, e := range found {
		c.retireLocked(e)
		if e.state == Freeing {
			freeing = append(freeing, e)
			cleared.Freed = append(cleared.Freed, e.key)
			cleared.Bytes += e.bytes
		} else {
			cleared.Draining = append(cleared.Draining, e.key)
		}
	}
	return freeing
}

// Close refuses new leases, stops loads, answers everyone who waits with ErrClosed, frees what is idle and waits
// until the last lease is released and freed, or until ctx ends: then the error names what is still in use. It
// may be called again to go on waiting.
func (c *Cache[V]) Close(ctx context.Context) error {
	c.mu.Lock()
	if !c.closed {
		c.shutLocked()
	}
	c.mu.Unlock()
	select {
	case <-c.empty:
		c.running.Wait() // their last statements
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close cache: still in use: %s: %w", strings.Join(c.remaining(), ", "), ctx.Err())
	}
}

func (c *Cache[V]) shutLocked() {
	c.stopBase()
	for _, e := range c.queue {
		c.failLocked(e, ErrClosed)
		c.goneLocked(e)
	}
	c.queue = nil
	for e := range c.entries {
		if e.state == Loading && e.waiters > 0 {
			c.failLocked(e, ErrClosed) // the load ends when it hears of it; its room is kept until then
		}
	}
	var cleared Cleared
	c.retireLockedWhere(func(*entry[V]) bool { return true }, &cleared)
	c.counters.Removals += uint64(len(cleared.Freed) + len(cleared.Draining))
	c.closed = true
	if len(c.entries) == 0 {
		close(c.empty)
	}
}

func (c *Cache[V]) remaining() []string {
	var keys []string
	for _, e := range c.Snapshot().Entries {
		keys = append(keys, fmt.Sprintf("%s (%s, %d leases)", e.Key, e.State, e.Leases))
	}
	return keys
}

// Counters count since the cache was made.
type Counters struct {
	Hits         uint64 // acquired from a resident value at once
	Misses       uint64 // had to wait for a load, a running one included
	Joins        uint64 // misses that joined a load or its queue
	Loads        uint64 // loads begun
	LoadFailures uint64 // stopped loads included
	Evictions    uint64 // values given up to make room
	Removals     uint64 // values given up by Clear, Remove and Close
	Frees        uint64 // values freed, whatever the reason
	FreeFailures uint64
}

// Entry describes one instance at the time of a snapshot.
type Entry struct {
	Key      string
	State    State
	Leases   int
	Waiters  int // callers that wait for its load
	Bytes    int64
	Age      time.Duration // since its load ended; 0 before
	Idle     time.Duration // since it was last acquired or released
	LoadTook time.Duration
}

// Snapshot is the state of a cache at one moment.
type Snapshot struct {
	Counters
	MaxEntries int     // below 1: no limit
	Entries    []Entry // least recently used first; keys that wait for room included
	Resident   int     // ready, leased or draining
	Leases     int
	Waiting    int   // callers that wait
	Bytes      int64 // of all instances until they are freed
}

// Snapshot returns the cache's present state.
func (c *Cache[V]) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Clock()
	s := Snapshot{Counters: c.counters, MaxEntries: c.opts.MaxEntries, Entries: make([]Entry, 0, len(c.entries))}
	ordered := make([]*entry[V], 0, len(c.entries))
	for e := range c.entries {
		ordered = append(ordered, e)
	}
	sort.Slice(ordered, func(i, j int) bool { return ordered[i].use < ordered[j].use })
	for _, e := range ordered {
		described := Entry{Key: e.key, State: e.state, Leases: e.leases, Waiters: e.waiters, Bytes: e.bytes,
			Idle: now.Sub(e.usedAt), LoadTook: e.loadTook}
		if !e.loadedAt.IsZero() {
			described.Age = now.Sub(e.loadedAt)
		}
		if e.state == Ready || e.state == Leased || e.state == Draining {
			s.Resident++
		}
		s.Leases += e.leases
		s.Waiting += e.waiters
		s.Bytes += e.bytes
		s.Entries = append(s.Entries, described)
	}
	return s
}
