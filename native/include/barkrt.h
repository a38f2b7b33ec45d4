/* barkrt.h: the C ABI of libbarkrt, a runtime for the Bark text-to-speech models.
 *
 * Vocabulary
 *   model    immutable weights, vocabulary and voices; shared by any number of sessions and threads
 *   session  the memory of one running request (key-value cache, activations); one call at a time
 *   voice    a history prompt: semantic, coarse and fine tokens of earlier speech
 *   cancel   a sticky flag that any thread may set and any request may watch
 *   account  the bytes of one model with its sessions and voices; tells that they are gone
 *   component  tensors that the models of a device share when they are equal; held once
 *
 * Rules that hold for every function here
 *   Errors   functions that can fail return a barkrt_status and fill the caller's barkrt_error (may
 * be NULL). Nothing else reports failure; nothing prints, exits or aborts. Output   output pointers
 * are written on every path: the value on success, NULL or zero on failure. Strings  are UTF-8.
 * Returned strings live as long as the handle that gave them. Structs  with a `struct_size` field
 * are filled by their _init function, which sets it. They only grow at the end; an older caller's
 * shorter struct is accepted and the rest takes its default. Free     every _free accepts NULL.
 * Handles may be freed in any order: a model's memory goes when the model and all sessions and
 * voices made from it are freed. Threads  functions without a thread remark may be called from any
 * thread at any time.
 *
 * Example
 *   barkrt_model_params mp;  barkrt_model_params_init(&mp);  mp.path = "bark-small.gguf";
 *   barkrt_model *model;     if (barkrt_model_load(&mp, &model, &err)) fail(err.text);
 *   barkrt_session *session; if (barkrt_session_new(model, NULL, &session, &err)) fail(err.text);
 *   barkrt_request rq;       barkrt_request_init(model, BARKRT_RULES_SUNO, &rq);
 *   rq.text = "Hello!";      rq.text_bytes = 6;
 *   barkrt_synthesize(session, &rq, on_event, user, NULL, &err);
 */
#ifndef BARKRT_H
#define BARKRT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(BARKRT_EXPORT) && defined(__GNUC__)
#define BARKRT_API __attribute__((visibility("default")))
#else
#define BARKRT_API
#endif

/* Compare with barkrt_abi_version() at start: a binding built against another number must not go
 * on. */
#define BARKRT_ABI_VERSION 3u

/* ---- status
 * ---------------------------------------------------------------------------------------- */

/* What the caller can do about it. */
typedef enum barkrt_status {
  BARKRT_OK = 0,
  BARKRT_INVALID_ARGUMENT = 1, /* the request is wrong: change it */
  BARKRT_NOT_FOUND = 2,        /* no such file, voice or device */
  BARKRT_BAD_MODEL = 3,        /* the model file is damaged or not a Bark model */
  BARKRT_OUT_OF_MEMORY = 4,    /* the text names the device: free something, then try again */
  BARKRT_DEVICE = 5,           /* the device failed */
  BARKRT_UNSUPPORTED = 6,      /* well formed, but this build cannot do it */
  BARKRT_BUSY = 7,             /* the session is already running a request */
  BARKRT_CANCELLED = 8, /* the cancel flag was set, or the sink or progress callback said stop */
  BARKRT_INTERNAL = 9   /* a bug: please report the text */
} barkrt_status;

/* Owned by the caller; written by a failing call only. */
typedef struct barkrt_error {
  int32_t code;    /* a barkrt_status */
  char text[1020]; /* one sentence, NUL-terminated: what went wrong, with which value, what to do */
} barkrt_error;

BARKRT_API uint32_t barkrt_abi_version(void);
/* "0.1.0". Static storage. */
BARKRT_API const char* barkrt_version(void);
/* "INVALID_ARGUMENT" and so on; "UNKNOWN" for a number that is no status. Static storage. */
BARKRT_API const char* barkrt_status_name(int32_t status);

