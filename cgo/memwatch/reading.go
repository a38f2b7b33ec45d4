package memwatch

import "time"

// Reading is the memory of one pool (the host, or one GPU) at one moment. A field that the pool does not have is zero,
// OwnBytes and OthersBytes are -1.
type Reading struct {
	TotalBytes     int64  // the machine's or the GPU's memory, or the smallest limit below it
	AvailableBytes int64  // what can be allocated without swapping or breaking a limit; page cache counts as available
	UsedBytes      int64  // TotalBytes - AvailableBytes: what a threshold for "used" is compared with
	LimitBytes     int64  // the smallest cgroup limit, 0 for none
	LimitedBy      string // the file that sets LimitBytes, a cgroup's memory.max, memory.high or memory.limit_in_bytes
	BoundBy        string // the limit's file that AvailableBytes ends at; empty when it is the device itself
	OwnBytes       int64  // GPU: held by this process; -1 when nobody can tell
	OthersBytes    int64  // GPU: held by other processes and the driver; -1 when nobody can tell
	Stall          Stall  // how long all tasks of the machine waited for memory
	GroupStall     Stall  // the same for the tasks of this process's cgroup
	Events         Events
}

// Stall is the pressure stall information (PSI) of one file.
type Stall struct {
	From      string        // the file; empty when the system has none
	SomeAvg10 float64       // percent of the last ten seconds in which some task waited for memory
	FullAvg10 float64       // percent in which all of them waited
	SomeTotal time.Duration // since boot, or since the cgroup was made
	FullTotal time.Duration
}

// Events counts what the kernel did to the cgroups of this process, from its own up to the root that it can see. Each
// group's own limits are counted, those of siblings are not where the kernel tells them apart (memory.events.local).
type Events struct {
	Known    bool  // some group has counters
	Low      int64 // reclaimed although below memory.low (v2)
	High     int64 // throttled above memory.high (v2)
	Max      int64 // allocations that met the limit: v2 max, v1 memory.failcnt
	OOM      int64 // allocations that the limit made fail (v2)
	OOMKill  int64 // processes killed
	UnderOOM bool  // a group waits for memory right now (v1)
}
