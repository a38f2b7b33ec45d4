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

// Open opens the driver's library and finds the GPUs that CUDA shows under env.
func Open(env Env) (*GPUs, error) { return open(nvml.New(), env, thisProcess()) }

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

func open(lib nvml.Interface, env Env, self process) (*GPUs, error) {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: no NVIDIA driver here", ErrUnavailable)
	default:
		return nil, fmt.Errorf("open NVML: %w", ret)
	}
	g := &GPUs{shutdown: func() error { return failure("close NVML", lib.Shutdown()) }}
	machine, err := list(lib, self)
	if err == nil {
		err = g.show(env, machine)
	}
	if err != nil {
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

// list lists the machine's GPUs. One that does not answer keeps its place: its readings fail.
func list(lib nvml.Interface, self process) ([]physical, error) {
	n, ret := lib.DeviceGetCount()
	if err := failure("count GPUs", ret); err != nil {
		return nil, err
	}
	machine := make([]physical, n)
	for i := range machine {
		gpu, ret := lib.DeviceGetHandleByIndex(i)
		if err := failure("open the GPU", ret); err != nil {
			machine[i].read = func() (memwatch.Reading, error) { return memwatch.Reading{}, err }
			continue
		}
		p := physical{read: func() (memwatch.Reading, error) { return read(gpu, self) }}
		p.uuid, _ = gpu.GetUUID() // without one it is found by its index only
		p.model, _ = gpu.GetName()
		if hasMIG(lib) {
			p.listMIG(gpu, self)
		}
		machine[i] = p
	}
	return machine, nil
}

// hasMIG asks first: a function that an old driver lacks would end the process when it is called.
func hasMIG(lib nvml.Interface) bool {
	for _, name := range []string{"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount",
		"nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"} {
		if lib.Extensions().LookupSymbol(name) != nil {
			return false
		}
	}
	return true
}

func (p *physical) listMIG(gpu nvml.Device, self process) {
	mode, _, ret := gpu.GetMigMode()
	if ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return
	}
	p.migEnabled = true
	most, ret := gpu.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return
	}
	for i := range most {
		mig, ret := gpu.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS { // a place without an instance
			continue
		}
		uuid, ret := mig.GetUUID()
		if ret != nvml.SUCCESS {
			continue
		}
		m := instance{uuid: uuid, read: func() (memwatch.Reading, error) { return read(mig, self) }}
		gi, giRet := mig.GetGpuInstanceId()
		ci, ciRet := mig.GetComputeInstanceId()
		if giRet == nvml.SUCCESS && ciRet == nvml.SUCCESS {
			m.legacy = fmt.Sprintf("MIG-%s/%d/%d", p.uuid, gi, ci)
		}
		p.mig = append(p.mig, m)
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