typedef enum barkrt_log_level {
  BARKRT_LOG_DEBUG = 0,
  BARKRT_LOG_INFO = 1,
  BARKRT_LOG_WARN = 2
} barkrt_log_level;
/* `text` is valid during the call only. Called from any thread, possibly several at once. */
typedef void (*barkrt_log_fn)(void* user, int32_t level, const char* text);
/* Sets the process's log sink; NULL (the default) discards. Set it before other calls: a call
 * already running may still use the previous sink. */
BARKRT_API void barkrt_set_log(barkrt_log_fn fn, void* user);

/* ---- devices
 * --------------------------------------------------------------------------------------- */

typedef struct barkrt_device {
  uint32_t struct_size;
  char id[32];         /* "cpu", "cuda:0": stable within a process */
  char kind[16];       /* "cpu", "cuda" */
  char name[128];      /* the maker's name of the part */
  char detail[256];    /* which code path was chosen, and why */
  int32_t n_cores;     /* processors usable by this process (cpu) or multiprocessors (cuda) */
  int64_t total_bytes; /* its memory; for the CPU the smallest limit that holds for the process */
} barkrt_device;

/* At least 1: device 0 is the CPU, those behind it are CUDA's. */
BARKRT_API int32_t barkrt_device_count(void);
/* Fills *out, whose struct_size the caller has set to sizeof(barkrt_device), and leaves the device
 * alone: a CUDA device gets its context, hundreds of megabytes, when something else first concerns
 * it. NOT_FOUND for an index out of range. */
BARKRT_API int32_t barkrt_device_describe(int32_t index, barkrt_device* out, barkrt_error* err);
/* Bytes free and in total on the device, as its driver or the kernel reports them now. DEVICE once
 * the device is lost: it then fails every call until the process ends, its detail says why, and
 * other devices go on. */
BARKRT_API int32_t barkrt_device_memory(int32_t index, int64_t* free_bytes, int64_t* total_bytes,
                                        barkrt_error* err);

/* ---- memory
 * ---------------------------------------------------------------------------------------- */

/* Live bytes by category, exact: they come from the allocator. peak_bytes is the highest sum so
 * far. */
typedef struct barkrt_memory {
  int64_t weights_bytes;     /* tensors: mapped from the file on the CPU, allocated elsewhere */
  int64_t tables_bytes;      /* vocabulary index, voices and other host tables */
  int64_t kv_bytes;          /* key-value cache */
  int64_t activations_bytes; /* working memory of sessions, and of a model's shared steps */
  int64_t total_bytes;
  int64_t peak_bytes;
  int64_t shared_bytes; /* of components; contained in weights_bytes */
} barkrt_memory;

/* Fills *out with everything that lives on the device in this process; components count once.
 * NOT_FOUND for an index out of range. */
BARKRT_API int32_t barkrt_live(int32_t device, barkrt_memory* out, barkrt_error* err);
/* Gives freed memory back to the system. *returned_bytes (may be NULL) is by how much the process
 * shrank on the device: its resident memory without mapped files on the CPU. Takes milliseconds.
 * NOT_FOUND for an index out of range. */
BARKRT_API int32_t barkrt_trim(int32_t device, int64_t* returned_bytes, barkrt_error* err);

/* Tensors that models on one device share when they are equal; held until the last of these models
 * goes. */
typedef struct barkrt_component {
  char digest[72]; /* 64 hexadecimal digits, NUL-terminated */
  int64_t bytes;
} barkrt_component;

/* ---- model
 * ----------------------------------------------------------------------------------------- */

typedef struct barkrt_model barkrt_model;

/* done and total in bytes. Called on the loading thread between tensors; non-zero stops the load
 * (CANCELLED). */
typedef int32_t (*barkrt_load_progress_fn)(void* user, int64_t done, int64_t total);

/* Exactly one of `path` and `data` is set. */
typedef struct barkrt_model_params {
  uint32_t struct_size;
  int32_t device; /* index; default 0 */
  int32_t
      n_threads; /* CPU threads, 0 (default) for one per usable core; results do not depend on it */
  int32_t reserved; /* 0 */
  const char* path; /* a GGUF file; mapped, must not change while the model, or one that shares its
                       components, lives */
  const void* data; /* or a GGUF image, 64-byte aligned, used in place: it must outlive the model */
  int64_t data_bytes;
  barkrt_load_progress_fn progress; /* NULL for none */
  void* progress_user;
} barkrt_model_params;

