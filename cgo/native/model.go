package native

// #include "shim.h"
import "C"

import (
	goruntime "runtime"
	"unsafe"

	"barkd/cgo"
)

type model struct {
	handle     *handle[*C.barkrt_model]
	cleanup    goruntime.Cleanup
	info       cgo.ModelInfo
	components []cgo.Component
	account    *account
}

// newModel takes over pointer, also when it fails.
func newModel(pointer *C.barkrt_model, log *logSink) (*model, error) {
	info, err := describe(pointer)
	var components []cgo.Component
	if err == nil {
		components, err = toComponents(func(out *C.barkrt_component, capacity C.int64_t, count *C.int64_t) error {
			var failure C.barkrt_error
			return toError(C.barkrt_model_components(pointer, out, capacity, count, &failure), &failure)
		})
	}
	var account *account
	if err == nil {
		account, err = newAccount(pointer)
	}
	if err != nil {
		C.barkrt_model_free(pointer)
		return nil, err
	}
	m := &model{info: info, components: components, account: account, handle: &handle[*C.barkrt_model]{
		kind:    "model " + info.Name,
		log:     log,
		pointer: pointer,
		release: func(p *C.barkrt_model) {
			C.barkrt_model_free(p)
			account.settle()
		},
	}}
	m.cleanup = guardLeak(m, m.handle)
	return m, nil
}

func describe(pointer *C.barkrt_model) (cgo.ModelInfo, error) {
	var facts C.barkrt_model_facts
	facts.struct_size = C.sizeof_barkrt_model_facts
	var failure C.barkrt_error
	if err := toError(C.barkrt_model_describe(pointer, &facts, &failure), &failure); err != nil {
		return cgo.ModelInfo{}, err
	}
	info := cgo.ModelInfo{
		Name:              C.GoString(facts.name),
		Trained:           facts.trained != 0,
		SampleRate:        int(facts.sample_rate_hz),
		HopLength:         int(facts.hop_length),
		MaxTextTokens:     int(facts.max_text_tokens),
		MaxSemanticTokens: int(facts.max_semantic_tokens),
		CoarseCodebooks:   int(facts.n_coarse_codebooks),
		FineCodebooks:     int(facts.n_fine_codebooks),
		SemanticRateHz:    float64(facts.semantic_rate_hz),
		CoarseRateHz:      float64(facts.coarse_rate_hz),
		Voices:            make([]string, 0, int(facts.n_voices)),
	}
	for i := range facts.n_voices {
		info.Voices = append(info.Voices, C.GoString(C.barkrt_model_voice_name(pointer, i)))
	}
	return info, nil
}

// Info implements cgo.Model.
func (m *model) Info() cgo.ModelInfo {
	info := m.info
	info.Voices = append([]string(nil), m.info.Voices...)
	return info
}

// Tokenize implements cgo.Model.
func (m *model) Tokenize(rules cgo.Rules, text string) ([]int32, error) {
	pointer, err := m.handle.begin()
	if err != nil {
		return nil, err
	}
	defer goruntime.KeepAlive(m)
	defer m.handle.end()
	ids := make([]int32, len(text)) // no token is shorter than a byte
	for {
		var count C.int64_t
		var failure C.barkrt_error
		status := C.barkrt_model_tokenize(pointer, C.int32_t(rules), textPointer(text), C.int64_t(len(text)),
			(*C.int32_t)(unsafe.Pointer(unsafe.SliceData(ids))), C.int64_t(len(ids)), &count, &failure)
		if err := toError(status, &failure); err != nil {
			return nil, err
		}
		if int(count) <= len(ids) {
			return ids[:count:count], nil
		}
		ids = make([]int32, count)
	}
}

// textPointer returns the bytes of text for one C call; the call gets their number too, so a NUL ends nothing.
func textPointer(text string) *C.char { return (*C.char)(unsafe.Pointer(unsafe.StringData(text))) }

// Defaults implements cgo.Model.
func (m *model) Defaults(rules cgo.Rules) (cgo.Request, error) {
	pointer, err := m.handle.begin()
	if err != nil {
		return cgo.Request{}, err
	}
	defer goruntime.KeepAlive(m)
	defer m.handle.end()
	var request C.barkrt_request
	var failure C.barkrt_error
	status := C.barkrt_request_init(pointer, C.int32_t(rules), &request, &failure)
	if err := toError(status, &failure); err != nil {
		return cgo.Request{}, err
	}
	return cgo.Request{
		Rules:             cgo.Rules(request.rules),
		Seed:              uint64(request.seed),
		Semantic:          toSampling(request.semantic),
		Coarse:            toSampling(request.coarse),
		Fine:              toSampling(request.fine),
		MaxSemanticTokens: int(request.max_semantic_tokens),
	}, nil
}

func toSampling(s C.barkrt_sampling) cgo.Sampling {
	return cgo.Sampling{
		Temperature: float32(s.temperature),
		TopP:        float32(s.top_p),
		TopK:        int32(s.top_k),
		MinEOSP:     float32(s.min_eos_p),
	}
}

// Components implements cgo.Model.
func (m *model) Components() []cgo.Component { return append([]cgo.Component(nil), m.components...) }

// Account implements cgo.Model.
func (m *model) Account() cgo.Account { return m.account }

// Memory implements cgo.Model. A closed model takes nothing that it could tell.
func (m *model) Memory() cgo.Memory {
	pointer, err := m.handle.begin()
	if err != nil {
		return cgo.Memory{}
	}
	defer goruntime.KeepAlive(m)
	defer m.handle.end()
	var memory C.barkrt_memory
	C.barkrt_model_memory(pointer, &memory, nil) // fails for NULL only
	return toMemory(&memory)
}

// Close implements cgo.Model.
func (m *model) Close() error {
	m.cleanup.Stop()
	m.handle.close()
	goruntime.KeepAlive(m)
	return nil
}
