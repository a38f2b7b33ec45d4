package memwatch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	gib     = int64(1) << 30
	meminfo = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\n" +
		"MemAvailable:    8388608 kB\nHugePages_Total:       0\n"
	mountV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1 = "35 25 0:30 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n" +
		"36 25 0:31 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
)

// machine writes a file tree and returns what a source reads there.
func machine(t *testing.T, files map[string]string) (Reading, error) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	return NewAt(root).Read()
}

func TestMachineWithoutCgroups(t *testing.T) {
	r, err := machine(t, map[string]string{"proc/meminfo": meminfo})
	require.NoError(t, err)
	assert.Equal(t, Reading{TotalBytes: 16 * gib, AvailableBytes: 8 * gib}, r)
}

func TestUnlimitedCgroupIsNoLimit(t *testing.T) {
	r, err := machine(t, map[string]string{
		"proc/meminfo": meminfo, "proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/a\n",
		"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "1\n",
	})
	require.NoError(t, err)
	assert.Equal(t, Reading{TotalBytes: 16 * gib, AvailableBytes: 8 * gib}, r)
}

func TestCgroupV2LimitOfAnAncestorHolds(t *testing.T) {
	r, err := machine(t, map[string]string{
		"proc/meminfo": meminfo, "proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/slice/barkd\n",
		"sys/fs/cgroup/slice/barkd/memory.max":     "6442450944\n",
		"sys/fs/cgroup/slice/barkd/memory.current": "1073741824\n",
		"sys/fs/cgroup/slice/memory.max":           "4294967296\n",
		"sys/fs/cgroup/slice/memory.current":       "3221225472\n",
		"sys/fs/cgroup/slice/memory.stat":          "anon 5\ninactive_file 1073741824\n",
	})
	require.NoError(t, err)
	assert.Equal(t, Reading{TotalBytes: 4 * gib, AvailableBytes: 2 * gib, LimitBytes: 4 * gib,
		LimitedBy: "/sys/fs/cgroup/slice"}, r)
}

func TestCgroupV1LimitHolds(t *testing.T) {
	r, err := machine(t, map[string]string{
		"proc/meminfo": meminfo, "proc/self/mountinfo": mountV1, "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n",
		"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "2147483648\n",
		"sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": "1610612736\n",
		"sys/fs/cgroup/memory/docker/1/memory.stat":           "total_inactive_file 536870912\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
		"sys/fs/cgroup/memory/memory.usage_in_bytes":          "1\n",
	})
	require.NoError(t, err)
	assert.Equal(t, Reading{TotalBytes: 2 * gib, AvailableBytes: gib, LimitBytes: 2 * gib,
		LimitedBy: "/sys/fs/cgroup/memory/docker/1"}, r)
}

func TestContainerThatSeesOnlyItsOwnCgroupIsLimitedByIt(t *testing.T) {
	r, err := machine(t, map[string]string{
		"proc/meminfo":                 meminfo,
		"proc/self/mountinfo":          strings.Replace(mountV2, " / /sys", " /docker/1 /sys", 1),
		"proc/self/cgroup":             "0::/docker/1\n",
		"sys/fs/cgroup/memory.max":     "1073741824\n",
		"sys/fs/cgroup/memory.current": "2147483648\n",
	})
	require.NoError(t, err)
	assert.Equal(t, Reading{TotalBytes: gib, AvailableBytes: 0, LimitBytes: gib, LimitedBy: "/sys/fs/cgroup"}, r)
}

func TestLimitAboveTheMachineIsNone(t *testing.T) {
	r, err := machine(t, map[string]string{
		"proc/meminfo": meminfo, "proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/\n",
		"sys/fs/cgroup/memory.max": "1099511627776\n", "sys/fs/cgroup/memory.current": "0\n",
	})
	require.NoError(t, err)
	assert.Zero(t, r.LimitBytes)
	assert.Equal(t, 16*gib, r.TotalBytes)
}

func TestSystemWithoutProcTellsItsTotal(t *testing.T) {
	r, err := machine(t, nil)
	require.NoError(t, err)
	assert.Positive(t, r.TotalBytes)
}

func TestDamagedMeminfoIsAnError(t *testing.T) {
	_, err := machine(t, map[string]string{"proc/meminfo": "MemTotal: lots\n"})
	assert.ErrorContains(t, err, "MemTotal")
}

func TestThisMachineIsRead(t *testing.T) {
	r, err := New().Read()
	require.NoError(t, err)
	assert.Positive(t, r.TotalBytes)
	assert.LessOrEqual(t, r.AvailableBytes, r.TotalBytes)
}
