package cache

import (
	"sync"
	"time"
)

// EventKind names a decision of the cache.
type EventKind string

// The decisions in the journal.
const (
	EventLoading    EventKind = "loading"     // a load began
	EventLoaded     EventKind = "loaded"      // it ended
	EventFailed     EventKind = "load_failed" // or failed
	EventStopped    EventKind = "load_stopped"
	EventEvicted    EventKind = "evicted"    // an idle value has to go
	EventDraining   EventKind = "draining"   // a busy one has to go at its last release
	EventFreed      EventKind = "freed"      // it is gone and its memory is back
	EventUnreturned EventKind = "unreturned" // it is gone and its memory is not back
	EventReturned   EventKind = "returned"   // what was unreturned has come back
	EventWaiting    EventKind = "waiting"    // no room can be made
	EventRefused    EventKind = "refused"
	EventCorrected  EventKind = "corrected" // a value takes more or less than was estimated
	EventPressure   EventKind = "pressure"  // a pool takes no loads, or takes them again
	EventLost       EventKind = "lost"      // a pool takes nothing any more
	EventPinned     EventKind = "pinned"
	EventUnpinned   EventKind = "unpinned"
)

// Reason is why a value has to go.
type Reason string

// The reasons in the journal.
const (
	ReasonCapacity  Reason = "capacity"  // another needs the room
	ReasonTTL       Reason = "ttl"       // nobody used it for its keep-alive
	ReasonPressure  Reason = "pressure"  // the pool is short of memory
	ReasonAdmin     Reason = "admin"     // somebody said so
	ReasonConfig    Reason = "config"    // a budget or the limit was lowered, or the value takes more than estimated
	ReasonPatience  Reason = "patience"  // it is busy without end and another waits
	ReasonAbandoned Reason = "abandoned" // nobody waits for it any more
	ReasonShutdown  Reason = "shutdown"
	ReasonLost      Reason = "lost" // the pool it lives in is lost
)

// Event is one decision.
type Event struct {
	Seq      uint64 // 1, 2, 3 …; a gap means events were lost to a slow reader
	At       time.Time
	Kind     EventKind
	Key      string
	Reason   Reason
	For      string // the key that needs the room
	RunnerUp string // the key that would have been next
	Pool     string
	Bytes    int64 // that the event is about, over all pools
	Took     time.Duration
	Holder   string // who asked
	Blockers []Blocker
	Error    string
}

// journal keeps the latest events and tells them to those who listen. It has a lock of its own, taken under the
// cache's; it never waits for a listener.
type journal struct {
	mu        sync.Mutex
	ring      []Event
	seq       uint64
	listeners map[*Listener]struct{}
}

func newJournal(size int) *journal {
	return &journal{ring: make([]Event, 0, size), listeners: make(map[*Listener]struct{})}
}

func (j *journal) add(e Event) Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	e.Seq = j.seq
	if len(j.ring) < cap(j.ring) {
		j.ring = append(j.ring, e)
	} else {
		j.ring[(e.Seq-1)%uint64(cap(j.ring))] = e
	}
	for l := range j.listeners {
		select {
		case l.events <- e:
		default: // the gap in Seq tells
		}
	}
	return e
}

// since returns the kept events after seq, oldest first.
func (j *journal) since(seq uint64) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sinceLocked(seq)
}

func (j *journal) sinceLocked(seq uint64) []Event {
	var out []Event
	first := j.seq - uint64(len(j.ring))
	for n := max(seq, first); n < j.seq; n++ {
		out = append(out, j.ring[n%uint64(cap(j.ring))])
	}
	return out
}

// A Listener receives events as they happen. It must be closed.
type Listener struct {
	journal *journal
	events  chan Event
}

// listenerBuffer is how many events a listener may lag behind before it loses some.
const listenerBuffer = 256

func (j *journal) listen(seq uint64) (*Listener, []Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := &Listener{journal: j, events: make(chan Event, listenerBuffer)}
	j.listeners[l] = struct{}{}
	return l, j.sinceLocked(seq)
}

// Events is closed by Close only.
func (l *Listener) Events() <-chan Event { return l.events }

// Close ends the listening. It may be called more than once.
func (l *Listener) Close() {
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	if _, open := l.journal.listeners[l]; open {
		delete(l.journal.listeners, l)
		close(l.events)
	}
}
