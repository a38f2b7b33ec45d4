package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPlayerRunsOutWhenAudioComesTooLate(t *testing.T) {
	var p player
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	assert.False(t, p.hear(at(0), 2*time.Second), "the first audio is never late")
	assert.False(t, p.hear(at(1), time.Second), "it plays until 3")
	assert.False(t, p.hear(at(3), time.Second), "just in time, until 4")
	assert.True(t, p.hear(at(5), time.Second), "a second of silence; then until 6")
	assert.False(t, p.hear(at(5.5), 0))
	assert.True(t, p.hear(at(6.5), time.Second))
}
