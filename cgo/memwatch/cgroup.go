package memwatch

import (
	"errors"
	"os"
	"path"
	"strings"
)

// A hierarchy says where a cgroup memory controller is mounted and how its files are called.
type hierarchy struct {
	version               int
	limits                []string
	usage                 string
	reclaimable           string // the name in memory.stat of file pages the kernel gives back under pressure
	mountRoot, mountPoint string
}

var (
	cgroupV1 = hierarchy{version: 1, limits: []string{"memory.limit_in_bytes"}, usage: "memory.usage_in_bytes",
		reclaimable: "total_inactive_file"}
	// Above memory.high a process is not killed but slowed down until it hardly moves: for us a limit like the other.
	cgroupV2 = hierarchy{version: 2, limits: []string{"memory.max", "memory.high"}, usage: "memory.current",
		reclaimable: "inactive_file"}
)

// A group is one cgroup of this process: its own (depth 0) or one above it.
type group struct {
	hierarchy
	dir   string
	depth int
}

// A level is one limit of a group.
type level struct {
	file        string
	limit, used int64
}

// groups returns the cgroups of this process, own first, up to the root that it can see. A hybrid system has two
// hierarchies. None is not an error: not every system has cgroups.
func (s *Source) groups() ([]group, error) {
	mounts, err := os.ReadFile(s.path("proc/self/mountinfo"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile(s.path("proc/self/cgroup"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var groups []group
	var seen [3]bool // by version; a second mount of a hierarchy shows the same groups again
	for _, h := range hierarchies(string(mounts)) {
		name, ok := ownGroup(string(own), h)
		if !ok || seen[h.version] {
			continue
		}
		seen[h.version] = true
		for depth, dir := 0, h.below(name); ; depth, dir = depth+1, path.Dir(dir) {
			groups = append(groups, group{hierarchy: h, dir: path.Join(h.mountPoint, dir), depth: depth})
			if dir == "/" {
				break
			}
		}
	}
	return groups, nil
}

// below returns where a group lies below the mount point. In a container the group's name is often the host's, of
// which only a part is mounted, or none.
func (h hierarchy) below(name string) string {
	root := strings.TrimSuffix(h.mountRoot, "/")
	if rest, ok := strings.CutPrefix(name, root); ok && (rest == "" || rest[0] == '/') {
		name = rest
	}
	return path.Clean("/" + name)
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
		if h.version == 2 && fields[0] == "0" && fields[1] == "" || h.version == 1 && hasItem(fields[1], "memory") {
			return fields[2], true
		}
	}
	return "", false
}

// levels returns the limits of one group.
func (s *Source) levels(g group) []level {
	used, ok := parseNumber(s.text(g.dir, g.usage))
	if !ok {
		return nil
	}
	used = max(0, used-parseCounters(s.text(g.dir, "memory.stat"))[g.reclaimable])
	var levels []level
	for _, name := range g.limits {
		limit, ok := parseNumber(s.text(g.dir, name))
		if ok && limit < 1<<60 { // v1 writes "none" as the largest page-aligned number
			levels = append(levels, level{file: path.Join(g.dir, name), limit: limit, used: used})
		}
	}
	return levels
}

// addEvents adds the counters of one group.
func (s *Source) addEvents(e *Events, g group) {
	if g.version == 1 {
		failures, ok := parseNumber(s.text(g.dir, "memory.failcnt"))
		oom := parseCounters(s.text(g.dir, "memory.oom_control"))
		e.Known = e.Known || ok
		e.Max += failures
		e.OOMKill += oom["oom_kill"]
		e.UnderOOM = e.UnderOOM || oom["under_oom"] > 0
		return
	}
	counters := parseCounters(s.text(s.eventsFile(g)))
	e.Known = e.Known || len(counters) > 0
	e.Low += counters["low"]
	e.High += counters["high"]
	e.Max += counters["max"]
	e.OOM += counters["oom"]
	e.OOMKill += counters["oom_kill"]
}

// eventsFile is the file of a v2 group's counters. memory.events of a group above ours also counts what happens to our
// siblings; kernels before 5.2 have no other.
func (s *Source) eventsFile(g group) string {
	local := path.Join(g.dir, "memory.events.local")
	if _, err := os.Stat(s.path(local)); err == nil {
		return local
	}
	return path.Join(g.dir, "memory.events")
}

// text returns a file's content, nothing for a file that cannot be read: many of them are absent at the root.
func (s *Source) text(parts ...string) string {
	text, err := os.ReadFile(s.path(parts...))
	if err != nil {
		return ""
	}
	return string(text)
}

func hasItem(list, item string) bool {
	for have := range strings.SplitSeq(list, ",") {
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