BARKRT_API void barkrt_model_params_init(barkrt_model_params* params);

typedef struct barkrt_session_params barkrt_session_params;

/* What loading the model and creating one session would take, in bytes, read from the file's header
 * alone: nothing is allocated on the device. NULL `session` means default session parameters.
 * Writes at most `capacity` of the components that the model would share, and the full count to
 * *n_components; their bytes are contained in *model_out, whether another model has them or not.
 * Output pointers may be NULL. BAD_MODEL, NOT_FOUND, UNSUPPORTED as barkrt_model_load. */
BARKRT_API int32_t barkrt_model_estimate(const barkrt_model_params* params,
                                         const barkrt_session_params* session,
                                         barkrt_memory* model_out, barkrt_memory* session_out,
                                         barkrt_component* components, int64_t capacity,
                                         int64_t* n_components, barkrt_error* err);

/* Maps and validates the file; *out is owned by the caller (barkrt_model_free). Blocking. */
BARKRT_API int32_t barkrt_model_load(const barkrt_model_params* params, barkrt_model** out,
                                     barkrt_error* err);

/* Facts of a loaded model; the strings live as long as the model. */
typedef struct barkrt_model_facts {
  uint32_t struct_size;
  int32_t sample_rate_hz;
  int32_t hop_length;          /* samples per codec frame */
  int32_t max_text_tokens;     /* longer texts are cut: split them first */
  int32_t max_semantic_tokens; /* per generation */
  int32_t n_voices;            /* voices the file carries */
  int32_t trained;             /* 0: random weights, it makes noise */
  int32_t n_coarse_codebooks;
  int32_t n_fine_codebooks;
  int32_t reserved;
  double semantic_rate_hz;
  double coarse_rate_hz; /* frames per second */
  const char* name;
} barkrt_model_facts;

/* Fills *out, whose struct_size the caller has set. */
BARKRT_API int32_t barkrt_model_describe(const barkrt_model* model, barkrt_model_facts* out,
                                         barkrt_error* err);
/* Name of voice `index` of the file (0 .. n_voices-1); NULL out of range. */
BARKRT_API const char* barkrt_model_voice_name(const barkrt_model* model, int32_t index);
BARKRT_API int32_t barkrt_model_memory(const barkrt_model* model, barkrt_memory* out,
                                       barkrt_error* err);
/* Writes at most `capacity` of the model's components, and the full count to *n_components. A file
 * whose component differs from a live one with its digest has none: it is warned of in the log. */
BARKRT_API int32_t barkrt_model_components(const barkrt_model* model, barkrt_component* components,
                                           int64_t capacity, int64_t* n_components,
                                           barkrt_error* err);
BARKRT_API void barkrt_model_free(barkrt_model* model);

/* Token ids of `text` as the tokenizer gives them: no offset, no cut, no padding, no special tokens
 * added. Writes at most `capacity` ids and the full count to *n_ids (so capacity 0 counts). `rules`
 * decides on normalisation. INVALID_ARGUMENT for invalid UTF-8, naming the byte. */
BARKRT_API int32_t barkrt_model_tokenize(const barkrt_model* model, int32_t rules, const char* text,
                                         int64_t text_bytes, int32_t* ids, int64_t capacity,
                                         int64_t* n_ids, barkrt_error* err);

/* ---- voice
 * ----------------------------------------------------------------------------------------- */

typedef struct barkrt_voice barkrt_voice;

/* A history prompt as arrays, row-major, borrowed for the call. */
typedef struct barkrt_voice_arrays {
  uint32_t struct_size;
  int32_t n_coarse_codebooks;
  int32_t n_fine_codebooks;
  int32_t reserved;
  const int32_t* semantic; /* (n_semantic) */
  int64_t n_semantic;
  const int32_t* coarse; /* (n_coarse_codebooks, n_coarse_frames), codes without offset */
  int64_t n_coarse_frames;
  const int32_t* fine; /* (n_fine_codebooks, n_fine_frames) */
  int64_t n_fine_frames;
} barkrt_voice_arrays;

