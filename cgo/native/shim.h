/* shim.h: what Go cannot say by itself. Pointers are passed as plain arguments, because Go memory must not hold
 * Go pointers while C sees it, and a callback's user word is a runtime/cgo.Handle, a number that is no address. */
#ifndef BARKD_SHIM_H
#define BARKD_SHIM_H

#if !__has_include("barkrt_build.h")
#error "libbarkrt is not built: run 'make native' first"
#endif
#include <stdlib.h>

#include "barkrt.h"
#include "barkrt_build.h"

/* callback.go; the generated prototypes have no const. */
extern int32_t barkdProgress(uintptr_t user, int64_t done, int64_t total);
extern int32_t barkdSink(uintptr_t user, barkrt_event* event);
extern void barkdLog(uintptr_t user, int32_t level, char* text);

/* default_model.S */
extern const unsigned char barkd_default_model[];
extern const unsigned char barkd_default_model_end[];

static inline const void* barkd_default_data(void) { return barkd_default_model; }
static inline int64_t barkd_default_bytes(void) {
  return (int64_t)(barkd_default_model_end - barkd_default_model);
}

static inline int32_t barkd_on_progress(void* user, int64_t done, int64_t total) {
  return barkdProgress((uintptr_t)user, done, total);
}
static inline int32_t barkd_on_event(void* user, const barkrt_event* event) {
  return barkdSink((uintptr_t)user, (barkrt_event*)event);
}
static inline void barkd_on_log(void* user, int32_t level, const char* text) {
  barkdLog((uintptr_t)user, level, (char*)text);
}

static inline void barkd_set_log(uintptr_t user) { barkrt_set_log(barkd_on_log, (void*)user); }

static inline barkrt_model_params barkd_model_params(const char* path, const void* data, int64_t data_bytes,
                                                     int32_t device, int32_t n_threads) {
  barkrt_model_params params;
  barkrt_model_params_init(&params);
  params.path = path;
  params.data = data;
  params.data_bytes = data_bytes;
  params.device = device;
  params.n_threads = n_threads;
  return params;
}

static inline int32_t barkd_estimate(const char* path, const void* data, int64_t data_bytes, int32_t device,
                                     int32_t n_threads, int32_t kv_type, barkrt_memory* model,
                                     barkrt_memory* session, barkrt_component* components, int64_t capacity,
                                     int64_t* n_components, barkrt_error* err) {
  barkrt_model_params params = barkd_model_params(path, data, data_bytes, device, n_threads);
  barkrt_session_params session_params;
  barkrt_session_params_init(&session_params);
  session_params.kv_type = kv_type;
  return barkrt_model_estimate(&params, &session_params, model, session, components, capacity, n_components,
                               err);
}

static inline int32_t barkd_load(const char* path, const void* data, int64_t data_bytes, int32_t device,
                                 int32_t n_threads, uintptr_t progress, barkrt_model** out,
                                 barkrt_error* err) {
  barkrt_model_params params = barkd_model_params(path, data, data_bytes, device, n_threads);
  params.progress = barkd_on_progress;
  params.progress_user = (void*)progress;
  return barkrt_model_load(&params, out, err);
}

static inline int32_t barkd_session_new(barkrt_model* model, int32_t kv_type, barkrt_session** out,
                                        barkrt_error* err) {
  barkrt_session_params params;
  barkrt_session_params_init(&params);
  params.kv_type = kv_type;
  return barkrt_session_new(model, &params, out, err);
}

static inline int32_t barkd_voice_from_arrays(const barkrt_model* model, const int32_t* semantic,
                                              int64_t n_semantic, const int32_t* coarse,
                                              int32_t n_coarse_codebooks, int64_t n_coarse_frames,
                                              const int32_t* fine, int32_t n_fine_codebooks,
                                              int64_t n_fine_frames, barkrt_voice** out, barkrt_error* err) {
  barkrt_voice_arrays arrays = {sizeof(arrays)};
  arrays.semantic = semantic;
  arrays.n_semantic = n_semantic;
  arrays.coarse = coarse;
  arrays.n_coarse_codebooks = n_coarse_codebooks;
  arrays.n_coarse_frames = n_coarse_frames;
  arrays.fine = fine;
  arrays.n_fine_codebooks = n_fine_codebooks;
  arrays.n_fine_frames = n_fine_frames;
  return barkrt_voice_from_arrays(model, &arrays, out, err);
}

/* `numbers` carries all fields but the pointers. `sink` 0: nobody listens. */
static inline int32_t barkd_synthesize(barkrt_session* session, const barkrt_request* numbers, const char* text,
                                       int64_t text_bytes, const barkrt_voice* voice,
                                       const barkrt_cancel* cancel, uintptr_t sink, barkrt_stats* stats,
                                       barkrt_error* err) {
  barkrt_request request = *numbers;
  request.struct_size = sizeof(request);
  request.text = text ? text : "";
  request.text_bytes = text_bytes;
  request.voice = voice;
  request.cancel = cancel;
  return barkrt_synthesize(session, &request, sink ? barkd_on_event : NULL, (void*)sink, stats, err);
}

#endif
