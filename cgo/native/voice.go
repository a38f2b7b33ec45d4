package native

// #include "shim.h"
import "C"

import (
	goruntime "runtime"
	"unsafe"

	"barkd/cgo"
)

type voice struct {
	handle  *handle[*C.barkrt_voice]
	cleanup goruntime.Cleanup
}

func newVoice(pointer *C.barkrt_voice, log *logSink, account *account) *voice {
	v := &voice{handle: &handle[*C.barkrt_voice]{
		kind:    "voice",
		log:     log,
		pointer: pointer,
		release: func(p *C.barkrt_voice) {
			C.barkrt_voice_free(p)
			account.settle()
		},
	}}
	v.cleanup = guardLeak(v, v.handle)
	return v
}

// Voice implements cgo.Model.
func (m *model) Voice(name string) (cgo.Voice, error) {
	text, err := cString("voice name", name)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(text))
	pointer, err := m.handle.begin()
	if err != nil {
		return nil, err
	}
	defer goruntime.KeepAlive(m)
	defer m.handle.end()
	var out *C.barkrt_voice
	var failure C.barkrt_error
	if err := toError(C.barkrt_voice_load(pointer, text, &out, &failure), &failure); err != nil {
		return nil, err
	}
	return newVoice(out, m.handle.log, m.account), nil
}

// NewVoice implements cgo.Model.
func (m *model) NewVoice(arrays cgo.VoiceArrays) (cgo.Voice, error) {
	coarse, coarseFrames, err := flatten("coarse", arrays.Coarse)
	if err != nil {
		return nil, err
	}
	fine, fineFrames, err := flatten("fine", arrays.Fine)
	if err != nil {
		return nil, err
	}
	pointer, err := m.handle.begin()
	if err != nil {
		return nil, err
	}
	defer goruntime.KeepAlive(m)
	defer m.handle.end()
	var out *C.barkrt_voice
	var failure C.barkrt_error
	status := C.barkd_voice_from_arrays(pointer, codes(arrays.Semantic), C.int64_t(len(arrays.Semantic)),
		codes(coarse), C.int32_t(len(arrays.Coarse)), C.int64_t(coarseFrames),
		codes(fine), C.int32_t(len(arrays.Fine)), C.int64_t(fineFrames), &out, &failure)
	if err := toError(status, &failure); err != nil {
		return nil, err
	}
	return newVoice(out, m.handle.log, m.account), nil
}

func codes(values []int32) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(values))) }

// flatten joins rows of equal length; only the library knows which lengths are right.
func flatten(what string, rows [][]int32) (flat []int32, frames int, err error) {
	for i, row := range rows {
		if i == 0 {
			frames = len(row)
			flat = make([]int32, 0, len(rows)*frames)
		}
		if len(row) != frames {
			return nil, 0, invalid("%s codebook 0 has %d frames, codebook %d has %d", what, frames, i, len(row))
		}
		flat = append(flat, row...)
	}
	return flat, frames, nil
}

// Close implements cgo.Voice.
func (v *voice) Close() error {
	v.cleanup.Stop()
	v.handle.close()
	goruntime.KeepAlive(v)
	return nil
}
