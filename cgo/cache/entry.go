package cache

import (
	"context"
	"time"
)

// State is where an instance is between absent and absent.
type State uint8

// The states of an instance, in the order it passes through them; ready and leased alternate. doc.go says more.
const (
	Reserving State = iota
	Loading
	Ready
	Leased
	Draining
	Freeing
)

// String returns the state's name in lower case.
func (s State) String() string {
	names := [...]string{"reserving", "loading", "ready", "leased", "draining", "freeing"}
	if int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// An entry is one instance of a key's value. The owner's fields are guarded by whoever guards the owner; value is
// written before the first lease is given out and never after.
type entry[V any] struct {
	key   string
	value V
	state State
	drain bool // takes no new lease; freed at the last release. Set while loading or leased
	gone  bool // its last report has come: it has left the owner
	node  *demand

	// While reserving and loading.
	sized     bool        // places are known
	places    []Footprint // where it could be, by rank
	footprint Footprint   // where it is, or is to be
	retried   bool        // its load ran out of memory once; it begins again when after have left
	after     []*entry[V] // what was being freed then
	stopped   bool        // nobody waits for its load any more, or the cache closed
	cancel    context.CancelFunc
	waiters   list[waiter[V]]
	nested    int // waiters that hold leases
	queuedAt  time.Time
	startedAt time.Time // of its load
	progress  Progress
	followers []chan struct{} // of progress
	waiting   bool            // the journal says that it waits for busy residents

	// While resident.
	leases    list[record[V]]
	sessions  int // at work
	rooms     int // sessions there is room for in the ledger, at least 1
	growing   int // leases that wait for room for a session
	keepAlive time.Duration
	expires   time.Time     // while ready; zero for never
	revoked   chan struct{} // closed when leases are to be given back at once
	reason    Reason        // why it drains or is freed

	freed    chan struct{} // closed when the free has returned
	loadedAt time.Time
	loadTook time.Duration
	usedAt   time.Time
	use      uint64 // orders entries by their last use

	queued link[entry[V]] // in the queue for room, while reserving
	idle   link[entry[V]] // in the idle list, while ready
}

// held is what the ledger books for a resident entry beside its components.
func (e *entry[V]) held() Bytes {
	return e.footprint.Own.plus(e.footprint.Session.times(e.rooms))
}

func (e *entry[V]) resident() bool {
	return e.state == Ready || e.state == Leased || e.state == Draining
}

// A waiter is one Acquire that could not be served at once. It is answered once: by err, or by a lease.
type waiter[V any] struct {
	entry    *entry[V]
	ask      Ask
	outer    []Lease[V] // that the asker holds already
	how      Outcome
	at       time.Time
	arrival  uint64
	answered chan struct{} // closed after lease or err is set
	lease    Lease[V]
	err      error
	link     link[waiter[V]]
}

// A record is one lease in the owner's books. Records are used again: a Lease is valid while its ticket is the
// record's.
type record[V any] struct {
	entry      *entry[V]
	ticket     uint64
	holder     string
	background bool // no demand: left out of traces
	since      time.Time
	waited     time.Duration
	sessions   int
	link       link[record[V]]
}

// holds says that the lease has not been released.
func (l Lease[V]) holds() bool { return l.record.ticket == l.ticket }

// A growth is a lease that waits for room for one more session.
type growth[V any] struct {
	entry    *entry[V]
	record   *record[V]
	answered chan struct{}
	err      error
	link     link[growth[V]]
}

// A link is an element's place in a list that does not own it: no allocation, removal in O(1).
type link[T any] struct {
	prev, next *T
	in         bool
}

// A list is doubly linked, oldest first. Its methods take the element and its link.
type list[T any] struct {
	first, last *T
	length      int
	at          func(*T) *link[T]
}

func newList[T any](at func(*T) *link[T]) list[T] { return list[T]{at: at} }

func (l *list[T]) push(x *T) {
	k := l.at(x)
	k.prev, k.next, k.in = l.last, nil, true
	if l.last == nil {
		l.first = x
	} else {
		l.at(l.last).next = x
	}
	l.last = x
	l.length++
}

// pushFirst puts x before all others.
func (l *list[T]) pushFirst(x *T) {
	k := l.at(x)
	k.prev, k.next, k.in = nil, l.first, true
	if l.first == nil {
		l.last = x
	} else {
		l.at(l.first).prev = x
	}
	l.first = x
	l.length++
}

// remove takes x out, if it is in.
func (l *list[T]) remove(x *T) {
	k := l.at(x)
	if !k.in {
		return
	}
	if k.prev == nil {
		l.first = k.next
	} else {
		l.at(k.prev).next = k.next
	}
	if k.next == nil {
		l.last = k.prev
	} else {
		l.at(k.next).prev = k.prev
	}
	*k = link[T]{}
	l.length--
}

// all visits the elements, oldest first. The one visited may be removed.
func (l *list[T]) all(visit func(*T) bool) {
	for x := l.first; x != nil; {
		next := l.at(x).next
		if !visit(x) {
			return
		}
		x = next
	}
}
