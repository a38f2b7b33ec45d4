package memwatch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	gib     = int64(1) << 30
	meminfo = "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n"
)

// machine writes files below a new root.
func machine(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	return root
}

// tree unpacks a file of testdata/trees: each file after a line "-- name --", as in Go's txtar.
func tree(t *testing.T, name string) (root string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "trees", name+".txt"))
	require.NoError(t, err)
	files := make(map[string]string)
	for _, part := range strings.Split("\n"+string(text), "\n-- ")[1:] {
		file, content, ok := strings.Cut(part, " --\n")
		require.True(t, ok, part)
		files[file] = content + "\n"
	}
	return machine(t, files)
}

func readTree(t *testing.T, name string) Reading {
	t.Helper()
	r, err := NewAt(tree(t, name)).Read()
	require.NoError(t, err)
	return r
}

// half is the machine of all trees without its cgroups: 16 GiB, half of them available.
func half() Reading {
	return Reading{TotalBytes: 16 * gib, AvailableBytes: 8 * gib, UsedBytes: 8 * gib, OwnBytes: -1, OthersBytes: -1}
}

func TestMachineWithoutCgroups(t *testing.T) {
	r, err := NewAt(machine(t, map[string]string{"proc/meminfo": meminfo})).Read()
	require.NoError(t, err)
	assert.Equal(t, half(), r)
}

func TestUnlimitedCgroupIsNoLimit(t *testing.T) {
	r, err := NewAt(machine(t, map[string]string{
		"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
		"proc/self/mountinfo":        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "1\n",
	})).Read()
	require.NoError(t, err)
	assert.Equal(t, half(), r)
}

func TestCgroupV2LimitOfAnAncestorHolds(t *testing.T) {
	assert.Equal(t, Reading{
		TotalBytes: 4 * gib, AvailableBytes: 2 * gib, UsedBytes: 2 * gib, OwnBytes: -1, OthersBytes: -1,
		LimitBytes: 4 * gib, LimitedBy: "/sys/fs/cgroup/voice.slice/memory.max",
		BoundBy: "/sys/fs/cgroup/voice.slice/memory.max",
		Stall: Stall{From: "/proc/pressure/memory", SomeAvg10: 1.5, FullAvg10: 0.5,
			SomeTotal: 2500 * time.Millisecond, FullTotal: 1500 * time.Millisecond},
		GroupStall: Stall{From: "/sys/fs/cgroup/voice.slice/barkd.service/memory.pressure", SomeAvg10: 12.34,
			FullAvg10: 3, SomeTotal: 7 * time.Second, FullTotal: 4 * time.Second},
		// The slice's own counters (events.local) beside the service's; the siblings' 900 are not ours.
		Events: Events{Known: true, Low: 1, High: 20, Max: 10, OOM: 1, OOMKill: 1},
	}, readTree(t, "v2_nested"))
}

func TestMemoryHighIsALimit(t *testing.T) {
	want := half()
	want.TotalBytes, want.AvailableBytes, want.UsedBytes = 3*gib, 2*gib, gib
	want.LimitBytes, want.LimitedBy = 3*gib, "/sys/fs/cgroup/barkd/memory.high"
	want.BoundBy = want.LimitedBy
	assert.Equal(t, want, readTree(t, "v2_high"))
}

func TestCgroupV1LimitHolds(t *testing.T) {
	want := half()
	want.TotalBytes, want.AvailableBytes, want.UsedBytes = 2*gib, gib, gib
	want.LimitBytes, want.LimitedBy = 2*gib, "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes"
	want.BoundBy = want.LimitedBy
	want.Events = Events{Known: true, Max: 45, OOMKill: 2, UnderOOM: true}
	assert.Equal(t, want, readTree(t, "v1_docker"))
}

func TestHybridSystemHasLimitsOfV1AndPressureOfV2(t *testing.T) {
	r := readTree(t, "hybrid")
	assert.Equal(t, gib, r.AvailableBytes)
	assert.Equal(t, "/sys/fs/cgroup/memory/batch/memory.limit_in_bytes", r.LimitedBy)
	assert.Equal(t, Stall{From: "/sys/fs/cgroup/unified/memory.pressure", SomeAvg10: 4, SomeTotal: 9 * time.Microsecond},
		r.GroupStall)
}

func TestContainerThatSeesOnlyItsOwnCgroupIsLimitedByIt(t *testing.T) {
	r := readTree(t, "container_v2")
	assert.Equal(t, gib, r.TotalBytes)
	assert.Zero(t, r.AvailableBytes)
	assert.Equal(t, "/sys/fs/cgroup/main/memory.max", r.LimitedBy)
}

func TestHierarchyMountedTwiceCountsOnce(t *testing.T) {
	assert.EqualValues(t, 5, readTree(t, "container_v2").Events.Max)
}

func TestContainerNamedAsOnTheHostIsLimitedByTheMountsRoot(t *testing.T) {
	r := readTree(t, "container_foreign_name")
	assert.Equal(t, "/sys/fs/cgroup/memory/memory.limit_in_bytes", r.LimitedBy)
	assert.Equal(t, 3*gib, r.AvailableBytes)
}

func TestCgroupWhoseNameOnlyBeginsLikeTheMountIsNotBelowIt(t *testing.T) {
	assert.Equal(t, "/sys/fs/cgroup/memory.max", readTree(t, "neighbour_name").LimitedBy)
}

func TestDamagedFilesAreAsIfAbsent(t *testing.T) {
	want := half()
	want.Stall.From = "/proc/pressure/memory"
	want.GroupStall.From = "/sys/fs/cgroup/barkd/memory.pressure"
	assert.Equal(t, want, readTree(t, "damaged"))
}

func TestLimitAboveTheMachineIsNone(t *testing.T) {
	r, err := NewAt(machine(t, map[string]string{
		"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
		"proc/self/mountinfo":      "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"sys/fs/cgroup/memory.max": "1099511627776\n", "sys/fs/cgroup/memory.current": "1099511627775\n",
	})).Read()
	require.NoError(t, err)
	assert.Equal(t, half(), r)
}

func TestSystemWithoutProcTellsItsTotal(t *testing.T) {
	r, err := NewAt(t.TempDir()).Read()
	require.NoError(t, err)
	assert.Positive(t, r.TotalBytes)
}

func TestDamagedMeminfoIsAnError(t *testing.T) {
	_, err := NewAt(machine(t, map[string]string{"proc/meminfo": "MemTotal: lots\n"})).Read()
	assert.ErrorContains(t, err, "MemTotal")
}

func TestThisMachineIsRead(t *testing.T) {
	r, err := New().Read()
	require.NoError(t, err)
	assert.Positive(t, r.TotalBytes)
	assert.LessOrEqual(t, r.AvailableBytes, r.TotalBytes)
}

func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		if _, err := New().Read(); err != nil {
			b.Fatal(err)
		}
	}
}
