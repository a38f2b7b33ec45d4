package memwatch

import (
	"errors"
	"fmt"
	"math"
)

// Level says how short memory is.
type Level int

// The levels, in order: compare them with <.
const (
	LevelNone     Level = iota // enough, or not known
	LevelHigh                  // below the first watermark: give back what costs little
	LevelCritical              // below the second: give back all that can be, take on nothing new
)

// String returns the level's name in logs, in the stats and in the metrics.
func (l Level) String() string {
	switch l {
	case LevelNone:
		return "none"
	case LevelHigh:
		return "high"
	case LevelCritical:
		return "critical"
	}
	return fmt.Sprintf("level %d", int(l))
}

// Marks are the watermarks of a pool. Zero switches a mark off. A level is reached when a reading passes its mark, and
// left only when the reading is back by ClearMarginBytes more, so that a reading on the mark does not flap.
type Marks struct {
	HighAvailableBytes     int64 // less available than this is LevelHigh
	CriticalAvailableBytes int64 // less available than this is LevelCritical; below HighAvailableBytes
	HighUsedBytes          int64 // more used than this is LevelHigh
	CriticalUsedBytes      int64 // more used than this is LevelCritical; above HighUsedBytes
	ClearMarginBytes       int64
	// HighStallPercent is LevelHigh whatever the bytes say, when some task waited for memory in this part of the last
	// ten seconds (PSI); it is left at half. Page cache counts as available, so a machine that reads its mapped weights
	// from the disk again and again shows it here only. No number of bytes is known to end it.
	HighStallPercent float64
}

// problems names everything that is wrong with the marks.
func (m Marks) problems() error {
	var all []error
	for _, v := range []int64{m.HighAvailableBytes, m.CriticalAvailableBytes, m.HighUsedBytes, m.CriticalUsedBytes,
		m.ClearMarginBytes} {
		if v < 0 {
			all = append(all, fmt.Errorf("a watermark of %d bytes", v))
		}
	}
	if m.HighAvailableBytes > 0 && m.CriticalAvailableBytes >= m.HighAvailableBytes {
		all = append(all, fmt.Errorf("critical at %d bytes available is not below high at %d",
			m.CriticalAvailableBytes, m.HighAvailableBytes))
	}
	if m.CriticalUsedBytes > 0 && m.CriticalUsedBytes <= m.HighUsedBytes {
		all = append(all, fmt.Errorf("critical at %d bytes used is not above high at %d",
			m.CriticalUsedBytes, m.HighUsedBytes))
	}
	if !(m.HighStallPercent >= 0 && m.HighStallPercent <= 100) {
		all = append(all, fmt.Errorf("a stall watermark of %v percent", m.HighStallPercent))
	}
	return errors.Join(all...)
}

// level returns the level of a reading that follows one of level before.
func (m Marks) level(r Reading, before Level) Level {
	over := func(l Level, availableBytes, usedBytes int64) bool {
		margin := int64(0)
		if before >= l {
			margin = m.ClearMarginBytes
		}
		return excess(r, availableBytes, usedBytes, margin) > 0
	}
	stall := m.HighStallPercent
	if before >= LevelHigh {
		stall /= 2
	}
	switch {
	case over(LevelCritical, m.CriticalAvailableBytes, m.CriticalUsedBytes):
		return LevelCritical
	case over(LevelHigh, m.HighAvailableBytes, m.HighUsedBytes),
		stall > 0 && max(r.Stall.SomeAvg10, r.GroupStall.SomeAvg10) >= stall:
		return LevelHigh
	}
	return LevelNone
}

// need returns how many bytes must become available for the level to fall to LevelNone.
func (m Marks) need(r Reading, level Level) int64 {
	if level == LevelNone {
		return 0
	}
	return max(excess(r, m.HighAvailableBytes, m.HighUsedBytes, m.ClearMarginBytes),
		excess(r, m.CriticalAvailableBytes, m.CriticalUsedBytes, m.ClearMarginBytes))
}

// excess returns how many bytes the reading is past a pair of marks that a margin makes stricter, 0 for not at all.
func excess(r Reading, availableBytes, usedBytes, margin int64) int64 {
	var bytes int64
	if availableBytes > 0 {
		wanted := availableBytes + min(margin, math.MaxInt64-availableBytes)
		bytes = wanted - r.AvailableBytes
	}
	if usedBytes > 0 {
		bytes = max(bytes, r.UsedBytes-max(0, usedBytes-margin))
	}
	return max(0, bytes)
}
