package memwatch

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// The kernel's text formats. Lines that make no sense are passed over: a newer kernel may have written them.

// parseMeminfo reads MemTotal and what is available, in bytes, from the text of /proc/meminfo.
func parseMeminfo(text string) (total, available int64, err error) {
	values := make(map[string]int64)
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 2 && fields[1] == "kB" {
			if kib, err := strconv.ParseInt(fields[0], 10, 64); err == nil && kib >= 0 && kib < math.MaxInt64>>12 {
				values[name] = kib << 10
			}
		}
	}
	total = values["MemTotal"]
	if total == 0 {
		return 0, 0, errors.New("/proc/meminfo has no MemTotal")
	}
	available, ok := values["MemAvailable"]
	if !ok { // kernels before 3.14
		available = values["MemFree"] + values["Cached"]
	}
	return total, min(available, total), nil
}

// parseCounters reads lines of "name value": memory.stat, memory.events, memory.oom_control.
func parseCounters(text string) map[string]int64 {
	values := make(map[string]int64)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			values[name] = n
		}
	}
	return values
}

// parseNumber reads a file of one number; "max" and damaged files have none.
func parseNumber(text string) (int64, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, false
	}
	return clamp(n), true
}

// parseStall reads the text of a PSI file: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", the same with "full",
// averages in percent, totals in microseconds. A file without the line "some" has no reading.
func parseStall(text string) (Stall, bool) {
	var s Stall
	var found bool
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		avg10, total := stallFields(rest)
		switch kind {
		case "some":
			s.SomeAvg10, s.SomeTotal, found = avg10, total, true
		case "full":
			s.FullAvg10, s.FullTotal = avg10, total
		}
	}
	return s, found
}

func stallFields(text string) (avg10 float64, total time.Duration) {
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "avg10":
			if v, err := strconv.ParseFloat(value, 64); err == nil && v >= 0 && v <= 100 { // NaN is neither
				avg10 = v
			}
		case "total":
			if v, err := strconv.ParseInt(value, 10, 64); err == nil && v >= 0 && v < math.MaxInt64/1000 {
				total = time.Duration(v) * time.Microsecond
			}
		}
	}
	return avg10, total
}

func clamp(bytes uint64) int64 { return int64(min(bytes, math.MaxInt64)) }
