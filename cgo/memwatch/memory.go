// Package memwatch tells how much memory this process may use: the machine's, or less where a cgroup says so.
package memwatch

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pbnjay/memory"
)

// Reading is the memory at one moment, in bytes.
type Reading struct {
	TotalBytes     int64  // the machine's memory, or the smallest cgroup limit below it
	AvailableBytes int64  // what can be allocated without swapping or breaking a limit; page cache counts as available
	LimitBytes     int64  // the smallest cgroup limit, 0 for none
	LimitedBy      string // the cgroup directory that sets LimitBytes; empty for none
}

// Source reads the memory of the machine and of the cgroups the process is in.
type Source struct{ root string }

// New returns the source of this process.
func New() *Source { return NewAt("/") }

// NewAt returns a source that reads proc and sys below root.
func NewAt(root string) *Source { return &Source{root: root} }

// Read reads the present values. On systems without /proc it knows the machine's memory only.
func (s *Source) Read() (Reading, error) {
	r, err := s.machine()
	if err != nil {
		return Reading{}, err
	}
	levels, err := s.levels()
	if err != nil {
		return Reading{}, fmt.Errorf("read cgroup memory: %w", err)
	}
	for _, level := range levels {
		r.AvailableBytes = min(r.AvailableBytes, max(0, level.limit-level.used))
		if r.LimitBytes == 0 || level.limit < r.LimitBytes {
			r.LimitBytes, r.LimitedBy = level.limit, level.dir
		}
	}
	if r.LimitBytes >= r.TotalBytes { // a limit above the machine is none
		r.LimitBytes, r.LimitedBy = 0, ""
	}
	if r.LimitBytes > 0 {
		r.TotalBytes = r.LimitBytes
	}
	return r, nil
}

func (s *Source) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// machine reads MemTotal and MemAvailable. The kernel's "free" is not used where that file exists: it does not
// count the page cache, in which mapped weights live.
func (s *Source) machine() (Reading, error) {
	text, err := os.ReadFile(s.path("proc/meminfo"))
	if errors.Is(err, os.ErrNotExist) {
		total, free := memory.TotalMemory(), memory.FreeMemory()
		if total == 0 {
			return Reading{}, errors.New("this system does not tell its memory")
		}
		return Reading{TotalBytes: clamp(total), AvailableBytes: clamp(free)}, nil
	}
	if err != nil {
		return Reading{}, err
	}
	values := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 2 && fields[1] == "kB" {
			if kib, err := strconv.ParseInt(fields[0], 10, 64); err == nil && kib >= 0 && kib < math.MaxInt64>>10 {
				values[name] = kib << 10
			}
		}
	}
	total, ok := values["MemTotal"]
	if !ok || total == 0 {
		return Reading{}, errors.New("/proc/meminfo has no MemTotal")
	}
	available, ok := values["MemAvailable"]
	if !ok { // kernels before 3.14
		available = values["MemFree"] + values["Cached"]
	}
	return Reading{TotalBytes: total, AvailableBytes: min(available, total)}, nil
}

func clamp(bytes uint64) int64 { return int64(min(bytes, math.MaxInt64)) }
