package mock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"barkd/cgo"
)

// Faults is a plan of what goes wrong. The same plan and the same order of each model's calls give the same faults.
type Faults struct {
	Seed  uint64  `json:"seed"` // of the probabilities
	Rules []Fault `json:"rules"`
}

// Fault is one rule of a plan. It looks at the calls of its kind for the models it names, counted from 1 for each
// model, and takes effect at all of them, or as Nth, Every or Probability says. Of several rules of one kind the first
// that takes effect counts.
//
//	load_slow              takes Factor times as long
//	load_fails             fails halfway with Error
//	load_hangs             never ends but with its context
//	load_deaf              does not see its context end for Seconds, then goes on
//	leak                   keeps Bytes after the model and its sessions and voices are closed, for Seconds, 0: for good
//	estimate_off           is wrong by Bytes
//	estimate_fails         fails with Error
//	session_out_of_memory  makes no session
//	synthesis_slow         takes Factor times as long
//	device_lost            fails, as does every load, session and synthesis on its device after it for Seconds, 0: for good
//	device_lost_in_load    the same halfway through a load
//	device_lost_in_session the same when a session is made
//	device_lost_in_stream  the same after the first audio of a synthesis
//
// Seconds are not scaled by Options.TimeScale.
type Fault struct {
	Kind        string  `json:"fault"`
	Model       string  `json:"model"` // an id, or a pattern of path.Match; "" is every model
	Nth         int     `json:"nth"`
	Every       int     `json:"every"`
	Probability float64 `json:"probability"`
	Factor      float64 `json:"factor"`
	Error       string  `json:"error"` // not_found, bad_model, out_of_memory, device, unsupported or internal
	Seconds     float64 `json:"seconds"`
	Bytes       int64   `json:"bytes"`
}

// The kinds of fault.
const (
	LoadSlow           = "load_slow"
	LoadFails          = "load_fails"
	LoadHangs          = "load_hangs"
	LoadDeaf           = "load_deaf"
	Leak               = "leak"
	EstimateOff        = "estimate_off"
	EstimateFails      = "estimate_fails"
	SessionOutOfMemory = "session_out_of_memory"
	SynthesisSlow      = "synthesis_slow"
	DeviceLost         = "device_lost"

	DeviceLostInLoad    = "device_lost_in_load"
	DeviceLostInSession = "device_lost_in_session"
	DeviceLostInStream  = "device_lost_in_stream"
)

// faultFields names the fields that each kind needs (and, after a "?", those it may have).
var faultFields = map[string]string{
	LoadSlow: "factor", LoadFails: "error", LoadHangs: "", LoadDeaf: "seconds", Leak: "bytes ?seconds",
	EstimateOff: "bytes", EstimateFails: "error", SessionOutOfMemory: "", SynthesisSlow: "factor", DeviceLost: "?seconds",
	DeviceLostInLoad: "?seconds", DeviceLostInSession: "?seconds", DeviceLostInStream: "?seconds",
}

var faultErrors = map[string]error{
	"not_found": cgo.ErrNotFound, "bad_model": cgo.ErrBadModel, "out_of_memory": cgo.ErrOutOfMemory,
	"device": cgo.ErrDevice, "unsupported": cgo.ErrUnsupported, "internal": cgo.ErrInternal,
}

// ParseFaults reads a plan from JSON and checks it.
func ParseFaults(text []byte) (*Faults, error) {
	var plan Faults
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&plan); err != nil {
		return nil, fmt.Errorf("fault plan: %w", err)
	}
	if decoder.More() {
		return nil, errors.New("fault plan: more than one JSON value")
	}
	return &plan, plan.Validate()
}

// Validate names the first rule that cannot be followed.
func (f *Faults) Validate() error {
	for i, rule := range f.Rules {
		if err := rule.validate(); err != nil {
			return fmt.Errorf("fault plan: rule %d (%s): %w", i+1, rule.Kind, err)
		}
	}
	return nil
}

