package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRemovalsCountEachValueOnce(t *testing.T) {
	r := newRig(t, Options[int]{}, nil)
	r.resident("a", Ask{})
	all := func(string) bool { return true }
	r.o.clear(r.now, all, false, ReasonAdmin)
	r.o.clear(r.now, all, false, ReasonAdmin)
	assert.EqualValues(t, 1, r.o.counters.removals.Load())
	r.resident("b", Ask{})
	r.o.shut(r.now)
	assert.EqualValues(t, 2, r.o.counters.removals.Load())
}

func TestComponentIsCorrectedToItsTrueSize(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(100)}, map[string]Footprint{"a": with(own(10), "codec", 5)})
	a := r.ask("a", Ask{})
	r.estimate("a")
	assert.Equal(t, [3]int64{0, 15, 0}, r.books())
	r.load("a", with(own(10), "codec", 7), nil)
	assert.Equal(t, [3]int64{17, 0, 0}, r.books())
	r.release(r.served(a))
	r.o.clear(r.now, func(string) bool { return true }, false, ReasonAdmin)
	r.settle()
	assert.Equal(t, [3]int64{}, r.books())
}

func TestComponentKeepsTheSizeItWasFirstLoadedWith(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(100)},
		map[string]Footprint{"a": with(own(10), "codec", 5), "b": with(own(20), "codec", 9)})
	a := r.resident("a", Ask{})
	r.release(r.resident("b", Ask{}))
	assert.Equal(t, [3]int64{35, 0, 0}, r.books())
	r.release(a)
	r.o.relieve(r.now, 0, 100)
	r.settle()
	assert.Equal(t, [3]int64{}, r.books())
}
