// capi.cc: barkrt.h over the C++ classes; no logic. The arguments are checked in capi_structs.h.
#include "barkrt.h"

#include <atomic>
#include <memory>

#include "backend.h"
#include "capi_structs.h"
#include "session.h"

using barkrt::Config;
using barkrt::DType;
using barkrt::fail;
using barkrt::Model;
using barkrt::Rules;
using barkrt::Session;
using barkrt::Status;
namespace capi = barkrt::capi;

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
  barkrt_voice(std::shared_ptr<const Model> from, barkrt::Voice codes)
      : model(std::move(from)),
        charge(model->family(), barkrt::Category::Tables),
        voice(std::move(codes)) {
    charge.add(barkrt::voice_bytes(voice));
  }
  std::shared_ptr<const Model> model;
  barkrt::Charge charge;
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

struct barkrt_account : LiveHandle {
  explicit barkrt_account(std::shared_ptr<const barkrt::MemoryAccount> family)
      : core(std::move(family)) {}
  std::shared_ptr<const barkrt::MemoryAccount> core;
};

namespace {

barkrt::Request read_request(const Model& model, const barkrt_request* request) {
  const barkrt_request r =
      capi::read_struct(request, capi::suno_request(), sizeof(barkrt_request), "request");
  if (r.voice && r.voice->model.get() != &model)
    fail(Status::InvalidArgument, "the voice was made for another model; make it from this one");
  if (r.max_semantic_tokens < 0)
    fail(Status::InvalidArgument, "max_semantic_tokens is %d", r.max_semantic_tokens);
  if (r.fine_chunk < 0) fail(Status::InvalidArgument, "fine_chunk is %d", r.fine_chunk);
  capi::need_zero(r.reserved, "request->reserved");
  if (r.want & ~static_cast<uint32_t>(BARKRT_WANT_TOKENS))
    fail(Status::InvalidArgument, "want is %u, which has unknown bits", r.want);
  barkrt::Request out;
  out.rules = capi::to_rules(r.rules);
  out.text = capi::to_text(r.text, r.text_bytes);
  out.voice = r.voice ? &r.voice->voice : nullptr;
  out.cancel = r.cancel ? &r.cancel->flag : nullptr;
  out.seed = r.seed;
  out.semantic = capi::to_sampling(r.semantic, "semantic");
  out.coarse = capi::to_sampling(r.coarse, "coarse");
  out.fine = capi::to_sampling(r.fine, "fine");
  out.max_semantic_tokens = r.max_semantic_tokens;
  out.fine_chunk = r.fine_chunk;
  out.want_tokens = (r.want & BARKRT_WANT_TOKENS) != 0;
  return out;
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
  capi::fenced(nullptr, [&] { count = barkrt::device_count(); });
  return count;
}

int32_t barkrt_device_describe(int32_t index, barkrt_device* out, barkrt_error* err) {
  return capi::fenced(err, [&] {
    constexpr size_t kFirst = offsetof(barkrt_device, total_bytes);
    capi::write_struct(out, barkrt_device{}, kFirst, "out");
    const barkrt::DeviceDescription d = barkrt::describe_device(index);
    barkrt_device device{};
    capi::copy_text(device.id, d.id);
    capi::copy_text(device.kind, d.kind);
    capi::copy_text(device.name, d.name);
    capi::copy_text(device.detail, d.detail);
    device.n_cores = d.n_cores;
    device.total_bytes = d.total_bytes;
    capi::write_struct(out, device, kFirst, "out");
  });
}

int32_t barkrt_device_memory(int32_t index, int64_t* free_bytes, int64_t* total_bytes,
                             barkrt_error* err) {
  int64_t free = 0, total = 0;
  const int32_t status = capi::fenced(err, [&] { barkrt::device_memory(index, &free, &total); });
  if (free_bytes) *free_bytes = status == BARKRT_OK ? free : 0;
  if (total_bytes) *total_bytes = status == BARKRT_OK ? total : 0;
  return status;
}

int32_t barkrt_live(int32_t device, barkrt_memory* out, barkrt_error* err) {
  if (out) *out = {};
  return capi::fenced(
      err, [&] { capi::need(out, "out") = capi::to_memory(*barkrt::device_account(device)); });
}

int32_t barkrt_trim(int32_t device, int64_t* returned_bytes, barkrt_error* err) {
  int64_t returned = 0;
  const int32_t status = capi::fenced(err, [&] { returned = barkrt::trim_device(device); });
  if (returned_bytes) *returned_bytes = returned;
  return status;
}

void barkrt_model_params_init(barkrt_model_params* params) {
  if (params) *params = capi::default_model_params();
}

int32_t barkrt_model_estimate(const barkrt_model_params* params,
                              const barkrt_session_params* session, barkrt_memory* model_out,
                              barkrt_memory* session_out, barkrt_component* components,
                              int64_t capacity, int64_t* n_components, barkrt_error* err) {
  if (model_out) *model_out = {};
  if (session_out) *session_out = {};
  if (n_components) *n_components = 0;
  return capi::fenced(err, [&] {
    const barkrt_model_params p = capi::read_params(params);
    const DType kv_type = capi::read_kv_type(session);
    barkrt::describe_device(p.device);  // NotFound
    Config config;
    const barkrt::ModelBytes m = Model::estimate(*capi::open_gguf(p), &config);
    const Session::Bytes s = Session::estimate(config, kv_type);
    const int64_t session_total = s.kv + s.activations;
    capi::write_components(m.component ? &*m.component : nullptr, components, capacity,
                           n_components);
    if (model_out) *model_out = capi::to_memory(m);
    if (session_out) *session_out = {0, 0, s.kv, s.activations, session_total, session_total, 0};
  });
}

int32_t barkrt_model_load(const barkrt_model_params* params, barkrt_model** out,
                          barkrt_error* err) {
  if (out) *out = nullptr;
  return capi::fenced(err, [&] {
    capi::need(out, "out");
    const barkrt_model_params p = capi::read_params(params);
    barkrt::LoadProgress progress;
    if (p.progress)
      progress = [&](int64_t done, int64_t total) {
        return p.progress(p.progress_user, done, total) == 0;
      };
    auto model = std::make_unique<barkrt_model>();
    model->core = Model::load(capi::open_gguf(p), p.device, p.n_threads, progress);
    *out = model.release();
  });
}

int32_t barkrt_model_describe(const barkrt_model* model, barkrt_model_facts* out,
                              barkrt_error* err) {
  return capi::fenced(err, [&] {
    capi::write_struct(out, barkrt_model_facts{}, sizeof(barkrt_model_facts), "out");
    const Model& core = *capi::need(model, "model").core;
    const Config& c = core.config();
    barkrt_model_facts f{};
    f.sample_rate_hz = capi::to_int32(c.codec.sample_rate);
    f.hop_length = capi::to_int32(c.codec.hop_length());
    f.max_text_tokens = capi::to_int32(c.semantic.max_input_length);
    f.max_semantic_tokens = capi::to_int32(c.semantic.max_tokens());
    f.n_voices = capi::to_int32(static_cast<int64_t>(core.voice_names().size()));
    f.trained = c.trained ? 1 : 0;
    f.n_coarse_codebooks = capi::to_int32(c.coarse.n_codebook);
    f.n_fine_codebooks = capi::to_int32(c.fine.n_fine_codebook);
    f.semantic_rate_hz = c.semantic.rate_hz;
    f.coarse_rate_hz = c.coarse.rate_hz;
    f.name = c.name.c_str();
    capi::write_struct(out, f, sizeof f, "out");
  });
}

const char* barkrt_model_voice_name(const barkrt_model* model, int32_t index) {
  if (!model || index < 0) return nullptr;
  const std::vector<std::string>& names = model->core->voice_names();
  return static_cast<size_t>(index) < names.size() ? names[index].c_str() : nullptr;
}

int32_t barkrt_model_memory(const barkrt_model* model, barkrt_memory* out, barkrt_error* err) {
  if (out) *out = {};
  return capi::fenced(
      err, [&] { capi::need(out, "out") = capi::to_memory(*capi::need(model, "model").core); });
}

int32_t barkrt_model_components(const barkrt_model* model, barkrt_component* components,
                                int64_t capacity, int64_t* n_components, barkrt_error* err) {
  if (n_components) *n_components = 0;
  return capi::fenced(err, [&] {
    const barkrt::Component* const c = capi::need(model, "model").core->component();
    capi::write_components(c ? &c->plan() : nullptr, components, capacity, n_components);
  });
}

void barkrt_model_free(barkrt_model* model) { delete model; }

int32_t barkrt_model_tokenize(const barkrt_model* model, int32_t rules, const char* text,
                              int64_t text_bytes, int32_t* ids, int64_t capacity, int64_t* n_ids,
                              barkrt_error* err) {
  if (n_ids) *n_ids = 0;
  return capi::fenced(err, [&] {
    const Model& core = *capi::need(model, "model").core;
    if (capacity < 0 || (capacity > 0 && !ids))
      fail(Status::InvalidArgument, "capacity is %lld and ids is %s",
           static_cast<long long>(capacity), ids ? "set" : "NULL");
    const std::vector<int32_t> found =
        core.tokenizer().encode(capi::to_text(text, text_bytes), capi::to_rules(rules));
    const int64_t n = static_cast<int64_t>(found.size());
    if (ids) std::copy_n(found.data(), std::min(n, capacity), ids);
    if (n_ids) *n_ids = n;
  });
}

int32_t barkrt_voice_load(const barkrt_model* model, const char* name, barkrt_voice** out,
                          barkrt_error* err) {
  if (out) *out = nullptr;
  return capi::fenced(err, [&] {
    capi::need(out, "out");
    const std::shared_ptr<const Model>& core = capi::need(model, "model").core;
    *out = std::make_unique<barkrt_voice>(core, core->voice(&capi::need(name, "name"))).release();
  });
}

int32_t barkrt_voice_from_arrays(const barkrt_model* model, const barkrt_voice_arrays* arrays,
                                 barkrt_voice** out, barkrt_error* err) {
  if (out) *out = nullptr;
  return capi::fenced(err, [&] {
    capi::need(out, "out");
    const barkrt_voice_arrays a =
        capi::read_struct(arrays, barkrt_voice_arrays{}, sizeof(barkrt_voice_arrays), "arrays");
    capi::need_zero(a.reserved, "arrays->reserved");
    const std::shared_ptr<const Model>& core = capi::need(model, "model").core;
    barkrt::Voice voice;
    voice.semantic = capi::copy_codes(a.semantic, 1, a.n_semantic, "semantic").ids;
    voice.coarse = capi::copy_codes(a.coarse, a.n_coarse_codebooks, a.n_coarse_frames, "coarse");
    voice.fine = capi::copy_codes(a.fine, a.n_fine_codebooks, a.n_fine_frames, "fine");
    barkrt::check_voice(core->config(), voice);
    *out = std::make_unique<barkrt_voice>(core, std::move(voice)).release();
  });
}

void barkrt_voice_free(barkrt_voice* voice) { delete voice; }

void barkrt_session_params_init(barkrt_session_params* params) {
  if (params) *params = {sizeof *params, BARKRT_KV_F16};
}

int32_t barkrt_session_new(barkrt_model* model, const barkrt_session_params* params,
                           barkrt_session** out, barkrt_error* err) {
  if (out) *out = nullptr;
  return capi::fenced(err, [&] {
    capi::need(out, "out");
    const DType kv_type = capi::read_kv_type(params);
    *out = std::make_unique<barkrt_session>(capi::need(model, "model").core, kv_type).release();
  });
}

int32_t barkrt_session_memory(const barkrt_session* session, barkrt_memory* out,
                              barkrt_error* err) {
  if (out) *out = {};
  return capi::fenced(err, [&] {
    capi::need(out, "out") = capi::to_memory(capi::need(session, "session").core.account());
  });
}

void barkrt_session_free(barkrt_session* session) { delete session; }

barkrt_cancel* barkrt_cancel_new(void) {
  barkrt_cancel* cancel = nullptr;
  capi::fenced(nullptr, [&] { cancel = std::make_unique<barkrt_cancel>().release(); });
  return cancel;
}

void barkrt_cancel_trigger(barkrt_cancel* cancel) {
  if (cancel) cancel->flag.store(true);
}

void barkrt_cancel_free(barkrt_cancel* cancel) { delete cancel; }

int32_t barkrt_request_init(const barkrt_model* model, int32_t rules, barkrt_request* request,
                            barkrt_error* err) {
  if (request) *request = capi::suno_request();
  return capi::fenced(err, [&] {
    capi::need(request, "request") =
        capi::default_request(capi::need(model, "model").core->config(), capi::to_rules(rules));
  });
}

int32_t barkrt_synthesize(barkrt_session* session, const barkrt_request* request,
                          barkrt_sink_fn sink, void* user, barkrt_stats* stats, barkrt_error* err) {
  return capi::fenced(err, [&] {
    Session& core = capi::need(session, "session").core;
    if (stats) capi::write_struct(stats, barkrt_stats{}, sizeof(barkrt_stats), "stats");
    const barkrt::Stats done =
        core.synthesize(read_request(core.model(), request), capi::to_sink(sink, user));
    if (stats) capi::write_struct(stats, capi::to_stats(done), sizeof(barkrt_stats), "stats");
  });
}

barkrt_account* barkrt_model_account(const barkrt_model* model) {
  barkrt_account* account = nullptr;
  if (!model) return nullptr;
  capi::fenced(nullptr, [&] {
    account = std::make_unique<barkrt_account>(model->core->family()).release();
  });
  return account;
}

int32_t barkrt_account_live(const barkrt_account* account, barkrt_memory* out, barkrt_error* err) {
  if (out) *out = {};
  return capi::fenced(
      err, [&] { capi::need(out, "out") = capi::to_memory(*capi::need(account, "account").core); });
}

void barkrt_account_free(barkrt_account* account) { delete account; }

int64_t barkrt_live_handles(void) { return live_handles.load(); }
