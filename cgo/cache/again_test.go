package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLoadOutOfMemoryKeepsItsPlaceInTheQueue(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	first, second := r.ask("first", Ask{}), r.ask("second", Ask{})
	r.estimate("first")
	r.estimate("second")
	r.load("first", Footprint{}, errNoRoom)
	r.settle()
	r.release(r.served(first))
	r.settle()
	r.served(second)
}

func TestLoadOutOfMemoryEvictsWhatIsIdleAndTriesOnceMore(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(100)}, map[string]Footprint{"idle": own(1), "a": own(1), "used": own(1)})
	r.release(r.resident("idle", Ask{}))
	r.resident("used", Ask{})
	a := r.ask("a", Ask{})
	r.estimate("a")
	r.load("a", Footprint{}, errNoRoom)
	assert.Equal(t, []string{"used:leased", "a:reserving", "idle:freeing"}, statesByKeyOrder(r, "used", "a", "idle"))
	assert.Equal(t, [3]int64{2, 0, 0}, r.books())
	r.free("idle", Bytes{})
	r.load("a", Footprint{}, errNoRoom)
	assert.True(t, a.poll())
	assert.ErrorIs(t, a.err, errNoRoom)
	assert.Equal(t, [3]int64{1, 0, 0}, r.books())
}

func statesByKeyOrder(r *rig, order ...string) []string {
	var out []string
	for _, key := range order {
		for _, e := range r.o.snapshot(r.now).Entries {
			if e.Key == key {
				out = append(out, key+":"+e.State.String())
			}
		}
	}
	return out
}
