// Package memwatch tells how much memory this process may use, and when it becomes short. A Source reads the host: the
// machine's memory, or less where a cgroup says so. A Watcher turns the readings of several pools into pressure levels.
// Package memwatch/nvml has the pools of NVIDIA GPUs.
package memwatch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/pbnjay/memory"
)

// Source reads the memory of the machine and of the cgroups the process is in. It has no state: any number of
// goroutines may use it.
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
	groups, err := s.groups()
	if err != nil {
		return Reading{}, fmt.Errorf("read cgroup memory: %w", err)
	}
	for _, g := range groups {
		for _, l := range s.levels(g) {
			r.meet(l)
		}
		s.addEvents(&r.Events, g)
		if g.depth == 0 && g.version == 2 {
			r.GroupStall = s.stall(path.Join(g.dir, "memory.pressure"))
		}
	}
	r.Stall = s.stall("/proc/pressure/memory")
	if r.LimitBytes > 0 {
		r.TotalBytes = r.LimitBytes
	}
	r.UsedBytes = r.TotalBytes - r.AvailableBytes
	return r, nil
}

// meet narrows the reading to one limit. A limit above the machine is none.
func (r *Reading) meet(l level) {
	if l.limit >= r.TotalBytes {
		return
	}
	if free := max(0, l.limit-l.used); free < r.AvailableBytes {
		r.AvailableBytes, r.BoundBy = free, l.file
	}
	if r.LimitBytes == 0 || l.limit < r.LimitBytes {
		r.LimitBytes, r.LimitedBy = l.limit, l.file
	}
}

func (s *Source) stall(file string) Stall {
	stall, ok := parseStall(s.text(file))
	if ok {
		stall.From = file
	}
	return stall
}

func (s *Source) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// machine reads MemTotal and MemAvailable. The kernel's "free" is not used where that file exists: it does not
// count the page cache, in which mapped weights live.
func (s *Source) machine() (Reading, error) {
	r := Reading{OwnBytes: -1, OthersBytes: -1}
	text, err := os.ReadFile(s.path("proc/meminfo"))
	if errors.Is(err, os.ErrNotExist) {
		r.TotalBytes, r.AvailableBytes = clamp(memory.TotalMemory()), clamp(memory.FreeMemory())
		if r.TotalBytes == 0 {
			return Reading{}, errors.New("this system does not tell its memory")
		}
		return r, nil
	}
	if err != nil {
		return Reading{}, err
	}
	r.TotalBytes, r.AvailableBytes, err = parseMeminfo(string(text))
	return r, err
}