func (f Fault) validate() error {
	fields, ok := faultFields[f.Kind]
	if !ok {
		return fmt.Errorf("no such fault; there are %s", strings.Join(sortedKeys(faultFields), ", "))
	}
	for name, set := range map[string]bool{
		"factor": f.Factor != 0, "error": f.Error != "", "seconds": f.Seconds != 0, "bytes": f.Bytes != 0,
	} {
		needed := slices.Contains(strings.Fields(fields), name)
		if needed && !set {
			return fmt.Errorf("%s is missing", name)
		}
		if set && !needed && !slices.Contains(strings.Fields(fields), "?"+name) {
			return fmt.Errorf("%s means nothing here", name)
		}
	}
	if f.Error != "" && faultErrors[f.Error] == nil {
		return fmt.Errorf("no error %q; there are %s", f.Error, strings.Join(sortedKeys(faultErrors), ", "))
	}
	if _, err := path.Match(f.Model, ""); err != nil {
		return fmt.Errorf("model %q: %w", f.Model, err)
	}
	if f.Nth < 0 || f.Every < 0 || f.Probability < 0 || f.Probability > 1 || f.Factor < 0 || f.Seconds < 0 ||
		f.Kind == Leak && f.Bytes < 0 {
		return errors.New("a number is out of range")
	}
	chosen := 0
	for _, set := range []bool{f.Nth > 0, f.Every > 0, f.Probability > 0} {
		if set {
			chosen++
		}
	}
	if chosen > 1 {
		return errors.New("choose one of nth, every and probability")
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// A faultCall is what a rule counts.
type faultCall struct {
	rule  int
	model string
}

// fault returns the rule of a kind that takes effect at this call, and counts the call.
func (r *Runtime) fault(kind, model string) (Fault, bool) {
	if r.opts.Faults == nil {
		return Fault{}, false
	}
	var effective *Fault
	for i := range r.opts.Faults.Rules {
		rule := &r.opts.Faults.Rules[i]
		if rule.Kind != kind {
			continue
		}
		if ok, _ := path.Match(rule.Model, model); !ok && rule.Model != "" {
			continue
		}
		r.mu.Lock()
		r.calls[faultCall{i, model}]++
		n := r.calls[faultCall{i, model}]
		r.mu.Unlock()
		if effective == nil && rule.hits(n, hash(r.opts.Faults.Seed, i, model, n)) {
			effective = rule
		}
	}
	if effective == nil {
		return Fault{}, false
	}
	return *effective, true
}

// hits says whether the rule takes effect at call n; chance is the call's random number.
func (f *Fault) hits(n int, chance uint64) bool {
	switch {
	case f.Nth > 0:
		return n == f.Nth
	case f.Every > 0:
		return n%f.Every == 0
	case f.Probability > 0:
		return unit(&chance) < f.Probability
	}
	return true
}

func (f Fault) duration() time.Duration { return seconds(f.Seconds) }

// err is the error of a rule for a model.
func (f Fault) err(model string) error {
	return fmt.Errorf("%w: model %s: %s by the fault plan", faultErrors[f.Error], model, f.Kind)
}

// mayLose makes the device fail for the time of the rule that takes effect, if one does.
func (r *Runtime) mayLose(kind, model string, device int) {
	f, ok := r.fault(kind, model)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := leak{bytes: 1}
	if f.Seconds > 0 {
		lost.until = r.opts.Clock().Add(f.duration())
	}
	r.devices[device].lost = lost
}

// checkLost fails while the device is lost.
func (r *Runtime) checkLost(device int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.devices[device].lost.live(r.opts.Clock()) > 0 {
		return fmt.Errorf("%w: the simulated device %d is lost by the fault plan", cgo.ErrDevice, device)
	}
	return nil
}

// loadFaults holds up or ends a load before it starts, and says what will be wrong with the rest of it.
func (r *Runtime) loadFaults(ctx context.Context, id string) (slow float64, fails, leaks Fault, err error) {
	slow = 1
	if f, ok := r.fault(LoadSlow, id); ok {
		slow = f.Factor
	}
	fails, _ = r.fault(LoadFails, id)
	leaks, _ = r.fault(Leak, id)
	if f, ok := r.fault(LoadDeaf, id); ok {
		if err := r.opts.Wait(context.WithoutCancel(ctx), f.duration()); err != nil {
			return 0, Fault{}, Fault{}, err
		}
	}
	if _, ok := r.fault(LoadHangs, id); ok {
		<-ctx.Done()
		return 0, Fault{}, Fault{}, ctx.Err()
	}
	return slow, fails, leaks, nil
}
