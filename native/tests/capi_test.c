/* capi_test.c: the ABI as a C99 program sees it: every function, every rule of the header. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "barkrt.h"
#include "capi_test.h"

static int n_failed = 0;

#define EXPECT(condition)                                             \
  do {                                                                \
    if (!(condition)) {                                               \
      printf("%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      ++n_failed;                                                     \
    }                                                                 \
  } while (0)

/* Expects `call` to end with `status` and, unless OK, to have written a text. */
#define EXPECT_STATUS(call, status)                                                          \
  do {                                                                                       \
    const int32_t got_ = (memset(&err, 0, sizeof err), (call));                              \
    if (got_ != (status) || (got_ != BARKRT_OK && (err.code != got_ || !err.text[0]))) {     \
      printf("%s:%d: %s gave %s: %s\n", __FILE__, __LINE__, #call, barkrt_status_name(got_), \
             err.text);                                                                      \
      ++n_failed;                                                                            \
    }                                                                                        \
  } while (0)

typedef struct Seen {
  int64_t n_samples;
  int64_t n_tokens[BARKRT_STAGE_COUNT];
  int64_t n_progress[BARKRT_STAGE_COUNT];
  double sum;
  int32_t stop_kind; /* event kind to stop at, or -1 */
  int32_t semantic[64], coarse[256], fine[512];
} Seen;

static int32_t on_event(void* user, const barkrt_event* e) {
  Seen* seen = (Seen*)user;
  int64_t i, n = e->rows * e->cols;
  if (e->kind == seen->stop_kind) return 1;
  if (e->kind == BARKRT_EVENT_PROGRESS) seen->n_progress[e->stage]++;
  if (e->kind == BARKRT_EVENT_AUDIO) {
    seen->n_samples += e->n_samples;
    for (i = 0; i < e->n_samples; ++i) seen->sum += fabs((double)e->pcm[i]);
  }
  if (e->kind == BARKRT_EVENT_TOKENS) {
    int32_t* to = e->stage == BARKRT_STAGE_SEMANTIC ? seen->semantic
                  : e->stage == BARKRT_STAGE_COARSE ? seen->coarse
                                                    : seen->fine;
    seen->n_tokens[e->stage] = n;
    for (i = 0; i < n; ++i) to[i] = e->tokens[i];
  }
  return 0;
}

static int32_t stop_load(void* user, int64_t done, int64_t total) {
  (void)user;
  return done > total / 2;
}

static barkrt_model_params image_params(void) {
  barkrt_model_params p;
  barkrt_model_params_init(&p);
  p.data = small_model_image(&p.data_bytes);
  p.n_threads = 2;
  return p;
}

static void test_constants(void) {
  EXPECT(barkrt_abi_version() == BARKRT_ABI_VERSION);
  EXPECT(strlen(barkrt_version()) >= 5);
  EXPECT(strcmp(barkrt_status_name(BARKRT_OK), "OK") == 0);
  EXPECT(strcmp(barkrt_status_name(BARKRT_INTERNAL), "INTERNAL") == 0);
  EXPECT(strcmp(barkrt_status_name(10), "UNKNOWN") == 0);
  EXPECT(strcmp(barkrt_status_name(-1), "UNKNOWN") == 0);
}

