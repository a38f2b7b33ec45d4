package native

// #include "shim.h"
import "C"

import (
	"regexp"

	"barkd/cgo"
)

// uuid is how the detail of a CUDA device names it.
var uuid = regexp.MustCompile(`(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// Devices implements cgo.Runtime.
func (r *runtime) Devices() ([]cgo.Device, error) {
	count := C.barkrt_device_count()
	devices := make([]cgo.Device, 0, int(count))
	for i := range count {
		var d C.barkrt_device
		d.struct_size = C.sizeof_barkrt_device
		var failure C.barkrt_error
		if err := toError(C.barkrt_device_describe(i, &d, &failure), &failure); err != nil {
			return nil, err
		}
		detail := C.GoString(&d.detail[0])
		devices = append(devices, cgo.Device{
			ID:         C.GoString(&d.id[0]),
			Kind:       C.GoString(&d.kind[0]),
			Name:       C.GoString(&d.name[0]),
			Detail:     detail,
			UUID:       uuid.FindString(detail),
			Cores:      int(d.n_cores),
			TotalBytes: int64(d.total_bytes),
		})
	}
	return devices, nil
}

// Probe implements cgo.Runtime.
func (r *runtime) Probe(device int) (freeBytes int64, err error) {
	index, err := toInt32("device", device)
	if err != nil {
		return 0, err
	}
	var free, total C.int64_t
	var failure C.barkrt_error
	err = toError(C.barkrt_device_memory(C.int32_t(index), &free, &total, &failure), &failure)
	return int64(free), err
}

// Trim implements cgo.Runtime.
func (r *runtime) Trim(device int) (returned int64, err error) {
	index, err := toInt32("device", device)
	if err != nil {
		return 0, err
	}
	var bytes C.int64_t
	var failure C.barkrt_error
	err = toError(C.barkrt_trim(C.int32_t(index), &bytes, &failure), &failure)
	return int64(bytes), err
}

// Live implements cgo.Runtime.
func (r *runtime) Live(device int) (cgo.Memory, error) {
	index, err := toInt32("device", device)
	if err != nil {
		return cgo.Memory{}, err
	}
	var memory C.barkrt_memory
	var failure C.barkrt_error
	err = toError(C.barkrt_live(C.int32_t(index), &memory, &failure), &failure)
	return toMemory(&memory), err
}
