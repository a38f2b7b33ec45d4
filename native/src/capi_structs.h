// capi_structs.h: the structs of barkrt.h to those of the library and back, with every check of an
// argument; and the fence where exceptions end. For capi.cc alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "barkrt.h"
#include "error.h"
#include "session.h"

namespace barkrt::capi {

inline int32_t report(barkrt_error* err, Status status, const char* text) noexcept {
  if (err) {
    err->code = static_cast<int32_t>(status);
    std::snprintf(err->text, sizeof err->text, "%s", text);
  }
  return static_cast<int32_t>(status);
}

// The only place where exceptions end.
template <class F>
int32_t fenced(barkrt_error* err, F f) noexcept {
  try {
    f();
    return BARKRT_OK;
  } catch (const Error& e) {
    return report(err, e.status(), e.what());
  } catch (const std::bad_alloc&) {
    return report(err, Status::OutOfMemory, "the host (cpu) has no memory left for this");
  } catch (const std::length_error&) {
    return report(err, Status::OutOfMemory, "the host (cpu) has no memory left for this");
  } catch (const std::exception& e) {
    return report(err, Status::Internal, e.what());
  } catch (...) {
    return report(err, Status::Internal, "an unknown exception");
  }
}

template <class T>
T& need(T* p, const char* name) {
  if (!p) fail(Status::InvalidArgument, "%s is NULL", name);
  return *p;
}

inline void need_zero(int32_t reserved, const char* name) {
  if (reserved != 0) fail(Status::InvalidArgument, "%s is %d, not 0", name, reserved);
}

// Structs only grow at the end: `defaults`, overlaid by the part that the caller's version has.
// `known` is the size of the first version.
template <class T>
T read_struct(const T* from, T defaults, size_t known, const char* name) {
  const uint32_t size = need(from, name).struct_size;
  if (size < known || size > 4096)
    fail(Status::InvalidArgument, "%s->struct_size is %u; fill the struct with its _init function",
         name, size);
  std::memcpy(&defaults, from, std::min<size_t>(size, sizeof(T)));
  return defaults;
}

template <class T>
void write_struct(T* to, T value, size_t known, const char* name) {
  const uint32_t size = need(to, name).struct_size;
  if (size < known || size > 4096)
    fail(Status::InvalidArgument, "%s->struct_size is %u; set it to sizeof(*%s) first", name, size,
         name);
  value.struct_size = size;
  std::memcpy(to, &value, std::min<size_t>(size, sizeof(T)));
}

template <size_t N>
void copy_text(char (&to)[N], const std::string& from) {
  std::snprintf(to, N, "%s", from.c_str());
}

inline int32_t to_int32(int64_t v) {
  return static_cast<int32_t>(std::min<int64_t>(v, std::numeric_limits<int32_t>::max()));
}

inline Rules to_rules(int32_t rules) {
  if (rules != BARKRT_RULES_SUNO && rules != BARKRT_RULES_HF)
    fail(Status::InvalidArgument, "rules %d is neither SUNO (0) nor HF (1)", rules);
  return static_cast<Rules>(rules);
}

inline std::string_view to_text(const char* text, int64_t bytes) {
  if (bytes < 0) fail(Status::InvalidArgument, "text_bytes is %lld", static_cast<long long>(bytes));
  if (!text && bytes > 0) fail(Status::InvalidArgument, "text is NULL");
  return {text ? text : "", static_cast<size_t>(bytes)};
}

inline std::shared_ptr<const Gguf> open_gguf(const barkrt_model_params& p) {
  need_zero(p.reserved, "params->reserved");
  if (p.n_threads < 0) fail(Status::InvalidArgument, "n_threads is %d", p.n_threads);
  if (!p.path == !p.data) fail(Status::InvalidArgument, "exactly one of path and data must be set");
  if (p.path) return Gguf::open(p.path);
  if (p.data_bytes < 1)
    fail(Status::InvalidArgument, "data_bytes is %lld", static_cast<long long>(p.data_bytes));
  return Gguf::from_memory(p.data, p.data_bytes);
}

inline barkrt_model_params default_model_params() {
  barkrt_model_params p{};
  p.struct_size = sizeof p;
  return p;
}

inline barkrt_model_params read_params(const barkrt_model_params* params) {
  return read_struct(params, default_model_params(), sizeof(barkrt_model_params), "params");
}

inline DType read_kv_type(const barkrt_session_params* params) {
  barkrt_session_params p{sizeof p, BARKRT_KV_F16};
  if (params) p = read_struct(params, p, sizeof p, "params");
  switch (p.kv_type) {
    case BARKRT_KV_F16:
      return DType::F16;
    case BARKRT_KV_F32:
      return DType::F32;
    case BARKRT_KV_I8:
      return DType::I8;
  }
  fail(Status::InvalidArgument, "kv_type %d is none of F16 (0), F32 (1) and I8 (2)", p.kv_type);
}

inline barkrt_memory to_memory(const MemoryAccount& account) {
  barkrt_memory m{};
  m.shared_bytes = account.live(Category::Shared);
  m.weights_bytes = account.live(Category::Weights) + m.shared_bytes;
  m.tables_bytes = account.live(Category::Tables);
  m.kv_bytes = account.live(Category::Kv);
  m.activations_bytes = account.live(Category::Activations);
  m.total_bytes = account.total();
  m.peak_bytes = account.peak();
  return m;
}

// A model takes its component too, whoever else does.
inline barkrt_memory to_memory(const Model& model) {
  barkrt_memory m = to_memory(model.account());
  if (const Component* c = model.component()) {
    m.shared_bytes += c->bytes();
    m.weights_bytes += c->bytes();
    m.total_bytes += c->bytes();
    m.peak_bytes += c->bytes();
  }
  return m;
}

inline barkrt_memory to_memory(const ModelBytes& b) {
  const int64_t total = b.weights + b.tables + b.activations;
  const int64_t shared = b.component ? b.component->bytes : 0;
  return {b.weights, b.tables, 0, b.activations, total, total, shared};
}

// The one component of a model or of an estimate, or none.
inline void write_components(const ComponentPlan* component, barkrt_component* out,
                             int64_t capacity, int64_t* n) {
  if (capacity < 0 || (capacity > 0 && !out))
    fail(Status::InvalidArgument, "capacity is %lld and components is %s",
         static_cast<long long>(capacity), out ? "set" : "NULL");
  if (n) *n = component ? 1 : 0;
  if (!component || capacity == 0) return;
  *out = {};
  copy_text(out->digest, component->digest);
  out->bytes = component->bytes;
}

inline barkrt_sampling to_c(const HfSampling& s) { return {s.temperature, s.top_p, s.top_k, 0}; }

inline Sampling to_sampling(const barkrt_sampling& s, const char* stage) {
  if (!(s.temperature >= 0) || std::isinf(s.temperature))
    fail(Status::InvalidArgument, "%s.temperature is %g; it must be finite and at least 0", stage,
         static_cast<double>(s.temperature));
  if (!(s.top_p > 0 && s.top_p <= 1))
    fail(Status::InvalidArgument, "%s.top_p is %g; it must be above 0 and at most 1", stage,
         static_cast<double>(s.top_p));
  if (s.top_k < 0)
    fail(Status::InvalidArgument, "%s.top_k is %d; it must be at least 0", stage, s.top_k);
  if (!(s.min_eos_p >= 0 && s.min_eos_p <= 1))
    fail(Status::InvalidArgument, "%s.min_eos_p is %g; it must be in 0 .. 1", stage,
         static_cast<double>(s.min_eos_p));
  return {s.temperature, s.top_p, s.top_k, s.min_eos_p};
}

inline barkrt_request suno_request() {
  barkrt_request r{};
  r.struct_size = sizeof r;
  r.rules = BARKRT_RULES_SUNO;
  r.semantic = {0.7f, 1, 0, 0.2f};
  r.coarse = {0.7f, 1, 0, 0};
  r.fine = {0.5f, 1, 0, 0};
  return r;
}

inline barkrt_request default_request(const Config& config, Rules rules) {
  barkrt_request r = suno_request();
  if (rules == Rules::Suno) return r;
  r.rules = BARKRT_RULES_HF;
  r.semantic = to_c(config.semantic.gpt.hf);
  r.coarse = to_c(config.coarse.gpt.hf);
  r.fine = to_c(config.fine.gpt.hf);
  return r;
}

inline Sink to_sink(barkrt_sink_fn fn, void* user) {
  Sink sink;
  if (!fn) return sink;
  sink.progress = [=](Stage stage, int64_t done, int64_t total) {
    barkrt_event e{};
    e.kind = BARKRT_EVENT_PROGRESS;
    e.stage = static_cast<int32_t>(stage);
    e.done = done;
    e.total = total;
    return fn(user, &e) == 0;
  };
  sink.tokens = [=](Stage stage, const int32_t* tokens, int64_t rows, int64_t cols) {
    barkrt_event e{};
    e.kind = BARKRT_EVENT_TOKENS;
    e.stage = static_cast<int32_t>(stage);
    e.tokens = tokens;
    e.rows = rows;
    e.cols = cols;
    return fn(user, &e) == 0;
  };
  sink.audio = [=](const float* pcm, int64_t n_samples) {
    barkrt_event e{};
    e.kind = BARKRT_EVENT_AUDIO;
    e.stage = BARKRT_STAGE_CODEC;
    e.pcm = pcm;
    e.n_samples = n_samples;
    return fn(user, &e) == 0;
  };
  return sink;
}

inline barkrt_stats to_stats(const Stats& s) {
  barkrt_stats out{};
  out.n_text_tokens = to_int32(s.n_text_tokens);
  out.n_semantic = to_int32(s.n_semantic);
  out.n_coarse = to_int32(s.n_coarse);
  out.n_frames = to_int32(s.n_frames);
  out.text_truncated = s.text_truncated ? 1 : 0;
  out.n_samples = s.n_samples;
  std::copy(std::begin(s.stage_ms), std::end(s.stage_ms), out.stage_ms);
  return out;
}

inline Codes copy_codes(const int32_t* ids, int64_t n_codebook, int64_t n_frames,
                        const char* what) {
  if (n_codebook < 0 || n_frames < 0)
    fail(Status::InvalidArgument, "the voice's %s shape is negative", what);
  const int64_t n = checked_mul(n_codebook, n_frames);
  if (n > 0 && !ids) fail(Status::InvalidArgument, "the voice's %s array is NULL", what);
  return {n_codebook, n_frames,
          n > 0 ? std::vector<int32_t>(ids, ids + n) : std::vector<int32_t>()};
}

}  // namespace barkrt::capi
