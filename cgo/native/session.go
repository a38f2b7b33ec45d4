package native

// #include "shim.h"
import "C"

import (
	"context"
	goruntime "runtime"
	rtcgo "runtime/cgo"

	"barkd/cgo"
)

type session struct {
	handle  *handle[*C.barkrt_session]
	cleanup goruntime.Cleanup
}

// NewSession implements cgo.Model.
func (m *model) NewSession(opts cgo.SessionOptions) (cgo.Session, error) {
	pointer, err := m.handle.begin()
	if err != nil {
		return nil, err
	}
	defer goruntime.KeepAlive(m)
	defer m.handle.end()
	var out *C.barkrt_session
	var failure C.barkrt_error
	status := C.barkd_session_new(pointer, C.int32_t(opts.KV), &out, &failure)
	if err := toError(status, &failure); err != nil {
		return nil, err
	}
	account := m.account
	s := &session{handle: &handle[*C.barkrt_session]{
		kind:    "session of model " + m.info.Name,
		log:     m.handle.log,
		pointer: out,
		release: func(p *C.barkrt_session) {
			C.barkrt_session_free(p)
			account.settle()
		},
	}}
	s.cleanup = guardLeak(s, s.handle)
	return s, nil
}

// Synthesize implements cgo.Session.
func (s *session) Synthesize(ctx context.Context, req cgo.Request, sink cgo.Sink) (cgo.Stats, error) {
	if err := ctx.Err(); err != nil {
		return cgo.Stats{}, err
	}
	pointer, err := s.handle.begin()
	if err != nil {
		return cgo.Stats{}, err
	}
	defer goruntime.KeepAlive(s)
	defer s.handle.end()
	voice, err := holdVoice(req.Voice)
	if err != nil {
		return cgo.Stats{}, err
	}
	defer voice.end()
	numbers, err := toRequest(req)
	if err != nil {
		return cgo.Stats{}, err
	}
	if sink.Tokens != nil {
		numbers.want |= C.BARKRT_WANT_TOKENS
	}
	token, err := newCancel(ctx)
	if err != nil {
		return cgo.Stats{}, err
	}
	defer token.free()
	call := &sinkCall{callback: callback{log: s.handle.log, ctx: ctx}, sink: sink}
	var user rtcgo.Handle // 0: nobody listens
	if sink.Audio != nil || sink.Progress != nil || sink.Tokens != nil {
		user = rtcgo.NewHandle(call)
		defer user.Delete()
	}
	var stats C.barkrt_stats
	stats.struct_size = C.sizeof_barkrt_stats
	var failure C.barkrt_error
	status := C.barkd_synthesize(pointer, &numbers, textPointer(req.Text), C.int64_t(len(req.Text)), voice.pointer,
		token.pointer, C.uintptr_t(user), &stats, &failure)
	if err := call.outcome(ctx, toError(status, &failure)); err != nil {
		return cgo.Stats{}, err
	}
	return toStats(&stats), nil
}

// A heldVoice is a voice for the length of a request; its zero value is none.
type heldVoice struct {
	pointer *C.barkrt_voice
	owner   *voice
}

func holdVoice(v cgo.Voice) (heldVoice, error) {
	if v == nil {
		return heldVoice{}, nil
	}
	owner, ok := v.(*voice)
	if !ok || owner == nil {
		return heldVoice{}, invalid("the voice is not of the native runtime")
	}
	pointer, err := owner.handle.begin()
	if err != nil {
		return heldVoice{}, err
	}
	return heldVoice{pointer: pointer, owner: owner}, nil
}

func (h heldVoice) end() {
	if h.owner != nil {
		h.owner.handle.end()
		goruntime.KeepAlive(h.owner)
	}
}

// toRequest fills all fields but the pointers.
func toRequest(req cgo.Request) (C.barkrt_request, error) {
	limit, err := toInt32("max semantic tokens", req.MaxSemanticTokens)
	if err != nil {
		return C.barkrt_request{}, err
	}
	chunk, err := toInt32("fine chunk", req.FineChunk)
	if err != nil {
		return C.barkrt_request{}, err
	}
	return C.barkrt_request{
		rules:               C.int32_t(req.Rules),
		seed:                C.uint64_t(req.Seed),
		semantic:            fromSampling(req.Semantic),
		coarse:              fromSampling(req.Coarse),
		fine:                fromSampling(req.Fine),
		max_semantic_tokens: C.int32_t(limit),
		fine_chunk:          C.int32_t(chunk),
	}, nil
}

func fromSampling(s cgo.Sampling) C.barkrt_sampling {
	return C.barkrt_sampling{
		temperature: C.float(s.Temperature),
		top_p:       C.float(s.TopP),
		top_k:       C.int32_t(s.TopK),
		min_eos_p:   C.float(s.MinEOSP),
	}
}

func toStats(s *C.barkrt_stats) cgo.Stats {
	stats := cgo.Stats{
		TextTokens:     int(s.n_text_tokens),
		TextTruncated:  s.text_truncated != 0,
		SemanticTokens: int(s.n_semantic),
		CoarseTokens:   int(s.n_coarse),
		Frames:         int(s.n_frames),
		Samples:        int64(s.n_samples),
	}
	for i := range stats.StageMS {
		stats.StageMS[i] = float64(s.stage_ms[i])
	}
	return stats
}

// Memory implements cgo.Session. A closed session takes nothing that it could tell.
func (s *session) Memory() cgo.Memory {
	pointer, err := s.handle.begin()
	if err != nil {
		return cgo.Memory{}
	}
	defer goruntime.KeepAlive(s)
	defer s.handle.end()
	var memory C.barkrt_memory
	C.barkrt_session_memory(pointer, &memory, nil) // fails for NULL only
	return toMemory(&memory)
}

// Close implements cgo.Session.
func (s *session) Close() error {
	s.cleanup.Stop()
	s.handle.close()
	goruntime.KeepAlive(s)
	return nil
}
