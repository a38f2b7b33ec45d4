package cache

import (
	"context"
	"time"
)

// State is where an entry is between absent and absent.
type State uint8

// The states of an entry, in the order it passes through them; ready and leased alternate.
const (
	Reserving State = iota // waits for room
	Loading                // its load runs
	Ready                  // resident, nobody uses it: the only state that can be evicted
	Leased                 // resident and in use
	Draining               // in use, takes no new lease, freed at the last release
	Freeing                // its free runs; it still takes room
)

// String returns the state's name in lower case.
func (s State) String() string {
	names := [...]string{"reserving", "loading", "ready", "leased", "draining", "freeing"}
	if int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// exit says how an instance will give up its room without being evicted for it.
type exit uint8

const (
	exitNone      exit = iota
	exitSoon           // it is being freed, or its load was stopped
	exitAtRelease      // it drains
	exits
)

// An entry is one instance of a key's value. All fields but settled are guarded by Cache.mu; value and err are
// written before settled is closed and never after, so whoever saw it closed may read them.
type entry[V any] struct {
	key   string
	value V
	err   error
	state State
	drain bool // no new leases; freed at the last release. Set while loading or leased

	leases  int
	waiters int           // Acquire calls that wait for settled
	settled chan struct{} // closed when the load has ended or will never start
	freed   chan struct{} // closed when the free has returned
	exit    exit
	cancel  context.CancelFunc // of the load's context; set while loading

	bytes    int64
	queuedAt time.Time // when it began to wait for room
	loadedAt time.Time
	loadTook time.Duration
	usedAt   time.Time
	use      uint64 // orders entries by their last use

	prev, next *entry[V] // in the idle list, while ready
}

// An idleList holds the ready entries, least recently used first. The zero value is empty.
type idleList[V any] struct {
	first, last *entry[V]
	length      int
}

func (l *idleList[V]) push(e *entry[V]) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.length++
}

func (l *idleList[V]) remove(e *entry[V]) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	l.length--
}
