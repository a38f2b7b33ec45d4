// Package nvml reads the memory of NVIDIA GPUs through the driver's own library, which also sees what other processes
// hold. The library is opened at run time: a machine without a driver gets ErrUnavailable. Builds without cgo, and
// systems other than Linux, always get it.
package nvml

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"barkd/cgo/memwatch"
)

// ErrUnavailable says that there is no NVML here: no driver, or a build without it.
var ErrUnavailable = errors.New("GPU memory is not watched")

// Env is what decides which GPUs CUDA shows to this process and in which order.
type Env struct {
	VisibleDevices string // CUDA_VISIBLE_DEVICES
	Restricted     bool   // CUDA_VISIBLE_DEVICES is set; empty shows no GPU
	DeviceOrder    string // CUDA_DEVICE_ORDER
}

// EnvFrom reads an Env; lookup is os.LookupEnv.
func EnvFrom(lookup func(name string) (string, bool)) Env {
	var e Env
	e.VisibleDevices, e.Restricted = lookup("CUDA_VISIBLE_DEVICES")
	e.DeviceOrder, _ = lookup("CUDA_DEVICE_ORDER")
	return e
}

// GPUs is the open library. Close it.
type GPUs struct {
	Devices []*Device // in CUDA's order
	// Doubt says why the order may be another than CUDA's; empty for none.
	Doubt string

	shutdown func() error

	mu     sync.RWMutex // held by readings; the library must not close under them
	closed bool         // guarded by mu
}

// Device is one GPU, or one MIG device, as CUDA numbers them. It is a memwatch.Reader.
type Device struct {
	Name  string // "cuda:0"
	UUID  string // the driver's: "GPU-…" or "MIG-…"
	Model string // "NVIDIA A100-SXM4-40GB"

	gpus *GPUs
	read func() (memwatch.Reading, error)
}

// Read reads the present values.
func (d *Device) Read() (memwatch.Reading, error) {
	d.gpus.mu.RLock()
	defer d.gpus.mu.RUnlock()
	if d.gpus.closed {
		return memwatch.Reading{}, fmt.Errorf("read the memory of %s: %w: closed", d.Name, ErrUnavailable)
	}
	r, err := d.read()
	if err != nil {
		return memwatch.Reading{}, fmt.Errorf("read the memory of %s (%s): %w", d.Name, d.UUID, err)
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

// physical is one GPU of the machine, in NVML's order.
type physical struct {
	uuid, model string
	read        func() (memwatch.Reading, error)
	migEnabled  bool
	mig         []instance
}

// instance is one MIG device.
type instance struct {
	uuid, legacy string // "MIG-…", and "MIG-GPU-…/gpu instance/compute instance" of drivers before R470
	read         func() (memwatch.Reading, error)
}

// show sets the devices that CUDA shows. Its list ends at the first entry that names no device.
func (g *GPUs) show(env Env, machine []physical) error {
	byIndex := !env.Restricted
	if !env.Restricted {
		for i := range machine {
			g.add(machine[i].asCUDA())
		}
	} else {
		for entry := range strings.SplitSeq(env.VisibleDevices, ",") {
			entry = strings.TrimSpace(entry)
			d, ok := find(machine, entry)
			if !ok {
				break
			}
			if _, err := strconv.Atoi(entry); err == nil {
				byIndex = true
			}
			if d != nil && d.UUID != "" && slices.ContainsFunc(g.Devices, func(have *Device) bool { return have.UUID == d.UUID }) {
				return fmt.Errorf("CUDA_VISIBLE_DEVICES=%s names %s twice", env.VisibleDevices, d.UUID)
			}
			g.add(d)
		}
	}
	mixed := slices.ContainsFunc(machine, func(p physical) bool { return p.model != machine[0].model })
	if byIndex && mixed && env.DeviceOrder != "PCI_BUS_ID" {
		g.Doubt = "GPUs of different models, which CUDA may number otherwise; CUDA_DEVICE_ORDER=PCI_BUS_ID makes it certain"
	}
	return nil
}

func (g *GPUs) add(d *Device) {
	if d == nil {
		return
	}
	d.Name, d.gpus = fmt.Sprintf("cuda:%d", len(g.Devices)), g
	g.Devices = append(g.Devices, d)
}

// asCUDA returns what CUDA shows of a whole GPU: the first instance of one in MIG mode, nil for one without instances.
func (p physical) asCUDA() *Device {
	if !p.migEnabled {
		return &Device{UUID: p.uuid, Model: p.model, read: p.read}
	}
	if len(p.mig) == 0 {
		return nil
	}
	return p.instance(0)
}

func (p physical) instance(i int) *Device {
	return &Device{UUID: p.mig[i].uuid, Model: p.model, read: p.mig[i].read}
}

// find finds one entry of CUDA_VISIBLE_DEVICES: an index, or a UUID or the beginning of one, if only one begins so.
func find(machine []physical, entry string) (*Device, bool) {
	if index, err := strconv.Atoi(entry); err == nil {
		if index < 0 || index >= len(machine) {
			return nil, false
		}
		return machine[index].asCUDA(), true
	}
	var found []*Device
	for _, p := range machine {
		if strings.HasPrefix(entry, "GPU-") && strings.HasPrefix(p.uuid, entry) {
			found = append(found, p.asCUDA())
		}
		for i, m := range p.mig {
			if strings.HasPrefix(entry, "MIG-") && (strings.HasPrefix(m.uuid, entry) || m.legacy == entry) {
				found = append(found, p.instance(i))
			}
		}
	}
	if len(found) != 1 {
		return nil, false
	}
	return found[0], true
}
