package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOnePoolsQueueHoldsUpNoOtherPool(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10, 10)},
		map[string]Footprint{"busy": own(8), "host": own(8), "gpu": own(0, 8)})
	busy := r.resident("busy", Ask{})
	host := r.ask("host", Ask{})
	r.settle()
	r.waits(host)
	gpu := r.ask("gpu", Ask{})
	r.settle()
	r.release(r.served(gpu), busy)
	r.settle()
	r.release(r.served(host))
}

func TestPoolBeyondItsBudgetHoldsUpNoOtherPool(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10, 10)}, map[string]Footprint{"busy": own(8), "gpu": own(0, 8)})
	busy := r.ask("busy", Ask{})
	r.estimate("busy")
	r.load("busy", own(12), nil)
	r.served(busy)
	gpu := r.ask("gpu", Ask{})
	r.settle()
	r.served(gpu)
	assert.Equal(t, []string{"busy:leased", "gpu:leased"}, r.states())
}
