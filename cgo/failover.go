package cgo

import (
	"errors"
	"fmt"

	"barkd/cgo/cache"
)

// Loss is a device that is lost. It works again when the process is started again, not before: its context is gone.
type Loss struct {
	Device Device
	Why    string
	Models []string // that were on it or on their way there, least recently used first
}

// judge looks whether an error of a device means that the device is lost; then the error is an ErrLost, too, and the
// device takes no model any more.
func (p *Pool) judge(device int, err error) error {
	if !errors.Is(err, ErrDevice) || p.devices[device].Kind == "cpu" {
		return err
	}
	if _, works := p.runtime.Probe(device); works == nil {
		return err
	}
	p.lose(device, err.Error())
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// lose closes a device for good. The models on it are given up: those in use fail by themselves, for a lost device
// answers every call at once.
func (p *Pool) lose(device int, why string) {
	loss := Loss{Device: p.devices[device], Why: why}
	for _, e := range p.Snapshot().Entries {
		if e.Pool == loss.Device.ID && e.State != cache.Freeing && e.State != cache.Draining {
			loss.Models = append(loss.Models, e.Key)
		}
	}
	first := p.Cache.Lose(device, why)
	p.lost[device].Store(true)
	if first {
		p.told(loss)
	}
}

// lostError makes a refusal for a lost device an ErrLost.
func lostError(err error) error {
	if errors.Is(err, cache.ErrLost) {
		return fmt.Errorf("%w: %w: %w", ErrLost, ErrDevice, err)
	}
	return err
}
