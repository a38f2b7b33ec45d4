// fuzz_model.cc: any bytes as a model: estimated, loaded, described; its voice made, its tokenizer
// used, a session created and stopped after a few steps. Nothing may be left alive.
#include <cstdint>
#include <cstring>

#include "barkrt.h"
#include "gguf_writer.h"

namespace {

constexpr int64_t kMostBytes = 64 << 20;  // of a session: an honest estimate of more is not tried
constexpr int kMostEvents = 300;

int32_t count_down(void* user, const barkrt_event*) { return --*static_cast<int*>(user) < 0; }

void check(int32_t status) {
  if (status < BARKRT_OK || status > BARKRT_INTERNAL) __builtin_trap();
}

void synthesize(barkrt_model* model, const barkrt_voice* voice, int32_t rules) {
  barkrt_error err;
  barkrt_session* session = nullptr;
  check(barkrt_session_new(model, nullptr, &session, &err));
  barkrt_request request;
  if (session != nullptr && barkrt_request_init(model, rules, &request, &err) == BARKRT_OK) {
    request.text = "ab a! [MASK]";
    request.text_bytes = static_cast<int64_t>(std::strlen(request.text));
    request.voice = voice;
    request.max_semantic_tokens = 4;
    int events = kMostEvents;
    check(barkrt_synthesize(session, &request, count_down, &events, nullptr, &err));
  }
  barkrt_session_free(session);
}

void use(barkrt_model* model, bool small) {
  barkrt_error err;
  barkrt_model_facts facts = {};
  facts.struct_size = sizeof facts;
  if (barkrt_model_describe(model, &facts, &err) != BARKRT_OK) __builtin_trap();
  barkrt_voice* voice = nullptr;
  const char* name = barkrt_model_voice_name(model, 0);
  if (name != nullptr) check(barkrt_voice_load(model, name, &voice, &err));
  for (const int32_t rules : {BARKRT_RULES_SUNO, BARKRT_RULES_HF}) {
    int32_t ids[4];
    int64_t n = 0;
    check(barkrt_model_tokenize(model, rules, "a\xcc\x81 b[MASK]!", 12, ids, 4, &n, &err));
    if (small) synthesize(model, voice, rules);
  }
  barkrt_voice_free(voice);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const barkrt::test::Image image({reinterpret_cast<const char*>(data), size});
  barkrt_model_params params;
  barkrt_model_params_init(&params);
  params.n_threads = 1;
  params.data = image.data();
  params.data_bytes = image.bytes();
  barkrt_error err;
  barkrt_memory model_bytes = {}, session_bytes = {}, live = {};
  const int32_t estimated = barkrt_model_estimate(&params, nullptr, &model_bytes, &session_bytes,
                                                  nullptr, 0, nullptr, &err);
  barkrt_model* model = nullptr;
  const int32_t loaded = barkrt_model_load(&params, &model, &err);
  check(loaded);
  if ((loaded == BARKRT_OK) != (model != nullptr)) __builtin_trap();
  if (model != nullptr) {
    if (barkrt_model_memory(model, &live, &err) != BARKRT_OK) __builtin_trap();
    if (estimated == BARKRT_OK && live.total_bytes != model_bytes.total_bytes) __builtin_trap();
    use(model, estimated == BARKRT_OK && session_bytes.total_bytes <= kMostBytes);
  }
  barkrt_model_free(model);
  if (barkrt_live_handles() != 0) __builtin_trap();
  if (barkrt_live(0, &live, &err) != BARKRT_OK || live.total_bytes != 0) __builtin_trap();
  return 0;
}
