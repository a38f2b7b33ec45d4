package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNestedAskIsToldThatItsOwnLeaseIsInTheWay(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	a := r.resident("a", Ask{})
	b := r.ask("b", Ask{}, a)
	r.settle()
	assert.True(t, b.poll())
	assert.ErrorIs(t, b.err, ErrSelfBlocked)
	assert.Equal(t, []string{"a:leased"}, r.states())
}

func TestNestedAskOvertakesThoseWhoWaitForItsOwnLease(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"a": own(4), "other": own(4), "big": own(10), "b": own(4)})
	a, other := r.resident("a", Ask{}), r.resident("other", Ask{})
	big := r.ask("big", Ask{})
	r.settle()
	b := r.ask("b", Ask{}, a)
	r.settle()
	r.waits(b)
	r.release(other)
	r.settle()
	r.release(r.served(b), a)
	r.settle()
	r.release(r.served(big))
}

func TestNestedAsksThatWaitForEachOtherEndWithTheLatest(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 2}, nil)
	a, b := r.resident("a", Ask{}), r.resident("b", Ask{})
	first := r.ask("c", Ask{}, a)
	r.settle()
	r.waits(first)
	second := r.ask("d", Ask{}, b)
	r.settle()
	assert.True(t, second.poll())
	assert.ErrorIs(t, second.err, ErrSelfBlocked)
	r.waits(first)
	r.release(b)
	r.settle()
	r.release(r.served(first), a)
}

func TestNestedAskThatMustWaitHoldsUpNoOtherNestedOne(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)},
		map[string]Footprint{"a": own(2), "b": own(4), "wants b gone": own(6), "fits": own(4)})
	a, b := r.resident("a", Ask{}), r.resident("b", Ask{})
	first := r.ask("wants b gone", Ask{}, a)
	r.settle()
	second := r.ask("fits", Ask{}, b)
	r.settle()
	r.waits(first)
	r.release(r.served(second), b)
	r.settle()
	r.release(r.served(first), a)
}

func TestReleasedOuterLeaseIsNotInTheWay(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	mine, other := r.resident("a", Ask{}), r.resident("a", Ask{})
	r.release(mine)
	b := r.ask("b", Ask{}, mine)
	r.settle()
	r.waits(b)
	r.release(other)
	r.settle()
	r.release(r.served(b))
}

func TestNestedWaiterThatLeavesLetsTheFirstInLineGo(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)},
		map[string]Footprint{"a": own(1), "idle": own(2), "busy": own(5), "small": own(4), "big": own(9)})
	busy, a, idle := r.resident("busy", Ask{}), r.resident("a", Ask{}), r.resident("idle", Ask{})
	small := r.ask("small", Ask{})
	r.ask("big", Ask{})
	nested := r.ask("big", Ask{}, a)
	r.settle()
	r.release(idle)
	_ = r.o.leave(r.now, nested.w, errNoRoom)
	r.settle()
	r.release(r.served(small), busy)
}
