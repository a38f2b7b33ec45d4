// capi.cc: barkrt.h over the C++ classes: argument checks and one exception fence; no logic.
#include "barkrt.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>

#include "backend.h"
#include "error.h"
#include "session.h"

using barkrt::Config;
using barkrt::DType;
using barkrt::fail;
using barkrt::Gguf;
using barkrt::Model;
using barkrt::Rules;
using barkrt::Session;
using barkrt::Status;

namespace {

std::atomic<int64_t> live_handles{0};

// Counts a handle for as long as it lives.
struct LiveHandle {
  LiveHandle() { live_handles.fetch_add(1); }
  ~LiveHandle() { live_handles.fetch_sub(1); }
  LiveHandle(const LiveHandle&) = delete;
};

}  // namespace

struct barkrt_model : LiveHandle {
  std::shared_ptr<const Model> core;
};

struct barkrt_voice : LiveHandle {
  std::shared_ptr<const Model> model;
  barkrt::Voice voice;
};

struct barkrt_session : LiveHandle {
  barkrt_session(std::shared_ptr<const Model> model, DType kv_type)
      : core(std::move(model), kv_type) {}
  Session core;
};

struct barkrt_cancel : LiveHandle {
  std::atomic<bool> flag{false};
};

namespace {

int32_t report(barkrt_error* err, Status status, const char* text) noexcept {
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
  } catch (const barkrt::Error& e) {
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

void need_zero(int32_t reserved, const char* name) {
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

int32_t to_int32(int64_t v) {
  return static_cast<int32_t>(std::min<int64_t>(v, std::numeric_limits<int32_t>::max()));
}

Rules to_rules(int32_t rules) {
  if (rules != BARKRT_RULES_SUNO && rules != BARKRT_RULES_HF)
    fail(Status::InvalidArgument, "rules %d is neither SUNO (0) nor HF (1)", rules);
  return static_cast<Rules>(rules);
}

std::string_view to_text(const char* text, int64_t bytes) {
  if (bytes < 0) fail(Status::InvalidArgument, "text_bytes is %lld", static_cast<long long>(bytes));
  if (!text && bytes > 0) fail(Status::InvalidArgument, "text is NULL");
  return {text ? text : "", static_cast<size_t>(bytes)};
}

std::shared_ptr<const Gguf> open_gguf(const barkrt_model_params& p) {
  need_zero(p.reserved, "params->reserved");
  if (p.n_threads < 0) fail(Status::InvalidArgument, "n_threads is %d", p.n_threads);
  if (!p.path == !p.data) fail(Status::InvalidArgument, "exactly one of path and data must be set");
  if (p.path) return Gguf::open(p.path);
  if (p.data_bytes < 1)
    fail(Status::InvalidArgument, "data_bytes is %lld", static_cast<long long>(p.data_bytes));
  return Gguf::from_memory(p.data, p.data_bytes);
}

barkrt_model_params default_model_params() {
  barkrt_model_params p{};
  p.struct_size = sizeof p;
  return p;
}

barkrt_model_params read_params(const barkrt_model_params* params) {
  return read_struct(params, default_model_params(), sizeof(barkrt_model_params), "params");
}

DType read_kv_type(const barkrt_session_params* params) {
  barkrt_session_params p{sizeof p, BARKRT_KV_F16};
  if (params) p = read_struct(params, p, sizeof p, "params");
  if (p.kv_type != BARKRT_KV_F16 && p.kv_type != BARKRT_KV_F32)
    fail(Status::InvalidArgument, "kv_type %d is neither F16 (0) nor F32 (1)", p.kv_type);
  return p.kv_type == BARKRT_KV_F32 ? DType::F32 : DType::F16;
}

barkrt_memory to_memory(const barkrt::MemoryAccount& account) {
  barkrt_memory m{};
  m.weights_bytes = account.live(barkrt::Category::Weights);
  m.tables_bytes = account.live(barkrt::Category::Tables);
  m.kv_bytes = account.live(barkrt::Category::Kv);
  m.activations_bytes = account.live(barkrt::Category::Activations);
  m.total_bytes = account.total();
  m.peak_bytes = account.peak();
  return m;
}

barkrt_sampling to_c(const barkrt::HfSampling& s) { return {s.temperature, s.top_p, s.top_k, 0}; }

barkrt::Sampling to_sampling(const barkrt_sampling& s, const char* stage) {
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

barkrt_request suno_request() {
  barkrt_request r{};
  r.struct_size = sizeof r;
  r.rules = BARKRT_RULES_SUNO;
  r.semantic = {0.7f, 1, 0, 0.2f};
  r.coarse = {0.7f, 1, 0, 0};
  r.fine = {0.5f, 1, 0, 0};
  return r;
}

barkrt_request default_request(const Config& config, Rules rules) {
  barkrt_request r = suno_request();
  if (rules == Rules::Suno) return r;
  r.rules = BARKRT_RULES_HF;
  r.semantic = to_c(config.semantic.gpt.hf);
  r.coarse = to_c(config.coarse.gpt.hf);
  r.fine = to_c(config.fine.gpt.hf);
  return r;
}

barkrt::Request read_request(const Model& model, const barkrt_request* request) {
  const barkrt_request r = read_struct(request, suno_request(), sizeof(barkrt_request), "request");
  if (r.voice && r.voice->model.get() != &model)
    fail(Status::InvalidArgument, "the voice was made for another model; make it from this one");
  if (r.max_semantic_tokens < 0)
    fail(Status::InvalidArgument, "max_semantic_tokens is %d", r.max_semantic_tokens);
  if (r.want & ~static_cast<uint32_t>(BARKRT_WANT_TOKENS))
    fail(Status::InvalidArgument, "want is %u, which has unknown bits", r.want);
  barkrt::Request out;
  out.rules = to_rules(r.rules);
  out.text = to_text(r.text, r.text_bytes);
  out.voice = r.voice ? &r.voice->voice : nullptr;
  out.cancel = r.cancel ? &r.cancel->flag : nullptr;
  out.seed = r.seed;
  out.semantic = to_sampling(r.semantic, "semantic");
  out.coarse = to_sampling(r.coarse, "coarse");
  out.fine = to_sampling(r.fine, "fine");
  out.max_semantic_tokens = r.max_semantic_tokens;
  out.want_tokens = (r.want & BARKRT_WANT_TOKENS) != 0;
  return out;
}

barkrt::Sink to_sink(barkrt_sink_fn fn, void* user) {
  barkrt::Sink sink;
  if (!fn) return sink;
  sink.progress = [=](barkrt::Stage stage, int64_t done, int64_t total) {
    barkrt_event e{};
    e.kind = BARKRT_EVENT_PROGRESS;
    e.stage = static_cast<int32_t>(stage);
    e.done = done;
    e.total = total;
    return fn(user, &e) == 0;
  };
  sink.tokens = [=](barkrt::Stage stage, const int32_t* tokens, int64_t rows, int64_t cols) {
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

barkrt_stats to_stats(const barkrt::Stats& s) {
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

barkrt::Codes copy_codes(const int32_t* ids, int64_t n_codebook, int64_t n_frames,
                         const char* what) {
  if (n_codebook < 0 || n_frames < 0)
    fail(Status::InvalidArgument, "the voice's %s shape is negative", what);
  const int64_t n = barkrt::checked_mul(n_codebook, n_frames);
  if (n > 0 && !ids) fail(Status::InvalidArgument, "the voice's %s array is NULL", what);
  return {n_codebook, n_frames,
          n > 0 ? std::vector<int32_t>(ids, ids + n) : std::vector<int32_t>()};
}

}  // namespace

uint32_t barkrt_abi_version(void) { return BARKRT_ABI_VERSION; }

const char* barkrt_version(void) { return BARKRT_VERSION; }

const char* barkrt_status_name(int32_t status) {
  static const char* const names[] = {
      "OK",     "INVALID_ARGUMENT", "NOT_FOUND", "BAD_MODEL", "OUT_OF_MEMORY",
      "DEVICE", "UNSUPPORTED",      "BUSY",      "CANCELLED", "INTERNAL"};
  const int32_t count = static_cast<int32_t>(std::size(names));
  return status >= 0 && status < count ? names[status] : "UNKNOWN";
}

void barkrt_set_log(barkrt_log_fn fn, void* user) { barkrt::set_log_sink(fn, user); }

int32_t barkrt_device_count(void) {
  int32_t count = 1;
  fenced(nullptr, [&] { count = barkrt::device_count(); });
  return count;
}

int32_t barkrt_device_describe(int32_t index, barkrt_device* out, barkrt_error* err) {
  return fenced(err, [&] {
    write_struct(out, barkrt_device{}, sizeof(barkrt_device), "out");
    const barkrt::DeviceDescription d = barkrt::describe_device(index);
    barkrt_device device{};
    copy_text(device.id, d.id);
    copy_text(device.kind, d.kind);
    copy_text(device.name, d.name);
    copy_text(device.detail, d.detail);
    device.n_cores = d.n_cores;
    write_struct(out, device, sizeof device, "out");
  });
}

int32_t barkrt_device_memory(int32_t index, int64_t* free_bytes, int64_t* total_bytes,
                             barkrt_error* err) {
  int64_t free = 0, total = 0;
  const int32_t status = fenced(err, [&] { barkrt::device_memory(index, &free, &total); });
  if (free_bytes) *free_bytes = status == BARKRT_OK ? free : 0;
  if (total_bytes) *total_bytes = status == BARKRT_OK ? total : 0;
  return status;
}

void barkrt_model_params_init(barkrt_model_params* params) {
  if (params) *params = default_model_params();
}

int32_t barkrt_model_estimate(const barkrt_model_params* params,
                              const barkrt_session_params* session, barkrt_memory* model_out,
                              barkrt_memory* session_out, barkrt_error* err) {
  if (model_out) *model_out = {};
  if (session_out) *session_out = {};
  return fenced(err, [&] {
    const barkrt_model_params p = read_params(params);
    const DType kv_type = read_kv_type(session);
    barkrt::describe_device(p.device);  // NotFound
    Config config;
    const barkrt::ModelBytes m = Model::estimate(*open_gguf(p), &config);
    const Session::Bytes s = Session::estimate(config, kv_type);
    const int64_t model_total = m.weights + m.tables, session_total = s.kv + s.activations;
    if (model_out) *model_out = {m.weights, m.tables, 0, 0, model_total, model_total};
    if (session_out) *session_out = {0, 0, s.kv, s.activations, session_total, session_total};
  });
}

int32_t barkrt_model_load(const barkrt_model_params* params, barkrt_model** out,
                          barkrt_error* err) {
  if (out) *out = nullptr;
  return fenced(err, [&] {
    need(out, "out");
    const barkrt_model_params p = read_params(params);
    barkrt::LoadProgress progress;
    if (p.progress)
      progress = [&](int64_t done, int64_t total) {
        return p.progress(p.progress_user, done, total) == 0;
      };
    auto model = std::make_unique<barkrt_model>();
    model->core = Model::load(open_gguf(p), p.device, p.n_threads, progress);
    *out = model.release();
  });
}

int32_t barkrt_model_describe(const barkrt_model* model, barkrt_model_facts* out,
                              barkrt_error* err) {
  return fenced(err, [&] {
    write_struct(out, barkrt_model_facts{}, sizeof(barkrt_model_facts), "out");
    const Model& core = *need(model, "model").core;
    const Config& c = core.config();
    barkrt_model_facts f{};
    f.sample_rate_hz = to_int32(c.codec.sample_rate);
    f.hop_length = to_int32(c.codec.hop_length());
    f.max_text_tokens = to_int32(c.semantic.max_input_length);
    f.max_semantic_tokens = to_int32(c.semantic.max_tokens());
    f.n_voices = to_int32(static_cast<int64_t>(core.voice_names().size()));
    f.trained = c.trained ? 1 : 0;
    f.n_coarse_codebooks = to_int32(c.coarse.n_codebook);
    f.n_fine_codebooks = to_int32(c.fine.n_fine_codebook);
    f.semantic_rate_hz = c.semantic.rate_hz;
    f.coarse_rate_hz = c.coarse.rate_hz;
    f.name = c.name.c_str();
    write_struct(out, f, sizeof f, "out");
  });
}

const char* barkrt_model_voice_name(const barkrt_model* model, int32_t index) {
  if (!model || index < 0) return nullptr;
  const std::vector<std::string>& names = model->core->voice_names();
  return static_cast<size_t>(index) < names.size() ? names[index].c_str() : nullptr;
}

int32_t barkrt_model_memory(const barkrt_model* model, barkrt_memory* out, barkrt_error* err) {
  if (out) *out = {};
  return fenced(err, [&] { need(out, "out") = to_memory(need(model, "model").core->account()); });
}

void barkrt_model_free(barkrt_model* model) { delete model; }

int32_t barkrt_model_tokenize(const barkrt_model* model, int32_t rules, const char* text,
                              int64_t text_bytes, int32_t* ids, int64_t capacity, int64_t* n_ids,
                              barkrt_error* err) {
  if (n_ids) *n_ids = 0;
  return fenced(err, [&] {
    const Model& core = *need(model, "model").core;
    if (capacity < 0 || (capacity > 0 && !ids))
      fail(Status::InvalidArgument, "capacity is %lld and ids is %s",
           static_cast<long long>(capacity), ids ? "set" : "NULL");
    const std::vector<int32_t> found =
        core.tokenizer().encode(to_text(text, text_bytes), to_rules(rules));
    const int64_t n = static_cast<int64_t>(found.size());
    if (ids) std::copy_n(found.data(), std::min(n, capacity), ids);
    if (n_ids) *n_ids = n;
  });
}

int32_t barkrt_voice_load(const barkrt_model* model, const char* name, barkrt_voice** out,
                          barkrt_error* err) {
  if (out) *out = nullptr;
  return fenced(err, [&] {
    need(out, "out");
    auto voice = std::make_unique<barkrt_voice>();
    voice->model = need(model, "model").core;
    voice->voice = voice->model->voice(&need(name, "name"));
    *out = voice.release();
  });
}

int32_t barkrt_voice_from_arrays(const barkrt_model* model, const barkrt_voice_arrays* arrays,
                                 barkrt_voice** out, barkrt_error* err) {
  if (out) *out = nullptr;
  return fenced(err, [&] {
    need(out, "out");
    const barkrt_voice_arrays a =
        read_struct(arrays, barkrt_voice_arrays{}, sizeof(barkrt_voice_arrays), "arrays");
    need_zero(a.reserved, "arrays->reserved");
    auto voice = std::make_unique<barkrt_voice>();
    voice->model = need(model, "model").core;
    voice->voice.semantic = copy_codes(a.semantic, 1, a.n_semantic, "semantic").ids;
    voice->voice.coarse = copy_codes(a.coarse, a.n_coarse_codebooks, a.n_coarse_frames, "coarse");
    voice->voice.fine = copy_codes(a.fine, a.n_fine_codebooks, a.n_fine_frames, "fine");
    barkrt::check_voice(voice->model->config(), voice->voice);
    *out = voice.release();
  });
}

void barkrt_voice_free(barkrt_voice* voice) { delete voice; }

void barkrt_session_params_init(barkrt_session_params* params) {
  if (params) *params = {sizeof *params, BARKRT_KV_F16};
}

int32_t barkrt_session_new(barkrt_model* model, const barkrt_session_params* params,
                           barkrt_session** out, barkrt_error* err) {
  if (out) *out = nullptr;
  return fenced(err, [&] {
    need(out, "out");
    const DType kv_type = read_kv_type(params);
    *out = std::make_unique<barkrt_session>(need(model, "model").core, kv_type).release();
  });
}

int32_t barkrt_session_memory(const barkrt_session* session, barkrt_memory* out,
                              barkrt_error* err) {
  if (out) *out = {};
  return fenced(err,
                [&] { need(out, "out") = to_memory(need(session, "session").core.account()); });
}

void barkrt_session_free(barkrt_session* session) { delete session; }

barkrt_cancel* barkrt_cancel_new(void) {
  barkrt_cancel* cancel = nullptr;
  fenced(nullptr, [&] { cancel = std::make_unique<barkrt_cancel>().release(); });
  return cancel;
}

void barkrt_cancel_trigger(barkrt_cancel* cancel) {
  if (cancel) cancel->flag.store(true);
}

void barkrt_cancel_free(barkrt_cancel* cancel) { delete cancel; }

int32_t barkrt_request_init(const barkrt_model* model, int32_t rules, barkrt_request* request,
                            barkrt_error* err) {
  if (request) *request = suno_request();
  return fenced(err, [&] {
    need(request, "request") =
        default_request(need(model, "model").core->config(), to_rules(rules));
  });
}

int32_t barkrt_synthesize(barkrt_session* session, const barkrt_request* request,
                          barkrt_sink_fn sink, void* user, barkrt_stats* stats, barkrt_error* err) {
  return fenced(err, [&] {
    Session& core = need(session, "session").core;
    if (stats) write_struct(stats, barkrt_stats{}, sizeof(barkrt_stats), "stats");
    const barkrt::Stats done =
        core.synthesize(read_request(core.model(), request), to_sink(sink, user));
    if (stats) write_struct(stats, to_stats(done), sizeof(barkrt_stats), "stats");
  });
}

int64_t barkrt_live_handles(void) { return live_handles.load(); }
