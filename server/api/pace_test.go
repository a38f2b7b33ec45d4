package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"barkd/server/api"
)

func TestRefusalsOfACrowdAreSpacedOut(t *testing.T) {
	now := time.Now()
	var p api.Pace
	n := int(api.RefusalMost / api.RefusalEvery)
	for i := range n {
		assert.Equal(t, time.Duration(i)*api.RefusalEvery, p.Delay(now), "one at a time, the first at once")
	}
	p.Delay(now)
	seen := make(map[time.Duration]bool)
	for range 100 {
		late := p.Delay(now)
		assert.GreaterOrEqual(t, late, api.RefusalMost/2)
		assert.Less(t, late, api.RefusalMost)
		seen[late] = true
	}
	assert.Greater(t, len(seen), 50, "those that wait the longest do not all end together")
	assert.Zero(t, p.Delay(now.Add(2*api.RefusalMost)), "the crowd is forgotten")
}