/* The voice `name` that the model file carries. NOT_FOUND names the voices there are. Caller frees
 * *out. */
BARKRT_API int32_t barkrt_voice_load(const barkrt_model* model, const char* name,
                                     barkrt_voice** out, barkrt_error* err);
/* A voice from arrays, copied. INVALID_ARGUMENT when a code is out of range or a shape is wrong;
 * the text names the lengths. Caller frees *out. */
BARKRT_API int32_t barkrt_voice_from_arrays(const barkrt_model* model,
                                            const barkrt_voice_arrays* arrays, barkrt_voice** out,
                                            barkrt_error* err);
BARKRT_API void barkrt_voice_free(barkrt_voice* voice);

/* ---- session
 * --------------------------------------------------------------------------------------- */

typedef struct barkrt_session barkrt_session;

/* F32 for parity with the references; I8 with a scale per head and position, a little over half of
 * F16. */
typedef enum barkrt_kv_type {
  BARKRT_KV_F16 = 0,
  BARKRT_KV_F32 = 1,
  BARKRT_KV_I8 = 2
} barkrt_kv_type;

struct barkrt_session_params {
  uint32_t struct_size;
  int32_t kv_type; /* a barkrt_kv_type; default F16 */
};

BARKRT_API void barkrt_session_params_init(barkrt_session_params* params);
/* Allocates everything a request will need; synthesize allocates nothing on the device. NULL
 * params: defaults. OUT_OF_MEMORY names the device and the bytes. Caller frees *out. */
BARKRT_API int32_t barkrt_session_new(barkrt_model* model, const barkrt_session_params* params,
                                      barkrt_session** out, barkrt_error* err);
BARKRT_API int32_t barkrt_session_memory(const barkrt_session* session, barkrt_memory* out,
                                         barkrt_error* err);
/* Must not be called while a synthesize on it runs. */
BARKRT_API void barkrt_session_free(barkrt_session* session);

/* ---- cancel
 * ---------------------------------------------------------------------------------------- */

typedef struct barkrt_cancel barkrt_cancel;

/* NULL only when out of memory. */
BARKRT_API barkrt_cancel* barkrt_cancel_new(void);
/* Sticky: every running and later request that watches it ends with CANCELLED within one decode
 * step or codec chunk. Any thread, any number of times; must not race with barkrt_cancel_free. NULL
 * is ignored. */
BARKRT_API void barkrt_cancel_trigger(barkrt_cancel* cancel);
BARKRT_API void barkrt_cancel_free(barkrt_cancel* cancel);

/* ---- request
 * --------------------------------------------------------------------------------------- */

/* Whose procedure is followed where suno-ai/bark and Hugging Face transformers differ
 * (native/DESIGN.md lists it). */
typedef enum barkrt_rules { BARKRT_RULES_SUNO = 0, BARKRT_RULES_HF = 1 } barkrt_rules;

typedef enum barkrt_stage {
  BARKRT_STAGE_SEMANTIC = 0,
  BARKRT_STAGE_COARSE = 1,
  BARKRT_STAGE_FINE = 2,
  BARKRT_STAGE_CODEC = 3,
  BARKRT_STAGE_COUNT = 4
} barkrt_stage;

typedef struct barkrt_sampling {
  float temperature; /* 0 is greedy; must be finite and >= 0 */
  float top_p;       /* (0, 1]; 1 is off */
  int32_t top_k;     /* 0 is off */
  float min_eos_p; /* semantic only: stop once p(EOS) reaches it (rules decide how p is taken); 0 is
                      off */
} barkrt_sampling;

enum { BARKRT_WANT_TOKENS = 1 };

