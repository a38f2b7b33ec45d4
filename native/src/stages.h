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

// Everything a request needs, placed on the device. No two stages run at the same time, so they
// share one activation area, and one cache, which the coarse stage keeps to its end. What the codec
// carries from chunk to chunk lies apart.
struct SessionMemory {
  StageMemory semantic, coarse, fine;
  CodecPlan codec;
  std::byte* codec_work = nullptr;
  std::byte* codec_carry = nullptr;

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

// The codes in coarse tokens with offsets, codebooks interleaved.
Codes coarse_codes(const Config& config, const std::vector<int32_t>& tokens);

// The coarse stage of one clip, window by window. Between two windows other stages may use its
// activations.
class CoarseRun {
 public:
  CoarseRun(const StageRun& run, const std::vector<int32_t>& semantic, const Sampling& sampling);

  int64_t n_frames() const;  // of the whole clip
  bool done() const { return done_ == n_steps_; }
  // Generates until there are n_frames frames, or all.
  void advance(int64_t n_frames);
  // With offsets, codebooks interleaved; a multiple of n_codebook when done.
  std::vector<int32_t> tokens() const { return {tokens_.begin() + n_history_, tokens_.end()}; }

 private:
  void window(Generation& generation);

  const StageRun& run_;
  const Sampling sampling_;
  int64_t n_semantic_history_ = 0;
  int64_t n_history_ = 0;          // coarse tokens of the voice
  std::vector<int32_t> semantic_;  // the voice's and the clip's
  std::vector<int32_t> tokens_;    // the same
  int64_t n_steps_ = 0;
  int64_t done_ = 0;          // steps
  std::vector<int32_t> fed_;  // tokens in the cache
};

// All of it, for tests.
std::vector<int32_t> run_coarse(const StageRun& run, const std::vector<int32_t>& semantic,
                                const Sampling& sampling);

// --- fine ---

struct FineWindow {
  int64_t start = 0;     // first row of the window
  int64_t fill = 0;      // first row that is predicted
  int64_t relative = 0;  // fill - start
  int64_t n_rows = 0;
};
// Windows over n_history rows of voice and n_frames rows of text, as the references have them.
std::vector<FineWindow> fine_windows(const FineConfig& config, int64_t n_history, int64_t n_frames);
// Windows of a clip that is heard before it is made: `chunk` new frames each, after kFineLeft rows
// that are done and before kFineRight that the next window predicts again.
constexpr int64_t kFineLeft = 128;
constexpr int64_t kFineRight = 16;
std::vector<FineWindow> fine_chunks(const FineConfig& config, int64_t n_history, int64_t n_frames,
                                    int64_t chunk);

// The fine stage of one clip, window by window; the coarse codebooks are copied. Between two
// windows other stages may use its memory.
class FineRun {
 public:
  // Of `sampling` only the temperature counts. chunk 0: the references' windows.
  FineRun(const StageRun& run, int64_t n_frames, const Sampling& sampling, int64_t chunk);

  bool done() const { return next_ == windows_.size(); }
  bool last() const { return next_ + 1 >= windows_.size(); }  // window is next, or none
  // Coarse frames that the next window reads.
  int64_t needs() const;
  // Runs the next window, if there is one. coarse has at least that many frames.
  void advance(const Codes& coarse);
  // Frames that no later window changes.
  int64_t ready() const;
  // All codebooks of frames first .. first + n_frames - 1.
  Codes codes(int64_t first, int64_t n_frames) const;

 private:
  int32_t* row(int64_t q) { return ids_.data() + q * n_rows_; }
  const int32_t* row(int64_t q) const { return ids_.data() + q * n_rows_; }

  const StageRun& run_;
  const Sampling sampling_;
  int64_t n_frames_ = 0;
  int64_t n_history_ = 0;     // frames of the voice in front
  int64_t n_rows_ = 0;        // with history and padding
  std::vector<int32_t> ids_;  // (n_fine_codebook, n_rows), frame by frame
  std::vector<FineWindow> windows_;
  size_t next_ = 0;
};

// All of it, in the references' windows, for tests.
Codes run_fine(const StageRun& run, const Codes& coarse, const Sampling& sampling);

// --- codec ---

using PcmSink = std::function<void(const float* pcm, int64_t n_samples)>;

// The codec stage of one clip. Between two calls other stages may use its work memory.
class CodecRun {
 public:
  CodecRun(const StageRun& run, int64_t n_frames);

  int64_t done() const { return done_; }  // frames
  // How many more frames to decode when `ready` are known: whole chunks, or the rest of the clip.
  int64_t wants(int64_t ready) const;
  // The next frames. pcm: consecutive samples, valid during the call.
  void decode(const Codes& codes, const PcmSink& sink);

 private:
  const StageRun& run_;
  int64_t n_frames_ = 0;
  int64_t done_ = 0;
  CodecDecoder decoder_;
  std::vector<int32_t> ids_;
  std::vector<float> pcm_;
};

// All of it, for tests.
void run_codec(const StageRun& run, const Codes& codes, const PcmSink& sink);

}  // namespace barkrt
