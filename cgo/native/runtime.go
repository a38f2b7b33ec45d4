package native

// #cgo CFLAGS: -I${SRCDIR} -I${SRCDIR}/../../native/include
// #cgo !emulated LDFLAGS: ${SRCDIR}/../../build/native/libbarkrt.a
// #cgo emulated LDFLAGS: ${SRCDIR}/../../build/emulated/libbarkrt.a ${SRCDIR}/../../build/emulated/libemulation.a -l:libboost_context.a
// #cgo LDFLAGS: -l:libutf8proc.a -l:libstdc++.a -lm -lpthread -ldl -lrt -static-libgcc
// #include "shim.h"
import "C"

import (
	"context"
	"fmt"
	rtcgo "runtime/cgo"
	"unsafe"

	"barkd/cgo"
)

// runtime is stateless but for its log: libbarkrt has no global state either.
type runtime struct{ log *logSink }

// New returns the native runtime. log receives the library's messages (levels as barkrt_log_level: 0 debug, 1
// info, 2 warning), from any thread and several at once; nil discards them. The library has one log per process:
// a later New takes it over.
func New(log func(level int, text string)) (cgo.Runtime, error) {
	if built, linked := uint32(C.BARKRT_ABI_VERSION), uint32(C.barkrt_abi_version()); built != linked {
		return nil, fmt.Errorf("this program was built for version %d of the libbarkrt interface, but the library has "+
			"version %d: run 'make native' and build again", built, linked)
	}
	sink := &logSink{log: log}
	if log != nil {
		// The handle lives as long as the process: a call of the library may still log after a later New.
		C.barkd_set_log(C.uintptr_t(rtcgo.NewHandle(sink)))
	}
	return &runtime{log: sink}, nil
}

// LiveHandles counts the native models, sessions, voices, cancel tokens and accounts not yet freed, for leak tests.
func LiveHandles() int64 { return int64(C.barkrt_live_handles()) }

// DefaultModel returns the image of the model in the program, which must not be written to.
func DefaultModel() []byte {
	return unsafe.Slice((*byte)(C.barkd_default_data()), int(C.barkd_default_bytes()))
}

// A place is a cgo.Source in C's terms: a path or a memory range.
type place struct {
	path  *C.char
	data  unsafe.Pointer
	bytes C.int64_t
}

func newPlace(src cgo.Source) (place, error) {
	switch {
	case src.Embedded && src.Path != "":
		return place{}, invalid("model %q has a path and is embedded: choose one", src.Name)
	case src.Embedded:
		return place{data: C.barkd_default_data(), bytes: C.barkd_default_bytes()}, nil
	case src.Path == "":
		return place{}, invalid("model %q has no path", src.Name)
	}
	path, err := cString("model path", src.Path)
	return place{path: path}, err
}

func (p place) free() { C.free(unsafe.Pointer(p.path)) }

// Estimate implements cgo.Runtime.
func (r *runtime) Estimate(src cgo.Source, opts cgo.LoadOptions, session cgo.SessionOptions) (cgo.Estimate, error) {
	device, threads, err := loadNumbers(opts)
	if err != nil {
		return cgo.Estimate{}, err
	}
	at, err := newPlace(src)
	if err != nil {
		return cgo.Estimate{}, err
	}
	defer at.free()
	var ofModel, ofSession C.barkrt_memory
	components, err := toComponents(func(out *C.barkrt_component, capacity C.int64_t, count *C.int64_t) error {
		var failure C.barkrt_error
		return toError(C.barkd_estimate(at.path, at.data, at.bytes, device, threads, C.int32_t(session.KV),
			&ofModel, &ofSession, out, capacity, count, &failure), &failure)
	})
	if err != nil {
		return cgo.Estimate{}, err
	}
	return cgo.Estimate{Model: toMemory(&ofModel), Session: toMemory(&ofSession), Components: components}, nil
}

// Load implements cgo.Runtime.
func (r *runtime) Load(ctx context.Context, src cgo.Source, opts cgo.LoadOptions) (cgo.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.log.failure(); err != nil {
		return nil, err
	}
	device, threads, err := loadNumbers(opts)
	if err != nil {
		return nil, err
	}
	at, err := newPlace(src)
	if err != nil {
		return nil, err
	}
	defer at.free()
	call := &progressCall{callback: callback{log: r.log, ctx: ctx}, progress: opts.Progress}
	user := rtcgo.NewHandle(call)
	defer user.Delete()
	var pointer *C.barkrt_model
	var failure C.barkrt_error
	status := C.barkd_load(at.path, at.data, at.bytes, device, threads, C.uintptr_t(user), &pointer, &failure)
	var m *model
	if err = toError(status, &failure); err == nil {
		m, err = newModel(pointer, r.log)
	}
	if call.stopped() && m != nil { // in the last progress call, when the load was already over
		m.handle.close()
	}
	if err := call.outcome(ctx, err); err != nil {
		return nil, err
	}
	return m, nil
}

func loadNumbers(opts cgo.LoadOptions) (device, threads C.int32_t, err error) {
	d, err := toInt32("device", opts.Device)
	if err != nil {
		return 0, 0, err
	}
	n, err := toInt32("threads", opts.Threads)
	return C.int32_t(d), C.int32_t(n), err
}

func toMemory(m *C.barkrt_memory) cgo.Memory {
	return cgo.Memory{
		WeightsBytes:     int64(m.weights_bytes),
		TablesBytes:      int64(m.tables_bytes),
		KVBytes:          int64(m.kv_bytes),
		ActivationsBytes: int64(m.activations_bytes),
		TotalBytes:       int64(m.total_bytes),
		PeakBytes:        int64(m.peak_bytes),
		SharedBytes:      int64(m.shared_bytes),
	}
}

// toComponents calls list, which fills out and tells the full count, until all components have room.
func toComponents(list func(out *C.barkrt_component, capacity C.int64_t, count *C.int64_t) error) ([]cgo.Component, error) {
	found := make([]C.barkrt_component, 4)
	for {
		var count C.int64_t
		if err := list(&found[0], C.int64_t(len(found)), &count); err != nil {
			return nil, err
		}
		if int(count) > len(found) {
			found = make([]C.barkrt_component, count)
			continue
		}
		components := make([]cgo.Component, 0, count)
		for i := range found[:count] {
			components = append(components, cgo.Component{
				Digest: C.GoString(&found[i].digest[0]), Bytes: int64(found[i].bytes),
			})
		}
		return components, nil
	}
}
