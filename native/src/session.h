// session.h: the memory of one running request, and the path from text to audio.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "memory.h"
#include "model.h"
#include "stages.h"

namespace barkrt {

struct Request {
  Rules rules = Rules::Suno;
  std::string_view text;
  const Voice* voice = nullptr;  // NULL: none
  const std::atomic<bool>* cancel = nullptr;
  uint64_t seed = 0;
  Sampling semantic, coarse, fine;
  int64_t max_semantic_tokens = 0;  // 0: the model's limit, which also bounds a larger value
  int64_t fine_chunk = 0;           // frames; 0: the references' windows
  bool want_tokens = false;
};

// Where a request's output goes; each returns false to stop it. Members may be empty.
struct Sink {
  std::function<bool(Stage stage, int64_t done, int64_t total)> progress;
  std::function<bool(Stage stage, const int32_t* tokens, int64_t rows, int64_t cols)> tokens;
  std::function<bool(const float* pcm, int64_t n_samples)> audio;
};

struct Stats {
  int64_t n_text_tokens = 0;  // before the cut
  bool text_truncated = false;
  int64_t n_semantic = 0;
  int64_t n_coarse = 0;
  int64_t n_frames = 0;
  int64_t n_samples = 0;
  double stage_ms[kStageCount] = {};
};

// One request at a time; all device memory is allocated here.
class Session {
 public:
  // OutOfMemory names device and bytes.
  Session(std::shared_ptr<const Model> model, DType kv_type);

  // Bytes the constructor will count, by the same plan.
  struct Bytes {
    int64_t kv = 0;
    int64_t activations = 0;
  };
  static Bytes estimate(const Config& config, DType kv_type);

  // Runs all stages. Busy when one already runs, else the errors of the stages. The session can be
  // used again after any of them.
  Stats synthesize(const Request& request, const Sink& sink);

  // A run for calling stages one by one: tests feed them golden inputs.
  StageRun run(const Request& request) const;

  const Model& model() const { return *model_; }
  const MemoryAccount& account() const { return account_; }

 private:
  std::shared_ptr<const Model> model_;
  MemoryAccount account_{model_->family()};
  SessionMemory memory_;
  Buffer kv_;
  Buffer activations_;
  std::atomic<bool> busy_{false};
};

}  // namespace barkrt