static void test_devices(void) {
  barkrt_error err;
  barkrt_device d;
  int64_t free_bytes = -1, total_bytes = -1;
  EXPECT(barkrt_device_count() >= 1);
  memset(&d, 0, sizeof d);
  EXPECT_STATUS(barkrt_device_describe(0, &d, &err), BARKRT_INVALID_ARGUMENT); /* no struct_size */
  d.struct_size = sizeof d;
  EXPECT_STATUS(barkrt_device_describe(0, &d, &err), BARKRT_OK);
  EXPECT(strcmp(d.id, "cpu") == 0 && d.n_cores >= 1 && d.struct_size == sizeof d);
  EXPECT(d.total_bytes > 0);
  d.struct_size = offsetof(barkrt_device, total_bytes); /* the struct's first version */
  d.total_bytes = -7;
  EXPECT_STATUS(barkrt_device_describe(0, &d, &err), BARKRT_OK);
  EXPECT(d.n_cores >= 1 && d.total_bytes == -7);
  EXPECT_STATUS(barkrt_device_describe(1000, &d, &err), BARKRT_NOT_FOUND);
  EXPECT(d.id[0] == 0);
  EXPECT_STATUS(barkrt_device_describe(0, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_device_memory(0, &free_bytes, &total_bytes, &err), BARKRT_OK);
  EXPECT(total_bytes > 0 && free_bytes <= total_bytes);
  EXPECT_STATUS(barkrt_device_memory(-1, &free_bytes, NULL, &err), BARKRT_NOT_FOUND);
  EXPECT(free_bytes == 0);
}

static void test_null_never_crashes(void) {
  barkrt_error err;
  barkrt_request rq;
  barkrt_model_params_init(NULL);
  barkrt_session_params_init(NULL);
  barkrt_model_free(NULL);
  barkrt_voice_free(NULL);
  barkrt_session_free(NULL);
  barkrt_cancel_free(NULL);
  barkrt_cancel_trigger(NULL);
  barkrt_set_log(NULL, NULL);
  EXPECT_STATUS(barkrt_model_load(NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT(barkrt_model_load(NULL, NULL, NULL) == BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_model_estimate(NULL, NULL, NULL, NULL, NULL, 0, NULL, &err),
                BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_model_describe(NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT(barkrt_model_voice_name(NULL, 0) == NULL);
  EXPECT_STATUS(barkrt_model_memory(NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_model_components(NULL, NULL, 0, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT(barkrt_model_account(NULL) == NULL);
  EXPECT_STATUS(barkrt_account_live(NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  barkrt_account_free(NULL);
  EXPECT_STATUS(barkrt_model_tokenize(NULL, 0, "a", 1, NULL, 0, NULL, &err),
                BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_voice_load(NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_voice_from_arrays(NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_session_new(NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_session_memory(NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_request_init(NULL, 0, &rq, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_synthesize(NULL, NULL, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
}

static void test_load_failures(void) {
  barkrt_error err;
  barkrt_model* model = (barkrt_model*)&err;
  barkrt_model_params p = image_params();
  p.path = "also-a-path.gguf";
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT(model == NULL);
  barkrt_model_params_init(&p);
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_INVALID_ARGUMENT);
  p.path = "there-is-no-such-file.gguf";
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_NOT_FOUND);
  EXPECT(strstr(err.text, "there-is-no-such-file.gguf") != NULL);
  p = image_params();
  p.struct_size = 0;
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_INVALID_ARGUMENT);
  p = image_params();
  p.data_bytes = 100;
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_BAD_MODEL);
  p = image_params();
  p.device = 77;
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_NOT_FOUND);
  p = image_params();
  p.reserved = 1;
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_INVALID_ARGUMENT);
  p = image_params();
  p.progress = stop_load;
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_CANCELLED);
  EXPECT(model == NULL);
}

static void test_model(barkrt_model* model) {
  barkrt_error err;
  barkrt_model_facts f;
  barkrt_memory m, model_need, session_need;
  barkrt_component c, held[2];
  barkrt_model_params p = image_params();
  int32_t ids[3] = {-1, -1, -1};
  int64_t n = -1;
  f.struct_size = sizeof f;
  EXPECT_STATUS(barkrt_model_describe(model, &f, &err), BARKRT_OK);
  EXPECT(f.sample_rate_hz == 8000 && f.hop_length == 24 && f.max_text_tokens == 16);
  EXPECT(f.max_semantic_tokens == 40 && f.n_voices == 1 && f.trained == 0);
  EXPECT(f.n_coarse_codebooks == 2 && f.n_fine_codebooks == 4);
  EXPECT(f.semantic_rate_hz == 49.9 && f.coarse_rate_hz == 75);
  EXPECT(strcmp(f.name, "test/small") == 0);
  EXPECT(strcmp(barkrt_model_voice_name(model, 0), "anna") == 0);
  EXPECT(barkrt_model_voice_name(model, 1) == NULL);
  EXPECT(barkrt_model_voice_name(model, -1) == NULL);

  EXPECT_STATUS(barkrt_model_memory(model, &m, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_model_estimate(&p, NULL, &model_need, &session_need, &c, 1, &n, &err),
                BARKRT_OK);
  EXPECT(memcmp(&m, &model_need, sizeof m) == 0);
  EXPECT(m.weights_bytes > 0 && m.tables_bytes > 0 && m.total_bytes == m.peak_bytes);
  EXPECT(session_need.kv_bytes > 0 && session_need.activations_bytes > 0);
  EXPECT(n == 1 && strlen(c.digest) == 64 && c.bytes > 0 && c.bytes == m.shared_bytes);
  EXPECT(m.shared_bytes < m.weights_bytes);
  EXPECT_STATUS(barkrt_model_components(model, held, 2, &n, &err), BARKRT_OK);
  EXPECT(n == 1 && strcmp(held[0].digest, c.digest) == 0 && held[0].bytes == c.bytes);
  EXPECT_STATUS(barkrt_model_components(model, NULL, 0, &n, &err), BARKRT_OK);
  EXPECT(n == 1);
  EXPECT_STATUS(barkrt_model_components(model, NULL, 1, &n, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_model_components(model, held, -1, &n, &err), BARKRT_INVALID_ARGUMENT);

  EXPECT_STATUS(barkrt_model_tokenize(model, BARKRT_RULES_SUNO, "hello", 5, ids, 2, &n, &err),
                BARKRT_OK);
  EXPECT(n == 5 && ids[0] == 5 + 7 && ids[2] == -1);
  EXPECT_STATUS(barkrt_model_tokenize(model, BARKRT_RULES_HF, NULL, 0, NULL, 0, &n, &err),
                BARKRT_OK);
  EXPECT(n == 0);
  EXPECT_STATUS(barkrt_model_tokenize(model, 9, "a", 1, NULL, 0, &n, &err),
                BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_model_tokenize(model, 0, "a", -1, NULL, 0, &n, &err),
                BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_model_tokenize(model, 0, "\xff", 1, NULL, 0, &n, &err),
                BARKRT_INVALID_ARGUMENT);
}

static void test_request_defaults(const barkrt_model* model) {
  barkrt_error err;
  barkrt_request rq;
  EXPECT_STATUS(barkrt_request_init(model, BARKRT_RULES_SUNO, &rq, &err), BARKRT_OK);
  EXPECT(rq.struct_size == sizeof rq && rq.rules == BARKRT_RULES_SUNO);
  EXPECT(rq.semantic.temperature == 0.7f && rq.coarse.temperature == 0.7f);
  EXPECT(rq.fine.temperature == 0.5f && rq.semantic.min_eos_p == 0.2f);
  EXPECT(rq.semantic.top_k == 0 && rq.semantic.top_p == 1.0f && rq.coarse.min_eos_p == 0.0f);
  EXPECT_STATUS(barkrt_request_init(model, BARKRT_RULES_HF, &rq, &err), BARKRT_OK);
  EXPECT(rq.rules == BARKRT_RULES_HF && rq.semantic.top_k == 50 && rq.coarse.top_k == 50);
  EXPECT(rq.semantic.min_eos_p == 0.0f && rq.fine.temperature == 0.5f && rq.fine.top_k == 0);
  EXPECT_STATUS(barkrt_request_init(model, 2, &rq, &err), BARKRT_INVALID_ARGUMENT);
}

static void test_voices(barkrt_model* model, const Seen* seen, int64_t n_frames) {
  barkrt_error err;
  barkrt_voice* voice = NULL;
  barkrt_voice_arrays a;
  EXPECT_STATUS(barkrt_voice_load(model, "anna", &voice, &err), BARKRT_OK);
  barkrt_voice_free(voice);
  EXPECT_STATUS(barkrt_voice_load(model, "nobody", &voice, &err), BARKRT_NOT_FOUND);
  EXPECT(voice == NULL && strstr(err.text, "anna") != NULL);

  memset(&a, 0, sizeof a);
  a.struct_size = sizeof a;
  a.n_coarse_codebooks = 2;
  a.n_fine_codebooks = 4;
  a.semantic = seen->semantic;
  a.n_semantic = seen->n_tokens[BARKRT_STAGE_SEMANTIC];
  a.coarse = seen->coarse;
  a.n_coarse_frames = n_frames;
  a.fine = seen->fine;
  a.n_fine_frames = n_frames;
  EXPECT_STATUS(barkrt_voice_from_arrays(model, &a, &voice, &err), BARKRT_OK);
  barkrt_voice_free(voice);
  a.n_fine_frames = -1;
  EXPECT_STATUS(barkrt_voice_from_arrays(model, &a, &voice, &err), BARKRT_INVALID_ARGUMENT);
  a.n_fine_frames = INT64_MAX;
  EXPECT_STATUS(barkrt_voice_from_arrays(model, &a, &voice, &err), BARKRT_INVALID_ARGUMENT);
  a.n_fine_frames = n_frames;
  a.fine = NULL;
  EXPECT_STATUS(barkrt_voice_from_arrays(model, &a, &voice, &err), BARKRT_INVALID_ARGUMENT);
  a.fine = seen->fine;
  a.n_fine_codebooks = 3;
  EXPECT_STATUS(barkrt_voice_from_arrays(model, &a, &voice, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT(voice == NULL);
}

static void test_bad_requests(barkrt_session* session, const barkrt_request* good) {
  barkrt_error err;
  barkrt_request rq = *good;
  rq.struct_size = 3;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.rules = 5;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.text = NULL;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.text_bytes = -4;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.semantic.temperature = -0.1f;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.coarse.temperature = (float)NAN;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.fine.top_p = 0;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.semantic.top_k = -1;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.semantic.min_eos_p = 2;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.max_semantic_tokens = -1;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.fine_chunk = -1;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.reserved = 1;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  rq = *good;
  rq.want = 2;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
}

static void test_synthesis(barkrt_model* model, barkrt_session* session) {
  barkrt_error err;
  barkrt_request rq;
  barkrt_stats stats;
  barkrt_voice* voice = NULL;
  barkrt_cancel* cancel = barkrt_cancel_new();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  seen.stop_kind = -1;
  memset(&stats, 0, sizeof stats);
  stats.struct_size = sizeof stats;
  EXPECT_STATUS(barkrt_request_init(model, BARKRT_RULES_SUNO, &rq, &err), BARKRT_OK);
  rq.text = "hello";
  rq.text_bytes = 5;
  rq.seed = 3;
  rq.semantic.min_eos_p = 0;
  rq.want = BARKRT_WANT_TOKENS;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, on_event, &seen, &stats, &err), BARKRT_OK);
  EXPECT(stats.n_text_tokens == 5 && stats.text_truncated == 0 && stats.n_semantic > 0);
  EXPECT(stats.n_samples == seen.n_samples && seen.n_samples == 24 * (int64_t)stats.n_frames);
  EXPECT(seen.n_tokens[BARKRT_STAGE_FINE] == 4 * (int64_t)stats.n_frames && seen.sum > 0);
  EXPECT(seen.n_progress[BARKRT_STAGE_COARSE] == stats.n_coarse);
  EXPECT(stats.stage_ms[BARKRT_STAGE_FINE] > 0);
  test_voices(model, &seen, stats.n_frames);
  test_bad_requests(session, &rq);

  EXPECT_STATUS(barkrt_voice_load(model, "anna", &voice, &err), BARKRT_OK);
  rq.voice = voice;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_OK);
  barkrt_voice_free(voice);
  rq.voice = NULL;

  seen.stop_kind = BARKRT_EVENT_AUDIO;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, on_event, &seen, &stats, &err), BARKRT_CANCELLED);
  EXPECT(stats.n_samples == 0 && stats.struct_size == sizeof stats);
  rq.cancel = cancel;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_OK);
  barkrt_cancel_trigger(cancel);
  barkrt_cancel_trigger(cancel);
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_CANCELLED);
  barkrt_cancel_free(cancel);
}

/* A voice of one model is refused by a session of another. */
static void test_foreign_voice(barkrt_session* session) {
  barkrt_error err;
  barkrt_request rq;
  barkrt_model* other = NULL;
  barkrt_voice* voice = NULL;
  barkrt_model_params p = image_params();
  EXPECT_STATUS(barkrt_model_load(&p, &other, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_voice_load(other, "anna", &voice, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_request_init(other, BARKRT_RULES_SUNO, &rq, &err), BARKRT_OK);
  rq.text = "a";
  rq.text_bytes = 1;
  rq.voice = voice;
  EXPECT_STATUS(barkrt_synthesize(session, &rq, NULL, NULL, NULL, &err), BARKRT_INVALID_ARGUMENT);
  barkrt_model_free(other);
  barkrt_voice_free(voice); /* after its model */
}

static void test_session_parameters(barkrt_model* model) {
  barkrt_error err;
  barkrt_session_params sp;
  barkrt_session* session = NULL;
  barkrt_memory f16, f32, i8, model_need, session_need;
  barkrt_model_params p = image_params();
  barkrt_session_params_init(&sp);
  EXPECT(sp.struct_size == sizeof sp && sp.kv_type == BARKRT_KV_F16);
  EXPECT_STATUS(barkrt_session_new(model, &sp, &session, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_session_memory(session, &f16, &err), BARKRT_OK);
  barkrt_session_free(session);
  sp.kv_type = BARKRT_KV_F32;
  EXPECT_STATUS(barkrt_session_new(model, &sp, &session, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_session_memory(session, &f32, &err), BARKRT_OK);
  EXPECT(f32.kv_bytes == 2 * f16.kv_bytes && f32.activations_bytes == f16.activations_bytes);
  EXPECT_STATUS(barkrt_model_estimate(&p, &sp, &model_need, &session_need, NULL, 0, NULL, &err),
                BARKRT_OK);
  EXPECT(memcmp(&f32, &session_need, sizeof f32) == 0);
  barkrt_session_free(session);
  sp.kv_type = BARKRT_KV_I8;
  EXPECT_STATUS(barkrt_session_new(model, &sp, &session, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_session_memory(session, &i8, &err), BARKRT_OK);
  EXPECT(i8.kv_bytes < f16.kv_bytes && 2 * i8.kv_bytes > f16.kv_bytes);
  EXPECT(i8.activations_bytes == f16.activations_bytes);
  EXPECT_STATUS(barkrt_model_estimate(&p, &sp, &model_need, &session_need, NULL, 0, NULL, &err),
                BARKRT_OK);
  EXPECT(memcmp(&i8, &session_need, sizeof i8) == 0);
  barkrt_session_free(session);
  sp.kv_type = 7;
  EXPECT_STATUS(barkrt_session_new(model, &sp, &session, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT(session == NULL);
}

/* A second model of the same image: its component counts once, its account ends at zero. */
static void test_accounts(void) {
  barkrt_error err;
  barkrt_memory before, m, live, now;
  barkrt_model* model = NULL;
  barkrt_session* session = NULL;
  barkrt_voice* voice = NULL;
  barkrt_account *account, *again;
  barkrt_model_params p = image_params();
  EXPECT_STATUS(barkrt_live(0, &before, &err), BARKRT_OK);
  EXPECT(before.shared_bytes > 0 && before.total_bytes > before.weights_bytes);
  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_model_memory(model, &m, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_live(0, &live, &err), BARKRT_OK);
  EXPECT(live.shared_bytes == before.shared_bytes && m.shared_bytes == before.shared_bytes);
  EXPECT(live.total_bytes == before.total_bytes + m.total_bytes - m.shared_bytes);

  account = barkrt_model_account(model);
  again = barkrt_model_account(model);
  EXPECT_STATUS(barkrt_account_live(account, &now, &err), BARKRT_OK);
  EXPECT(now.total_bytes == m.total_bytes - m.shared_bytes && now.shared_bytes == 0);
  EXPECT_STATUS(barkrt_voice_load(model, "anna", &voice, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_account_live(account, &now, &err), BARKRT_OK);
  EXPECT(now.tables_bytes == m.tables_bytes + 4 * (20 + 2 * 30 + 4 * 30));
  EXPECT_STATUS(barkrt_session_new(model, NULL, &session, &err), BARKRT_OK);
  barkrt_model_free(model);
  barkrt_voice_free(voice);
  EXPECT_STATUS(barkrt_account_live(again, &now, &err), BARKRT_OK);
  EXPECT(now.kv_bytes > 0 && now.weights_bytes == m.weights_bytes - m.shared_bytes);
  barkrt_session_free(session);
  EXPECT_STATUS(barkrt_account_live(again, &now, &err), BARKRT_OK);
  EXPECT(now.total_bytes == 0 && now.weights_bytes == 0 && now.tables_bytes == 0);
  EXPECT(now.kv_bytes == 0 && now.activations_bytes == 0 &&
         now.peak_bytes > m.total_bytes - m.shared_bytes);
  barkrt_account_free(account);
  barkrt_account_free(again);
  EXPECT_STATUS(barkrt_live(0, &now, &err), BARKRT_OK);
  now.peak_bytes = before.peak_bytes;
  EXPECT(memcmp(&now, &before, sizeof now) == 0);
}

/* Loads that fail or are stopped leave nothing. */
static void test_nothing_is_live(void) {
  barkrt_error err;
  barkrt_memory live;
  int64_t returned = -1;
  EXPECT(barkrt_live_handles() == 0);
  EXPECT_STATUS(barkrt_live(0, &live, &err), BARKRT_OK);
  EXPECT(live.total_bytes == 0 && live.shared_bytes == 0 && live.weights_bytes == 0);
  EXPECT_STATUS(barkrt_live(99, &live, &err), BARKRT_NOT_FOUND);
  EXPECT_STATUS(barkrt_live(0, NULL, &err), BARKRT_INVALID_ARGUMENT);
  EXPECT_STATUS(barkrt_trim(0, &returned, &err), BARKRT_OK);
  EXPECT(returned >= 0);
  EXPECT_STATUS(barkrt_trim(0, NULL, &err), BARKRT_OK);
  EXPECT_STATUS(barkrt_trim(-1, &returned, &err), BARKRT_NOT_FOUND);
  EXPECT(returned == 0);
}

int main(void) {
  barkrt_error err;
  barkrt_model* model = NULL;
  barkrt_session* session = NULL;
  barkrt_model_params p = image_params();
  test_constants();
  test_devices();
  test_null_never_crashes();
  test_load_failures();
  test_nothing_is_live();

  EXPECT_STATUS(barkrt_model_load(&p, &model, &err), BARKRT_OK);
  if (model == NULL) return 1;
  EXPECT_STATUS(barkrt_session_new(model, NULL, &session, &err), BARKRT_OK);
  EXPECT(barkrt_live_handles() == 2);
  test_model(model);
  test_request_defaults(model);
  test_session_parameters(model);
  test_synthesis(model, session);
  test_foreign_voice(session);
  test_accounts();
  barkrt_model_free(model); /* before its session */
  barkrt_session_free(session);
  test_nothing_is_live();
  if (n_failed == 0) printf("ok\n");
  return n_failed != 0;
}
