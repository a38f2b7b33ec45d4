//go:build cgo

package nvml

import (
	"errors"
	"math"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	fakes "github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo/memwatch"
)

const gib = 1 << 30

// server is eight A100 of 40 GiB with 10 GiB used on each. The mock reports nothing as free by itself.
func server() *fakes.Server {
	s := dgxa100.New()
	for _, d := range s.Devices {
		device := d.(*fakes.Device)
		device.MemoryInfo = nvml.Memory{Total: 40 * gib, Free: 30 * gib, Used: 10 * gib}
		device.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
	}
	return s
}

func first(s *fakes.Server) *fakes.Device { return s.Devices[0].(*fakes.Device) }

func processes(list ...nvml.ProcessInfo) func() ([]nvml.ProcessInfo, nvml.Return) {
	return func() ([]nvml.ProcessInfo, nvml.Return) { return list, nvml.SUCCESS }
}

func mustOpen(t *testing.T, s *fakes.Server, self process) *GPUs {
	t.Helper()
	g, err := open(s, self)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	return g
}

func TestGPUMemoryIsOursAndTheOthers(t *testing.T) {
	s := server()
	first(s).GetComputeRunningProcessesFunc = processes(nvml.ProcessInfo{Pid: 7, UsedGpuMemory: 2 * gib},
		nvml.ProcessInfo{Pid: 8, UsedGpuMemory: 5 * gib}, nvml.ProcessInfo{Pid: 7, UsedGpuMemory: gib})
	g := mustOpen(t, s, process{pid: 7})
	require.Len(t, g.Devices, 8)
	r, err := g.Devices[0].Read()
	require.NoError(t, err)
	assert.Equal(t, memwatch.Reading{TotalBytes: 40 * gib, AvailableBytes: 30 * gib, UsedBytes: 10 * gib,
		OwnBytes: 3 * gib, OthersBytes: 7 * gib}, r)
}

func TestWhatNobodyCanTellIsMinusOne(t *testing.T) {
	for name, list := range map[string]func() ([]nvml.ProcessInfo, nvml.Return){
		"in a container we are somebody else": processes(nvml.ProcessInfo{Pid: 4711, UsedGpuMemory: gib}),
		"the driver gives no number":          processes(nvml.ProcessInfo{Pid: 7, UsedGpuMemory: math.MaxUint64}),
		"the driver gives no list": func() ([]nvml.ProcessInfo, nvml.Return) {
			return nil, nvml.ERROR_NOT_SUPPORTED
		},
	} {
		s := server()
		first(s).GetComputeRunningProcessesFunc = list
		r, err := mustOpen(t, s, process{pid: 7, inContainer: true}).Devices[0].Read()
		require.NoError(t, err, name)
		assert.EqualValues(t, -1, r.OwnBytes, name)
		assert.EqualValues(t, -1, r.OthersBytes, name)
	}
}

func TestProcessWithoutContextHoldsNothing(t *testing.T) {
	r, err := mustOpen(t, server(), process{pid: 7}).Devices[0].Read()
	require.NoError(t, err)
	assert.Zero(t, r.OwnBytes)
	assert.EqualValues(t, 10*gib, r.OthersBytes)
}

func TestGPUIsFoundWhereverTheDriverListsIt(t *testing.T) {
	s := server()
	third := s.Devices[2].(*fakes.Device)
	third.MemoryInfo = nvml.Memory{Total: 40 * gib, Free: 3 * gib, Used: 37 * gib}
	r, err := mustOpen(t, s, process{}).Find(third.UUID).Read()
	require.NoError(t, err)
	assert.EqualValues(t, 3*gib, r.AvailableBytes)
}

func TestMIGDeviceHasItsOwnMemory(t *testing.T) {
	s := server()
	gpu := first(s)
	gpu.MigMode = nvml.DEVICE_MIG_ENABLE
	mig := &mock.Device{
		GetUUIDFunc: func() (string, nvml.Return) { return "MIG-1", nvml.SUCCESS },
		GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) {
			return nvml.Memory{Total: 5 * gib, Free: 4 * gib, Used: gib}, nvml.SUCCESS
		},
		GetComputeRunningProcessesFunc: processes(),
	}
	gpu.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	gpu.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i != 3 {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return mig, nvml.SUCCESS
	}
	g := mustOpen(t, s, process{})
	r, err := g.Find("MIG-1").Read()
	require.NoError(t, err)
	assert.EqualValues(t, 5*gib, r.TotalBytes)
	assert.Nil(t, g.Find(gpu.UUID), "CUDA shows no GPU that is in MIG mode")
	assert.Len(t, g.Devices, 8)
}

func TestDriverThatFailsMidwayFailsReadingsOfItsGPUAlone(t *testing.T) {
	s := server()
	g := mustOpen(t, s, process{})
	_, err := g.Devices[0].Read()
	require.NoError(t, err)
	first(s).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	_, err = g.Devices[0].Read()
	assert.ErrorIs(t, err, nvml.ERROR_GPU_IS_LOST)
	_, err = g.Devices[1].Read()
	assert.NoError(t, err)
}

func TestOldDriverIsNotAskedForMIG(t *testing.T) {
	s := server()
	s.LookupSymbolFunc = func(string) error { return errors.New("no such symbol") }
	first(s).GetMigModeFunc = func() (int, int, nvml.Return) { panic("would end the process") }
	assert.Len(t, mustOpen(t, s, process{}).Devices, 8)
}

func TestGPUThatDoesNotAnswerIsNotListed(t *testing.T) {
	s := server()
	handle := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 1 {
			return nil, nvml.ERROR_GPU_IS_LOST
		}
		return handle(i)
	}
	s.Devices[2].(*fakes.Device).GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_UNKNOWN }
	assert.Len(t, mustOpen(t, s, process{}).Devices, 6)
}

func TestNonsenseOfTheDriverIsAnError(t *testing.T) {
	s := server()
	for _, m := range []nvml.Memory{{}, {Total: 1, Free: 2}, {Total: math.MaxUint64}} {
		first(s).MemoryInfo = m
		_, err := mustOpen(t, s, process{}).Devices[0].Read()
		assert.ErrorContains(t, err, "bytes free")
	}
}

func TestMachineWithoutDriverIsUnavailable(t *testing.T) {
	for ret, want := range map[nvml.Return]bool{nvml.ERROR_LIBRARY_NOT_FOUND: true, nvml.ERROR_DRIVER_NOT_LOADED: true,
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: false} {
		s := server()
		s.InitFunc = func() nvml.Return { return ret }
		_, err := open(s, process{})
		require.Error(t, err)
		assert.Equal(t, want, errors.Is(err, ErrUnavailable), "%v", err)
	}
}
