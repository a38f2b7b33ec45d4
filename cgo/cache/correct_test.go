package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestValueThatTookTooMuchGoesAtItsLastRelease(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"a": own(8)})
	a := r.ask("a", Ask{})
	r.estimate("a")
	r.load("a", own(12), nil)
	lease := r.served(a)
	assert.Equal(t, []string{"a:leased"}, r.states(), "a leased value is never freed")
	r.release(lease)
	assert.Equal(t, []string{"a:freeing"}, r.states())
	r.settle()
	assert.Equal(t, [3]int64{}, r.books())
}

func TestLoweredLimitsAreMetAtTheLastRelease(t *testing.T) {
	for name, lower := range map[string]func(r *rig){
		"budget":  func(r *rig) { r.o.setBudget(r.now, 0, 5) },
		"entries": func(r *rig) { r.o.setMaxEntries(r.now, 1) },
	} {
		r := newRig(t, Options[int]{Pools: pool(10), MaxEntries: 2}, map[string]Footprint{"a": own(5), "b": own(5)})
		a, b := r.resident("a", Ask{}), r.resident("b", Ask{})
		lower(r)
		r.release(a)
		assert.Equal(t, []string{"b:leased", "a:freeing"}, r.states(), name)
		r.release(b)
		assert.Equal(t, []string{"a:freeing", "b:ready"}, r.states(), name)
	}
}

func TestCorrectionEvictsNobodyWhoseRoomStaysTaken(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(0, 20)}, map[string]Footprint{
		"shares": with(own(1), "codec", 0, 5), "small": own(0, 1), "large": own(0, 9), "busy": with(own(1), "codec", 0, 5)})
	for _, key := range []string{"shares", "small", "large"} {
		r.release(r.resident(key, Ask{}))
	}
	r.resident("busy", Ask{})
	r.o.setBudget(r.now, 1, 6)
	assert.Equal(t, []string{"shares:ready", "small:ready", "large:freeing", "busy:leased"}, r.states())
}

func TestLimitThatCannotBeMetIsMetAsFarAsPossible(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(20)}, map[string]Footprint{"idle": own(4), "busy": own(9)})
	r.release(r.resident("idle", Ask{}))
	r.resident("busy", Ask{})
	r.o.setBudget(r.now, 0, 2)
	assert.Equal(t, []string{"idle:freeing", "busy:leased"}, r.states())
}

func TestReliefEvictsNoMoreThanNeeded(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(0, 0)}, map[string]Footprint{
		"host": own(9), "shares": with(own(1), "codec", 0, 5), "small": own(0, 1), "large": own(0, 9), "busy": with(own(1), "codec", 0, 5)})
	for _, key := range []string{"host", "shares", "small", "large"} {
		r.release(r.resident(key, Ask{}))
	}
	r.resident("busy", Ask{})
	done, _ := r.o.relieve(r.now, 1, 5)
	assert.Equal(t, Cleared{Freed: []string{"large"}, Bytes: 9}, done)
}

func TestReliefTakesAllThatMayGoWhenThatIsTooLittle(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(0)}, map[string]Footprint{"a": own(3), "b": own(4), "pinned": own(5), "busy": own(6)})
	r.pin("pinned")
	for _, key := range []string{"a", "pinned", "b"} {
		r.release(r.resident(key, Ask{}))
	}
	r.resident("busy", Ask{})
	done, _ := r.o.relieve(r.now, 0, 100)
	assert.Equal(t, Cleared{Freed: []string{"a", "b"}, Pinned: []string{"pinned"}, Bytes: 7}, done)
}

func TestReliefTakesTheLastByte(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(0)}, map[string]Footprint{"a": own(1)})
	r.release(r.resident("a", Ask{}))
	done, _ := r.o.relieve(r.now, 0, 2)
	assert.Equal(t, Cleared{Freed: []string{"a"}, Bytes: 1}, done)
}
