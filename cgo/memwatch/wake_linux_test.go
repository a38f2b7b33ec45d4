package memwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// waking runs Wake until the test ends. Causes and what is missing arrive in the channels.
func waking(t *testing.T, s *Source) (causes chan string, missing chan error) {
	t.Helper()
	causes, missing = make(chan string, 100), make(chan error, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		s.Wake(ctx, func(cause string) {
			select {
			case causes <- cause:
			default:
			}
		}, func(err error) { missing <- err })
	})
	t.Cleanup(func() {
		start := time.Now()
		cancel()
		done.Wait()
		assert.Less(t, time.Since(start), time.Second)
	})
	return causes, missing
}

func receive[T any](t *testing.T, from chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came in 10 s")
		panic("unreachable")
	}
}

func TestChangedCountersWake(t *testing.T) {
	root := tree(t, "v2_nested")
	causes, missing := waking(t, NewAt(root))
	// The trigger on PSI files is refused: these are plain files that take any text. That they do not poll is found out.
	assert.Error(t, receive(t, missing))
	// A listener that has said what is missing listens to the rest.
	for _, name := range []string{
		"/sys/fs/cgroup/voice.slice/memory.events.local",
		"/sys/fs/cgroup/voice.slice/barkd.service/memory.events",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte("max 11\n"), 0o600))
		for receive(t, causes) != name { // cutting and writing are two changes
		}
	}
}

func TestSystemWithoutPSISaysSo(t *testing.T) {
	_, missing := waking(t, NewAt(tree(t, "v2_high")))
	assert.ErrorContains(t, receive(t, missing), "/proc/pressure/memory")
}

func TestThisMachineTakesAStallTrigger(t *testing.T) {
	if _, err := os.Stat("/proc/pressure/memory"); err != nil {
		t.Skip("this kernel has no PSI:", err)
	}
	l, err := newListener()
	require.NoError(t, err)
	defer l.close()
	if err := l.addStall("/proc/pressure/memory", "/proc/pressure/memory"); err != nil {
		t.Skip("this system refuses the trigger:", err)
	}
	ended := make(chan error)
	go func() { ended <- l.run(func(string) {}) }()
	l.stop()
	assert.NoError(t, receive(t, ended))
}

// limitedGroup makes a v1 group with a limit of so many bytes and returns its directory, or skips.
func limitedGroup(t *testing.T, bytes int64) string {
	t.Helper()
	const controller = "/sys/fs/cgroup/memory"
	if _, err := os.Stat(controller + "/cgroup.event_control"); err != nil {
		t.Skip("no v1 memory controller here:", err)
	}
	dir, err := os.MkdirTemp(controller, "memwatch-test-")
	if err != nil {
		t.Skip("this machine allows no cgroup:", err)
	}
	t.Cleanup(func() {
		var err error
		for range 100 { // the kernel needs a moment after the last process
			if err = os.Remove(dir); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Error(err)
	})
	if err := os.WriteFile(dir+"/memory.limit_in_bytes", fmt.Append(nil, bytes), 0); err != nil {
		t.Skip("this machine allows no limit:", err)
	}
	return dir
}

// TestGreedy is no test but the process that TestRealLimitWakes puts under a limit: it waits for a line, then takes
// memory until it is killed.
func TestGreedy(t *testing.T) {
	if os.Getenv("MEMWATCH_GREEDY") == "" {
		t.Skip("only as a process of TestRealLimitWakes")
	}
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var held [][]byte
	for range 64 { // 256 MiB against a limit of 64
		block := make([]byte, 4<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	t.Log(len(held))
}

func TestRealLimitWakes(t *testing.T) {
	dir := limitedGroup(t, 64<<20)
	greedy := exec.Command(os.Args[0], "-test.run=^TestGreedy$")
	greedy.Env = append(os.Environ(), "MEMWATCH_GREEDY=1")
	stdin, err := greedy.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, greedy.Start())
	defer func() {
		_ = greedy.Process.Kill()
		_ = greedy.Wait()
	}()
	if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, greedy.Process.Pid), 0); err != nil {
		t.Skip("this machine moves no process into a cgroup:", err)
	}
	// A source that takes the new group for its own.
	name := strings.TrimPrefix(dir, "/sys/fs/cgroup/memory")
	root := machine(t, map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:" + name + "\n",
		"proc/self/mountinfo": "35 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"})
	require.NoError(t, os.Symlink("/sys", filepath.Join(root, "sys")))
	source := NewAt(root)
	causes, missing := waking(t, source)
	assert.ErrorContains(t, receive(t, missing), "/proc/pressure/memory") // and nothing else
	start := time.Now()
	_, err = stdin.Write([]byte("\n"))
	require.NoError(t, err)
	assert.Contains(t, receive(t, causes), dir)
	t.Logf("woken %v after the process began to take memory", time.Since(start).Round(time.Millisecond))
	require.Error(t, greedy.Wait(), "the kernel did not kill it")
	r, err := source.Read()
	require.NoError(t, err)
	assert.EqualValues(t, 64<<20, r.LimitBytes)
	assert.Equal(t, dir+"/memory.limit_in_bytes", r.LimitedBy)
	assert.Positive(t, r.Events.Max)
	assert.EqualValues(t, 1, r.Events.OOMKill)
}

func TestUnknownErrorsOfAFileAreNotMistakenForAbsence(t *testing.T) {
	l, err := newListener()
	require.NoError(t, err)
	defer l.close()
	dir := t.TempDir()
	assert.ErrorIs(t, l.addStall("x", filepath.Join(dir, "none")), os.ErrNotExist)
	err = l.addStall("x", dir)
	require.Error(t, err)
	assert.False(t, errors.Is(err, os.ErrNotExist))
}
