package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"barkd/cgo"
)

// devices reads a list of devices; none is all of them ("auto").
func (s *settings) devices(name, value string) []string {
	list := splitList(value)
	if len(list) == 1 && strings.EqualFold(list[0], "auto") {
		return nil
	}
	if len(list) == 0 {
		s.bad(name, value, "auto, or devices such as cpu or cuda:0,cuda:1")
	}
	return list
}

// modelDevices reads "suno/bark=cuda:1,suno/bark-small=cuda:0|cpu".
func (s *settings) modelDevices(name, value string) map[string][]string {
	out := make(map[string][]string)
	for _, part := range splitList(value) {
		id, list, named := strings.Cut(part, "=")
		devices := splitList(strings.ReplaceAll(list, "|", ","))
		if id = strings.TrimSpace(id); !named || id == "" || len(devices) == 0 || out[id] != nil {
			s.bad(name, value, "each model once with its devices, such as suno/bark=cuda:1 or suno/bark=cuda:0|cpu")
			break
		}
		out[id] = devices
	}
	return out
}

// sizes reads a list of sizes.
func (s *settings) sizes(name, value string) []int64 {
	var out []int64
	for _, part := range splitList(value) {
		bytes, err := humanize.ParseBytes(part)
		if err != nil || bytes == 0 || bytes > 1<<50 || len(out) == 16 {
			s.bad(name, value, "at most 16 sizes such as 24GB,24GB")
			break
		}
		out = append(out, int64(bytes))
	}
	return out
}

// indices finds devices by their ids or their drivers' UUIDs; no names are all devices.
func indices(devices []cgo.Device, setting string, names []string) ([]int, error) {
	var out []int
	if len(names) == 0 {
		for i := range devices {
			out = append(out, i)
		}
	}
	for _, name := range names {
		at := slices.IndexFunc(devices, func(d cgo.Device) bool { return name == d.ID || d.UUID != "" && name == d.UUID })
		if at < 0 {
			return nil, noDevice(setting, name)
		}
		if !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out, nil
}

func noDevice(setting, name string) error {
	return &usageError{fmt.Errorf("%s names the device %q, which is not here; 'barkd devices' lists those that are", setting, name)}
}

// place puts the settings of devices into the pool's options.
func (c cacheConfig) place(devices []cgo.Device, opts *cgo.PoolOptions) (err error) {
	if opts.Devices, err = indices(devices, "DEVICES", c.devices); err != nil {
		return err
	}
	opts.ModelDevices = make(map[string][]int)
	for id, names := range c.modelDevices {
		if opts.ModelDevices[id], err = indices(devices, "MODEL_DEVICES", names); err != nil {
			return err
		}
	}
	return nil
}

// failOver says which devices are lost, and loads the pinned models and those of the warm-up that were there elsewhere.
func (h *house) failOver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case loss := <-h.lost:
			h.log.Error().Str("device", loss.Device.ID).Str("name", loss.Device.Name).Str("uuid", loss.Device.UUID).Str("reason", loss.Why).
				Strs("models", loss.Models).Bool("others", h.pool.Usable()).
				Msg("a device is lost: it is not used again before the server is started again")
			h.loadAgain(ctx, loss.Models)
		}
	}
}

func (h *house) loadAgain(ctx context.Context, ids []string) {
	pins := h.pool.Snapshot().Pins
	for _, id := range ids {
		var err error
		switch {
		case slices.Contains(pins, id):
			err = h.pool.Preload(ctx, id, nil)
		case slices.ContainsFunc(h.warmup.Models(), func(m cgo.WarmupModel) bool { return m.ID == id }):
			err = h.pool.Warm(ctx, id)
		}
		if err != nil && ctx.Err() == nil {
			h.log.Warn().Str("model", id).Err(err).Msg("a model of a lost device is not loaded again before it is asked for")
		}
	}
}
