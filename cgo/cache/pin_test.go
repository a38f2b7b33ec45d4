package cache

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (r *rig) pin(key string) {
	r.t.Helper()
	require.NoError(r.t, r.o.pin(r.now, key, r.placesOf(key)))
}

func TestClearedPinnedValueIsNoReasonToRefuse(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	r.pin("a")
	old := r.resident("a", Ask{})
	r.o.clear(r.now, func(string) bool { return true }, false, ReasonAdmin)
	fresh := r.ask("a", Ask{})
	r.settle()
	r.waits(fresh)
	r.release(old)
	r.settle()
	r.release(r.served(fresh))
}

func TestPinnedValueDoesNotYield(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 2, Patience: time.Minute}, nil)
	r.pin("pinned")
	pinned, other := r.resident("pinned", Ask{}), r.resident("other", Ask{})
	waiting := r.ask("waiting", Ask{})
	r.settle()
	r.now = r.now.Add(time.Hour)
	again := r.ask("pinned", Ask{})
	r.release(r.served(again), pinned, other)
	r.settle()
	r.release(r.served(waiting))
	assert.Equal(t, []string{"pinned:ready", "waiting:ready"}, r.states())
}

func TestBusyValueThatWouldNotHelpDoesNotYield(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10, 10), Patience: time.Minute},
		map[string]Footprint{"host": own(8), "gpu": own(0, 8), "next": own(8)})
	r.resident("host", Ask{})
	gpu := r.resident("gpu", Ask{})
	r.ask("next", Ask{})
	r.settle()
	r.now = r.now.Add(time.Hour)
	r.release(r.served(r.ask("gpu", Ask{})), gpu)
	assert.Contains(t, r.states(), "gpu:ready")
}

func TestWhatIsLargerThanTheBudgetIsTooLargeWhateverIsPinned(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"small": own(1), "huge": own(11), "big": own(10)})
	require.NoError(t, r.o.pin(r.now, "small", []Footprint{own(1)}))
	r.resident("small", Ask{})
	for key, code := range map[string]RefusalCode{"huge": RefusedTooLarge, "big": RefusedPinned} {
		q := r.ask(key, Ask{})
		r.settle()
		require.True(t, q.poll())
		var refused *Refusal
		require.ErrorAs(t, q.err, &refused)
		assert.Equal(t, code, refused.Code)
	}
}
