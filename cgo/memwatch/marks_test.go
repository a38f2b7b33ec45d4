package memwatch

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// left returns the reading of a pool of 1000 bytes with so many available.
func left(bytes int64) Reading {
	return Reading{TotalBytes: 1000, AvailableBytes: bytes, UsedBytes: 1000 - bytes}
}

func TestLevelIsLeftOnlyByTheMargin(t *testing.T) {
	m := Marks{HighAvailableBytes: 300, CriticalAvailableBytes: 100, ClearMarginBytes: 50}
	for _, c := range []struct {
		before Level
		left   int64
		after  Level
		need   int64
	}{
		{LevelNone, 300, LevelNone, 0}, // on the mark is not past it
		{LevelNone, 299, LevelHigh, 51},
		{LevelHigh, 300, LevelHigh, 50},
		{LevelHigh, 349, LevelHigh, 1},
		{LevelHigh, 350, LevelNone, 0},
		{LevelNone, 99, LevelCritical, 251},
		{LevelCritical, 149, LevelCritical, 201},
		{LevelCritical, 150, LevelHigh, 200},
		{LevelCritical, 349, LevelHigh, 1},
		{LevelCritical, 350, LevelNone, 0},
	} {
		after := m.level(left(c.left), c.before)
		assert.Equal(t, c.after, after, "%+v", c)
		assert.Equal(t, c.need, m.need(left(c.left), after), "%+v", c)
	}
}

func TestThresholdOfUsedBytes(t *testing.T) {
	m := Marks{HighUsedBytes: 800, CriticalUsedBytes: 900, ClearMarginBytes: 10}
	assert.Equal(t, LevelNone, m.level(left(200), LevelNone))
	assert.Equal(t, LevelHigh, m.level(left(199), LevelNone))
	assert.EqualValues(t, 11, m.need(left(199), LevelHigh))
	assert.Equal(t, LevelCritical, m.level(left(99), LevelNone))
	assert.EqualValues(t, 111, m.need(left(99), LevelCritical))
	assert.Equal(t, LevelNone, m.level(left(210), LevelHigh))
}

// Freeing exactly what is needed ends the pressure, one byte less does not: whatever the marks and the reading.
func TestNeedIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		m := Marks{HighAvailableBytes: random.Int64N(400), HighUsedBytes: random.Int64N(1000), ClearMarginBytes: random.Int64N(100)}
		if m.HighAvailableBytes > 0 {
			m.CriticalAvailableBytes = random.Int64N(m.HighAvailableBytes)
		}
		if random.IntN(2) == 0 {
			m.CriticalUsedBytes = m.HighUsedBytes + 1 + random.Int64N(100)
		}
		require.NoError(t, m.problems())
		now := random.Int64N(1001)
		level := m.level(left(now), Level(random.IntN(3)))
		need := m.need(left(now), level)
		if level == LevelNone {
			require.Zero(t, need)
			continue
		}
		require.Positive(t, need, "%+v %d", m, now)
		require.Equal(t, LevelNone, m.level(left(now+need), level), "%+v %d", m, now)
		require.NotEqual(t, LevelNone, m.level(left(now+need-1), level), "%+v %d", m, now)
	}
}

func TestReadingAroundTheMarkDoesNotFlap(t *testing.T) {
	m := Marks{HighAvailableBytes: 300, ClearMarginBytes: 50}
	level, changes := LevelNone, 0
	for i := range int64(100) {
		after := m.level(left(290+i%2*20), level) // 290, 310, 290 …
		if after != level {
			changes++
		}
		level = after
	}
	assert.Equal(t, 1, changes)
}

func TestStallIsHighWithoutANeedOfBytes(t *testing.T) {
	m := Marks{HighStallPercent: 10}
	stalled := func(percent float64) Reading {
		r := left(1000)
		r.GroupStall.SomeAvg10 = percent
		return r
	}
	assert.Equal(t, LevelNone, m.level(stalled(9.9), LevelNone))
	assert.Equal(t, LevelHigh, m.level(stalled(10), LevelNone))
	assert.Equal(t, LevelHigh, m.level(stalled(5), LevelHigh))
	assert.Equal(t, LevelNone, m.level(stalled(4.9), LevelHigh))
	assert.Zero(t, m.need(stalled(50), LevelHigh))
	assert.Equal(t, LevelNone, Marks{}.level(stalled(100), LevelNone))
}

func TestMarksAtTheEndOfNumbersDoNotOverflow(t *testing.T) {
	m := Marks{HighAvailableBytes: math.MaxInt64, HighUsedBytes: math.MaxInt64, ClearMarginBytes: math.MaxInt64}
	assert.Equal(t, LevelHigh, m.level(left(1000), LevelHigh))
	assert.EqualValues(t, math.MaxInt64-1000, m.need(left(1000), LevelHigh))
}

func TestAllBadMarksAreNamed(t *testing.T) {
	err := Marks{HighAvailableBytes: 1, CriticalAvailableBytes: 2, HighUsedBytes: 5, CriticalUsedBytes: 4,
		ClearMarginBytes: -7, HighStallPercent: math.NaN()}.problems()
	for _, part := range []string{"-7", "2 bytes available", "4 bytes used", "NaN percent"} {
		assert.ErrorContains(t, err, part)
	}
}
