package cache

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Three ways to wait for ever that the formal model (model/cache.pml) found.

// Two residents that are idle in turn are never both busy when they are asked for, and never both idle.
func TestIdleResidentYieldsToOneThatHasWaitedForThePatience(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(2), Patience: time.Second}, map[string]Footprint{"a": own(1), "b": own(1), "big": own(2)})
	a, b := r.resident("a", Ask{}), r.resident("b", Ask{})
	big := r.ask("big", Ask{})
	r.settle()
	r.waits(big)
	r.now = r.now.Add(2 * time.Second)
	r.release(a)
	again := r.ask("a", Ask{})
	r.release(b)
	r.settle()
	r.release(r.served(big))
	r.settle()
	r.served(again)
}

func TestLoadThatIsTriedAgainWaitsForNoLaterFree(t *testing.T) {
	r := newRig(t, Options[int]{}, nil)
	r.release(r.resident("idle", Ask{}))
	other := r.resident("other", Ask{KeepAlive: AtOnce})
	a := r.ask("a", Ask{})
	r.estimate("a")
	r.load("a", Footprint{}, errNoRoom)
	r.release(other) // another free begins
	r.free("idle", Bytes{})
	r.load("a", Footprint{}, nil)
	r.served(a)
	r.free("other", Bytes{})
}

func TestNobodyDrainsForAKeyThatNobodyWaitsForAnyMore(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1, Patience: time.Second}, nil)
	r.resident("a", Ask{})
	b := r.ask("b", Ask{})
	r.settle()
	r.waits(b)
	_ = r.o.leave(r.now, b.w, assert.AnError)
	r.collect()
	r.now = r.now.Add(2 * time.Second)
	r.served(r.ask("a", Ask{}))
	assert.Equal(t, []string{"a:leased"}, r.states())
}