typedef struct barkrt_request {
  uint32_t struct_size;
  int32_t rules;    /* a barkrt_rules */
  const char* text; /* borrowed for the call */
  int64_t text_bytes;
  const barkrt_voice*
      voice; /* NULL for none; borrowed for the call; must come from the same model */
  const barkrt_cancel* cancel; /* NULL for none; borrowed for the call */
  uint64_t seed; /* the whole random stream: same seed, model and parameters give the same audio */
  barkrt_sampling semantic, coarse, fine;
  int32_t max_semantic_tokens; /* 0: the model's own limit */
  uint32_t want;               /* BARKRT_WANT_TOKENS: the sink also receives each stage's tokens */
  int32_t fine_chunk; /* 0 (default): the fine stage's windows are those of the references, and
                         audio comes when no later window can change it. Else so many new frames at
                         a time, so that audio comes sooner, and differs: see native/DESIGN.md */
  int32_t reserved;   /* 0 */
} barkrt_request;

/* Fills *request with the defaults of `rules` for this model. */
BARKRT_API int32_t barkrt_request_init(const barkrt_model* model, int32_t rules,
                                       barkrt_request* request, barkrt_error* err);

typedef enum barkrt_event_kind {
  BARKRT_EVENT_PROGRESS = 0,
  BARKRT_EVENT_TOKENS = 1,
  BARKRT_EVENT_AUDIO = 2
} barkrt_event_kind;

/* All pointers are valid during the sink call only. */
typedef struct barkrt_event {
  int32_t kind;  /* a barkrt_event_kind */
  int32_t stage; /* a barkrt_stage */
  int64_t done;  /* PROGRESS: steps done of total (tokens; fine: passes; codec: frames). total is a
                    bound */
  int64_t total;
  const int32_t* tokens; /* TOKENS: (rows, cols) row-major: semantic (1, n), coarse (2, T), fine (8,
                            T), no offsets */
  int64_t rows;
  int64_t cols;
  const float* pcm; /* AUDIO: mono, nominally -1..1, not clamped; consecutive calls are consecutive
                       samples */
  int64_t n_samples;
} barkrt_event;

/* Called on the thread that called barkrt_synthesize. Non-zero stops the request (CANCELLED). */
typedef int32_t (*barkrt_sink_fn)(void* user, const barkrt_event* event);

typedef struct barkrt_stats {
  uint32_t struct_size;
  int32_t n_text_tokens; /* before the cut at max_text_tokens */
  int32_t n_semantic;    /* tokens generated */
  int32_t n_coarse;      /* tokens generated, all codebooks */
  int32_t n_frames;
  int32_t text_truncated; /* 1 when the text was cut */
  int64_t n_samples;
  double stage_ms[BARKRT_STAGE_COUNT];
} barkrt_stats;

/* Runs text -> semantic -> coarse -> fine -> codec, blocking. `sink` may be NULL. `stats` may be
 * NULL, else its struct_size is set by the caller and it is filled on success. BUSY if the session
 * already runs. After a failure or a cancel the session can be used again. An end token as the
 * first token is OK with zero samples. */
BARKRT_API int32_t barkrt_synthesize(barkrt_session* session, const barkrt_request* request,
                                     barkrt_sink_fn sink, void* user, barkrt_stats* stats,
                                     barkrt_error* err);

/* ---- account
 * --------------------------------------------------------------------------------------- */

/* What the allocator holds for one model: weights, tables, its sessions and its voices, without
 * components, which other models may hold too. May outlive them all. */
typedef struct barkrt_account barkrt_account;

/* A handle on the model's account, freed by the caller; any number of them. NULL for NULL and when
 * out of memory. */
BARKRT_API barkrt_account* barkrt_model_account(const barkrt_model* model);
/* Fills *out. All zero but peak_bytes once the model and its sessions and voices are freed: it
 * stays so, for nothing can be made from the model any more. */
BARKRT_API int32_t barkrt_account_live(const barkrt_account* account, barkrt_memory* out,
                                       barkrt_error* err);
BARKRT_API void barkrt_account_free(barkrt_account* account);

/* Models, sessions, voices, cancel tokens and accounts not yet freed: for leak tests. */
BARKRT_API int64_t barkrt_live_handles(void);

#ifdef __cplusplus
}
#endif
#endif /* BARKRT_H */
