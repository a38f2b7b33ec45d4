//go:build cgo

package nvml

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"barkd/cgo/memwatch"
)

// Open opens the driver's library and finds the machine's GPUs.
func Open() (*GPUs, error) { return OpenWith(nvml.New()) }

// OpenWith does so with a library that takes the driver's place, for tests.
func OpenWith(lib nvml.Interface) (*GPUs, error) { return open(lib, thisProcess()) }

// process is who asks. NVML numbers processes as the machine does, not as a container.
type process struct {
	pid         uint32
	inContainer bool
}

// The number of the machine's own namespace of process ids, fixed in the kernel (PROC_PID_INIT_INO).
const machinePIDs = "pid:[4026531836]"

func thisProcess() process {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	return process{pid: uint32(os.Getpid()), inContainer: err != nil || namespace != machinePIDs}
}

func open(lib nvml.Interface, self process) (*GPUs, error) {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: no NVIDIA driver here", ErrUnavailable)
	default:
		return nil, fmt.Errorf("open NVML: %w", ret)
	}
	g := &GPUs{shutdown: func() error { return failure("close NVML", lib.Shutdown()) }}
	if err := g.list(lib, self); err != nil {
		return nil, errors.Join(err, g.shutdown())
	}
	return g, nil
}

func failure(doing string, ret nvml.Return) error {
	if ret == nvml.SUCCESS {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, ret)
}

// list lists the machine's GPUs. One that does not answer has no UUID to be found by.
func (g *GPUs) list(lib nvml.Interface, self process) error {
	n, ret := lib.DeviceGetCount()
	if err := failure("count GPUs", ret); err != nil {
		return err
	}
	mig := hasMIG(lib)
	for i := range n {
		gpu, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		model, _ := gpu.GetName()
		if mig {
			mode, _, ret := gpu.GetMigMode()
			if ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
				g.listMIG(gpu, model, self)
				continue
			}
		}
		g.add(gpu, model, self)
	}
	return nil
}

func (g *GPUs) add(gpu nvml.Device, model string, self process) {
	uuid, ret := gpu.GetUUID()
	if ret != nvml.SUCCESS {
		return
	}
	g.Devices = append(g.Devices, &Device{UUID: uuid, Model: model, gpus: g,
		read: func() (memwatch.Reading, error) { return read(gpu, self) }})
}

// hasMIG asks first: a function that an old driver lacks would end the process when it is called.
func hasMIG(lib nvml.Interface) bool {
	for _, name := range []string{"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"} {
		if lib.Extensions().LookupSymbol(name) != nil {
			return false
		}
	}
	return true
}

// listMIG lists the MIG devices of a GPU: the memory of each is its own.
func (g *GPUs) listMIG(gpu nvml.Device, model string, self process) {
	most, ret := gpu.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return
	}
	for i := range most {
		if mig, ret := gpu.GetMigDeviceHandleByIndex(i); ret == nvml.SUCCESS { // else a place without an instance
			g.add(mig, model, self)
		}
	}
}

// read reads one GPU or MIG device.
func read(gpu nvml.Device, self process) (memwatch.Reading, error) {
	m, ret := gpu.GetMemoryInfo()
	if ret != nvml.SUCCESS {
		return memwatch.Reading{}, ret
	}
	if m.Total == 0 || m.Total > math.MaxInt64 || m.Free > m.Total {
		return memwatch.Reading{}, fmt.Errorf("%d of %d bytes free", m.Free, m.Total)
	}
	r := memwatch.Reading{TotalBytes: int64(m.Total), AvailableBytes: int64(m.Free), OwnBytes: -1, OthersBytes: -1}
	r.UsedBytes = r.TotalBytes - r.AvailableBytes
	if own, ok := ownBytes(gpu, self); ok {
		r.OwnBytes, r.OthersBytes = own, max(0, r.UsedBytes-own)
	}
	return r, nil
}

// ownBytes returns what this process holds on the GPU.
func ownBytes(gpu nvml.Device, self process) (int64, bool) {
	all, ret := gpu.GetComputeRunningProcesses()
	if ret != nvml.SUCCESS {
		return 0, false
	}
	found := false
	var bytes uint64
	for _, p := range all {
		if p.Pid != self.pid {
			continue
		}
		if p.UsedGpuMemory > math.MaxInt64 { // the driver writes all ones where it cannot tell
			return 0, false
		}
		found, bytes = true, bytes+p.UsedGpuMemory
	}
	// In a container another process may be ours under its number on the machine.
	return int64(bytes), found || !self.inContainer
}
