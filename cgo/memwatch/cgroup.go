package memwatch

import (
	"errors"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// A level is one cgroup with a memory limit, on the way from the process's own up to the root it can see.
type level struct {
	dir         string
	limit, used int64
}

// A hierarchy says where a cgroup memory controller is mounted and how its files are called.
type hierarchy struct {
	limit, usage, reclaimable string // file names, and the name in memory.stat
	mountRoot, mountPoint     string
}

var (
	cgroupV1 = hierarchy{limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes",
		reclaimable: "total_inactive_file"}
	cgroupV2 = hierarchy{limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file"}
)

// levels returns the limited cgroups above the process. None is not an error: not every system has cgroups.
func (s *Source) levels() ([]level, error) {
	mounts, err := os.ReadFile(s.path("proc/self/mountinfo"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile(s.path("proc/self/cgroup"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var levels []level
	for _, h := range hierarchies(string(mounts)) {
		own, ok := ownGroup(string(groups), h)
		if !ok {
			continue
		}
		// In a container the group's path is often the host's, of which only a part is mounted, or none.
		relative := strings.TrimPrefix(own, strings.TrimSuffix(h.mountRoot, "/"))
		for dir := path.Clean("/" + relative); ; dir = path.Dir(dir) {
			if l, ok := s.level(h, dir); ok {
				levels = append(levels, l)
			}
			if dir == "/" {
				break
			}
		}
	}
	return levels, nil
}

// hierarchies finds the memory controllers in the text of mountinfo:
// id parent major:minor root mountpoint options [optional...] - fstype source superoptions
func hierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		mount, filesystem := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 5 || len(filesystem) < 3 {
			continue
		}
		var h hierarchy
		switch {
		case filesystem[0] == "cgroup2":
			h = cgroupV2
		case filesystem[0] == "cgroup" && hasItem(filesystem[2], "memory"):
			h = cgroupV1
		default:
			continue
		}
		h.mountRoot, h.mountPoint = unescape(mount[3]), unescape(mount[4])
		found = append(found, h)
	}
	return found
}

// ownGroup finds the process's group in the text of /proc/self/cgroup: id:controllers:path, v2 with id 0 and no
// controllers.
func ownGroup(groups string, h hierarchy) (string, bool) {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if h.limit == cgroupV2.limit && fields[0] == "0" && fields[1] == "" ||
			h.limit == cgroupV1.limit && hasItem(fields[1], "memory") {
			return fields[2], true
		}
	}
	return "", false
}

func (s *Source) level(h hierarchy, group string) (level, bool) {
	dir := path.Join(h.mountPoint, group)
	limit, ok := s.number(path.Join(dir, h.limit))
	if !ok || limit >= 1<<60 { // v1 writes "none" as the largest page-aligned number
		return level{}, false
	}
	used, ok := s.number(path.Join(dir, h.usage))
	if !ok {
		return level{}, false
	}
	stat, err := os.ReadFile(s.path(dir, "memory.stat"))
	if err == nil {
		for line := range strings.Lines(string(stat)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if bytes, err := strconv.ParseInt(value, 10, 64); name == h.reclaimable && err == nil {
				used = max(0, used-bytes) // file pages the kernel gives back under pressure
			}
		}
	}
	return level{dir: dir, limit: limit, used: used}, true
}

// number reads a file of one number; "max" and damaged files have none.
func (s *Source) number(name string) (int64, bool) {
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, false
	}
	return int64(min(n, math.MaxInt64)), true
}

func hasItem(list, item string) bool {
	for _, have := range strings.Split(list, ",") {
		if have == item {
			return true
		}
	}
	return false
}

// unescape undoes the kernel's octal escapes of white space in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
