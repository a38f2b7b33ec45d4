// stages.h: the stages between text ids and samples. Each runs alone on a session's memory; the
// pieces of procedure that need no weights are pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "codec.h"
#include "config.h"
#include "decode.h"
#include "engine.h"
#include "gpt.h"
#include "model.h"
#include "sampling.h"
#include "voice.h"

namespace barkrt {

// Values equal barkrt_stage.
enum class Stage : int32_t { Semantic = 0, Coarse = 1, Fine = 2, Codec = 3 };
constexpr int kStageCount = 4;

// A stage's sampling; see barkrt_sampling.
struct Sampling {
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  float min_eos_p = 0;
};

// Working memory of one transformer stage.
struct StageMemory {
  GptScratch scratch;
  KvCache kv;
};

// Everything a request needs, placed on the device. The stages run one after the other, so they
// share one cache and one activation area.
struct SessionMemory {
  StageMemory semantic, coarse, fine;
  CodecPlan codec;
  std::byte* codec_base = nullptr;

  // Sizes alone: what a session allocates and what an estimate reports.
  static SessionMemory plan(const Config& config, DType kv_type);
  int64_t kv_bytes() const;
  int64_t activation_bytes() const;
  void place(std::byte* kv, std::byte* activations);
};

// One request as its stages see it.
struct StageRun {
  StageRun(const Model& of_model, const SessionMemory& on_memory)
      : model(of_model), memory(on_memory) {}

  const Model& model;
  const SessionMemory& memory;
  Rules rules = Rules::Suno;
  uint64_t seed = 0;
  const Voice* voice = nullptr;  // NULL: none
  Ticket ticket;
  std::function<void(Stage stage, int64_t done, int64_t total)>
      progress;                    // may throw; may be empty
  bool coarse_cache_reuse = true;  // false only in tests: results are the same

  void report(Stage stage, int64_t done, int64_t total) const {
    if (progress) progress(stage, done, total);
  }
  // With the coin of (stage, step, row) drawn.
  SampleParams params(Stage stage, const Sampling& sampling, int64_t step, int64_t row) const;
};

// --- semantic ---

// Both rows of the merged prefix, (2, max_input_length + 1): text beside history, then the infer
// token beside nothing (-1). InvalidArgument for a text id outside the table.
std::vector<int32_t> semantic_prefix(const SemanticConfig& config,
                                     const std::vector<int32_t>& text_ids, const Voice* voice);
// Tokens without the end token, at most max_tokens (0: the model's limit).
std::vector<int32_t> run_semantic(const StageRun& run, const std::vector<int32_t>& text_ids,
                                  const Sampling& sampling, int64_t max_tokens);

// --- coarse ---

// Coarse tokens per semantic token.
double coarse_ratio(const Config& config);
// Tokens to generate for n_semantic semantic tokens: whole frames. The rules differ in precision.
int64_t coarse_steps(const Config& config, Rules rules, int64_t n_semantic);

// What a voice puts in front: semantic tokens, and coarse tokens with their offsets, interleaved.
struct CoarseHistory {
  std::vector<int32_t> semantic;
  std::vector<int32_t> coarse;
};
CoarseHistory coarse_history(const Config& config, const Voice* voice);

// Prompt of the window that starts after `done` tokens. semantic: history and this text's tokens;
// coarse: history and all tokens generated so far.
std::vector<int32_t> coarse_prompt(const Config& config, const std::vector<int32_t>& semantic,
                                   int64_t n_semantic_history, const std::vector<int32_t>& coarse,
                                   int64_t done);

// Ids that step `step` of the run may take: first and count.
struct LegalIds {
  int64_t first = 0;
  int64_t count = 0;
};
LegalIds coarse_legal(const Config& config, Rules rules, int64_t step);

// Coarse tokens with offsets, codebooks interleaved; a multiple of n_codebook.
std::vector<int32_t> run_coarse(const StageRun& run, const std::vector<int32_t>& semantic,
                                const Sampling& sampling);
// The codes in those tokens.
Codes coarse_codes(const Config& config, const std::vector<int32_t>& tokens);

// --- fine ---

struct FineWindow {
  int64_t start = 0;     // first row of the window
  int64_t fill = 0;      // first row that is predicted
  int64_t relative = 0;  // fill - start
};
// Windows over n_history rows of voice and n_frames rows of text.
std::vector<FineWindow> fine_windows(const FineConfig& config, int64_t n_history, int64_t n_frames);
// All fine codebooks; the coarse ones are copied. Of `sampling` only the temperature counts.
Codes run_fine(const StageRun& run, const Codes& coarse, const Sampling& sampling);

// --- codec ---

// pcm: consecutive samples, valid during the call.
void run_codec(const StageRun& run, const Codes& codes,
               const std::function<void(const float* pcm, int64_t n_samples)>& sink);

}  // namespace barkrt
