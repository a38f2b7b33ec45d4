//go:build cgo

package main

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	fakes "github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/memwatch"
	gpumemory "barkd/cgo/memwatch/nvml"
	"barkd/cgo/mock"
	"barkd/server/metrics"
	"barkd/server/speech"
)

// dgx is a server of eight A100 and, on top of it, a pool whose two GPUs are the server's sixth and third.
func dgx(t *testing.T) (*machine, *cgo.Pool, *logWatch, []*fakes.Device) {
	t.Helper()
	pool, err := cgo.NewPool(mock.New(mock.Options{GPUs: []int64{40 << 30, 40 << 30}}), mock.Resolve,
		cgo.PoolOptions{Devices: []int{1, 2}, Budgets: []int64{0, 10 << 30, 20 << 30}})
	require.NoError(t, err)
	box := dgxa100.New()
	var gpus []*fakes.Device
	for _, d := range box.Devices {
		gpu := d.(*fakes.Device)
		gpu.MemoryInfo = nvml.Memory{Total: 40 << 30, Free: 30 << 30, Used: 10 << 30}
		gpu.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
		gpus = append(gpus, gpu)
	}
	gpus[5].UUID, gpus[2].UUID = pool.Devices()[1].UUID, pool.Devices()[2].UUID
	log := &logWatch{address: make(chan string, 1)}
	m := newMachine(pool, speech.NewAudioCache(0), cacheConfig{checkEvery: time.Second}, metrics.New(), newLog(log, from(0), "json"))
	m.openGPUs = func() (*gpumemory.GPUs, error) { return gpumemory.OpenWith(box) }
	t.Cleanup(func() {
		if m.stop != nil {
			m.unwatch()
		}
		require.NoError(t, pool.Close(context.Background()))
	})
	return m, pool, log, gpus
}

// eventually waits for a device's level.
func (m *machine) eventually(t *testing.T, device int, want memwatch.Level) {
	t.Helper()
	require.Eventually(t, func() bool { return m.Level(device) == want }, 20*time.Second, 10*time.Millisecond)
}

func homeOf(pool *cgo.Pool, model string) string {
	for _, e := range pool.Snapshot().Entries {
		if e.Key == model {
			return e.Pool
		}
	}
	return ""
}

func TestPressureOfAGPUIsThatOfItsOwnPool(t *testing.T) {
	m, pool, _, gpus := dgx(t)
	gpus[2].MemoryInfo = nvml.Memory{Total: 40 << 30, Free: 100 << 20, Used: 40<<30 - 100<<20} // of other processes
	m.watch()
	m.eventually(t, 2, memwatch.LevelCritical)
	assert.Equal(t, memwatch.LevelNone, m.Level(1))
	require.Eventually(t, func() bool { return pool.Snapshot().Pools[2].Refusing != "" }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, pool.Preload(t.Context(), "suno/bark-small", nil))
	assert.Equal(t, "cuda:0", homeOf(pool, "suno/bark-small"), "the one with the larger budget takes no loads")
}

func TestMIGDeviceIsWatchedAsCUDANamesIt(t *testing.T) {
	m, pool, _, gpus := dgx(t)
	slice := dgxa100.NewDevice(7)
	slice.UUID = "MIG-" + pool.Devices()[1].UUID[len("GPU-"):]
	slice.MemoryInfo = nvml.Memory{Total: 5 << 30, Free: 1 << 20, Used: 5<<30 - 1<<20}
	slice.GetComputeRunningProcessesFunc = gpus[0].GetComputeRunningProcessesFunc
	gpus[5].UUID, gpus[5].MigMode = "GPU-whole", nvml.DEVICE_MIG_ENABLE
	gpus[5].GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 1, nvml.SUCCESS }
	gpus[5].GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return slice, nvml.SUCCESS }
	m.watch()
	m.eventually(t, 1, memwatch.LevelCritical)
	assert.Equal(t, memwatch.LevelNone, m.Level(2))
}

func TestServerGoesOnWithoutTheDriversLibrary(t *testing.T) {
	m, pool, log, gpus := dgx(t)
	gpus[5].UUID = "GPU-another"
	m.watch()
	assert.Contains(t, log.String(), `"device":"cuda:0"`)
	assert.Contains(t, log.String(), "the driver does not list it")
	m.unwatch()
	m.openGPUs = func() (*gpumemory.GPUs, error) { return nil, gpumemory.ErrUnavailable }
	m.watch()
	assert.Contains(t, log.String(), "the memory of GPUs is not watched")
	require.NoError(t, pool.Preload(t.Context(), "suno/bark-small", nil))
}

func TestDriverThatFailsMidwayIsSaidOnceAndTheOtherGPUIsWatchedOn(t *testing.T) {
	m, _, log, gpus := dgx(t)
	var asked atomic.Int32
	gpus[5].GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		if asked.Add(1) > 1 {
			return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST
		}
		return gpus[5].MemoryInfo, nvml.SUCCESS
	}
	gpus[2].MemoryInfo = nvml.Memory{Total: 40 << 30, Free: 100 << 20, Used: 40<<30 - 100<<20}
	m.watch()
	m.eventually(t, 2, memwatch.LevelCritical)
	require.Eventually(t, func() bool { return strings.Count(log.String(), "the memory cannot be read") == 1 }, 20*time.Second, 10*time.Millisecond)
	assert.Equal(t, memwatch.LevelNone, m.Level(1))
}
