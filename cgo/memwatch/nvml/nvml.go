// Package nvml reads the memory of NVIDIA GPUs through the driver's own library, which also sees what other processes
// hold. The library is opened at run time: a machine without a driver gets ErrUnavailable. Builds without cgo, and
// systems other than Linux, always get it.
//
// NVML knows all GPUs of the machine, in an order of its own. Which of them CUDA shows, and under which number, is the
// matter of CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER and MIG; what the two have in common is the UUID.
package nvml

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"barkd/cgo/memwatch"
)

// ErrUnavailable says that there is no NVML here: no driver, or a build without it.
var ErrUnavailable = errors.New("GPU memory is not watched")

// GPUs is the open library. Close it.
type GPUs struct {
	Devices []*Device // the machine's GPUs; of one in MIG mode its MIG devices

	shutdown func() error

	mu     sync.RWMutex // held by readings; the library must not close under them
	closed bool         // guarded by mu
}

// Device is one GPU, or one MIG device. It is a memwatch.Reader.
type Device struct {
	UUID  string // the driver's: "GPU-…" or "MIG-…"
	Model string // "NVIDIA A100-SXM4-40GB"

	gpus *GPUs
	read func() (memwatch.Reading, error)
}

// Find returns the device of a UUID, nil for none. CUDA knows the number alone, so the prefix does not count.
func (g *GPUs) Find(uuid string) *Device {
	wanted := number(uuid)
	if wanted == "" {
		return nil
	}
	for _, d := range g.Devices {
		if strings.EqualFold(wanted, number(d.UUID)) {
			return d
		}
	}
	return nil
}

func number(uuid string) string {
	return strings.TrimPrefix(strings.TrimPrefix(uuid, "GPU-"), "MIG-")
}

// Read reads the present values.
func (d *Device) Read() (memwatch.Reading, error) {
	d.gpus.mu.RLock()
	defer d.gpus.mu.RUnlock()
	if d.gpus.closed {
		return memwatch.Reading{}, fmt.Errorf("read the memory of %s: %w: closed", d.UUID, ErrUnavailable)
	}
	r, err := d.read()
	if err != nil {
		return memwatch.Reading{}, fmt.Errorf("read the memory of %s: %w", d.UUID, err)
	}
	return r, nil
}

// Close closes the library. While a reading hangs in the driver it stays open, and the error says so.
func (g *GPUs) Close() error {
	if !g.mu.TryLock() {
		return errors.New("close NVML: a reading has not ended")
	}
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	return g.shutdown()
}
