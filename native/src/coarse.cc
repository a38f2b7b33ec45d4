// coarse.cc: semantic tokens to the first codebooks, in sliding windows.
#include <algorithm>
#include <cmath>

#include "error.h"
#include "stages.h"

namespace barkrt {
namespace {

// Both references drop the voice's last two coarse tokens, whatever the number of codebooks: one
// frame of Bark's two, which aligns speech and voice in time.
constexpr int64_t kDroppedHistory = 2;

// Python's round(): half to even, under the default rounding mode.
int64_t round_half_even(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

// Python's v[-n:], which for n = 0 keeps everything.
std::vector<int32_t> tail(const std::vector<int32_t>& v, int64_t n) {
  const int64_t size = static_cast<int64_t>(v.size());
  return {n == 0 || n >= size ? v.begin() : v.end() - n, v.end()};
}

int64_t max_semantic_history(const Config& config) {
  return static_cast<int64_t>(
      std::floor(static_cast<double>(config.coarse.max_history) / coarse_ratio(config)));
}

// How many tokens of the prompt need not be fed. In a causal stage the keys and values of a
// position depend on the tokens up to it alone, so those of a common beginning can stay; the last
// token is always fed, for its logits. `fed` are the tokens in the cache.
int64_t in_cache(const StageRun& run, const std::vector<int32_t>& fed,
                 const std::vector<int32_t>& prompt) {
  if (!run.coarse_cache_reuse) return 0;
  return std::mismatch(prompt.begin(), prompt.end() - 1, fed.begin(), fed.end()).first -
         prompt.begin();
}

}  // namespace

double coarse_ratio(const Config& config) {
  return config.coarse.rate_hz / config.semantic.rate_hz *
         static_cast<double>(config.coarse.n_codebook);
}

int64_t coarse_steps(const Config& config, Rules rules, int64_t n_semantic) {
  const double ratio = coarse_ratio(config);
  const int64_t n = config.coarse.n_codebook;
  if (rules == Rules::Suno)
    return round_half_even(
        std::floor(static_cast<double>(n_semantic) * ratio / static_cast<double>(n)) *
        static_cast<double>(n));
  // transformers computes this on a float32 tensor.
  const float frames = std::floor(static_cast<float>(n_semantic) * static_cast<float>(ratio) /
                                  static_cast<float>(n));
  return round_half_even(static_cast<double>(frames * static_cast<float>(n)));
}

CoarseHistory coarse_history(const Config& config, const Voice* voice) {
  if (!voice) return {};
  const Codes& codes = voice->coarse;
  std::vector<int32_t> flat;
  flat.reserve(codes.ids.size());
  for (int64_t t = 0; t < codes.n_frames; ++t)
    for (int64_t k = 0; k < codes.n_codebook; ++k)
      flat.push_back(static_cast<int32_t>(config.semantic.vocab_size + k * config.codebook_size +
                                          codes.at(k, t)));

  const double ratio = coarse_ratio(config);
  const int64_t n_voice = static_cast<int64_t>(voice->semantic.size());
  const int64_t n_semantic =
      std::min({max_semantic_history(config), n_voice - n_voice % 2,
                static_cast<int64_t>(std::floor(static_cast<double>(flat.size()) / ratio))});
  const int64_t n_coarse = round_half_even(static_cast<double>(n_semantic) * ratio);
  CoarseHistory history{tail(voice->semantic, n_semantic), tail(flat, n_coarse)};
  const int64_t kept = static_cast<int64_t>(history.coarse.size()) - kDroppedHistory;
  history.coarse.resize(std::max<int64_t>(kept, 0));
  return history;
}

std::vector<int32_t> coarse_prompt(const Config& config, const std::vector<int32_t>& semantic,
                                   int64_t n_semantic_history, const std::vector<int32_t>& coarse,
                                   int64_t done) {
  const CoarseConfig& c = config.coarse;
  const int64_t at =
      n_semantic_history + round_half_even(static_cast<double>(done) / coarse_ratio(config));
  const int64_t n = static_cast<int64_t>(semantic.size());
  const int64_t begin = std::min(n, std::max<int64_t>(0, at - max_semantic_history(config)));
  const int64_t end = std::min(n, begin + c.max_input_length);

  std::vector<int32_t> prompt(semantic.begin() + begin, semantic.begin() + end);
  prompt.resize(c.max_input_length, static_cast<int32_t>(c.semantic_pad_token));
  prompt.push_back(static_cast<int32_t>(c.infer_token));
  const std::vector<int32_t> history = tail(coarse, c.max_history);
  prompt.insert(prompt.end(), history.begin(), history.end());
  return prompt;
}

LegalIds coarse_legal(const Config& config, Rules rules, int64_t step) {
  const int64_t first = config.semantic.vocab_size, size = config.codebook_size;
  if (rules == Rules::Suno) return {first + step % config.coarse.n_codebook * size, size};
  // transformers alternates between two ranges whatever the number of codebooks, counted from the
  // start of each window, and leaves the second one open above.
  const int64_t in_window = step % config.coarse.window_length;
  if (in_window % 2 == 0) return {first, size};
  return {first + size, config.coarse.gpt.n_vocab_out - first - size};
}

CoarseRun::CoarseRun(const StageRun& run, const std::vector<int32_t>& semantic,
                     const Sampling& sampling)
    : run_(run), sampling_(sampling) {
  const Config& config = run.model.config();
  CoarseHistory history = coarse_history(config, run.voice);
  n_semantic_history_ = static_cast<int64_t>(history.semantic.size());
  n_history_ = static_cast<int64_t>(history.coarse.size());
  semantic_ = std::move(history.semantic);
  semantic_.insert(semantic_.end(), semantic.begin(), semantic.end());
  tokens_ = std::move(history.coarse);
  n_steps_ = coarse_steps(config, run.rules, static_cast<int64_t>(semantic.size()));
}

int64_t CoarseRun::n_frames() const { return n_steps_ / run_.model.config().coarse.n_codebook; }

void CoarseRun::advance(int64_t n_frames) {
  const int64_t end = std::min(n_frames * run_.model.config().coarse.n_codebook, n_steps_);
  if (done_ >= end) return;
  const StageMemory& memory = run_.memory.coarse;
  // Between two calls others must not expect this request in their steps.
  Generation generation(run_.model, Engine::CausalStage::Coarse, memory.scratch, memory.kv,
                        run_.ticket, static_cast<int64_t>(fed_.size()));
  while (done_ < end) window(generation);
}

void CoarseRun::window(Generation& generation) {
  const Config& config = run_.model.config();
  const GptWeights& weights = run_.model.weights().coarse;
  const Matrix& wte = weights.wte[0];
  std::vector<int32_t> prompt =
      coarse_prompt(config, semantic_, n_semantic_history_, tokens_, done_);
  const int64_t end = std::min(done_ + config.coarse.window_length, n_steps_);
  const int64_t n_positions = static_cast<int64_t>(prompt.size()) + end - done_ - 1;
  if (n_positions > run_.memory.coarse.kv.n_ctx)
    fail(Status::Unsupported,
         "a coarse window of %lld positions does not fit the model's context of %lld",
         static_cast<long long>(n_positions), static_cast<long long>(run_.memory.coarse.kv.n_ctx));
  const int64_t common = in_cache(run_, fed_, prompt);
  generation.rewind(common);
  fed_ = std::move(prompt);
  GptInput input{fed_.data() + common, &wte, 1};
  int64_t n_rows = static_cast<int64_t>(fed_.size()) - common;
  while (true) {
    const LegalIds legal = coarse_legal(config, run_.rules, done_);
    if (legal.count < 1)
      fail(Status::Unsupported,
           "the model has no ids for step %lld of the "
           "coarse stage under these rules",
           static_cast<long long>(done_));
    const Matrix head = weights.lm_head[0].slice(legal.first, legal.count);
    const int32_t token =
        static_cast<int32_t>(legal.first) +
        generation.next(input, n_rows, &head, 1, run_.params(Stage::Coarse, sampling_, done_, 0));
    tokens_.push_back(token);
    run_.report(Stage::Coarse, ++done_, n_steps_);
    if (done_ == end) break;
    fed_.push_back(token);
    input.ids = &fed_.back();
    n_rows = 1;
  }
}

std::vector<int32_t> run_coarse(const StageRun& run, const std::vector<int32_t>& semantic,
                                const Sampling& sampling) {
  CoarseRun coarse(run, semantic, sampling);
  coarse.advance(coarse.n_frames());
  return coarse.tokens();
}

Codes coarse_codes(const Config& config, const std::vector<int32_t>& tokens) {
  Codes codes;
  codes.n_codebook = config.coarse.n_codebook;
  codes.n_frames = static_cast<int64_t>(tokens.size()) / codes.n_codebook;
  codes.ids.resize(codes.n_codebook * codes.n_frames);
  // The remainder takes off the codebook's offset, and wraps what transformers lets through above.
  for (int64_t i = 0; i < codes.n_codebook * codes.n_frames; ++i)
    codes.ids[i % codes.n_codebook * codes.n_frames + i / codes.n_codebook] =
        static_cast<int32_t>((tokens[i] - config.semantic.vocab_size) % config.codebook_size);
  return codes;
}

}  // namespace barkrt
