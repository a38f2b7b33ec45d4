// fine.cc: the first codebooks to all of them, in overlapping windows.
#include <algorithm>

#include "error.h"
#include "stages.h"

namespace barkrt {
namespace {

// Codes of voice and text, frame by frame, one row per codebook.
struct FineRows {
  int64_t n = 0;             // frames, with padding
  std::vector<int32_t> ids;  // (n_fine_codebook, n)
};

FineRows fine_rows(const Config& config, const Voice* voice, int64_t n_history,
                   const Codes& coarse) {
  const FineConfig& c = config.fine;
  FineRows rows;
  rows.n = std::max(c.input_length, n_history + coarse.n_frames);
  rows.ids.assign(c.n_fine_codebook * rows.n, static_cast<int32_t>(config.codebook_size));
  for (int64_t q = 0; q < c.n_fine_codebook; ++q) {
    int32_t* row = rows.ids.data() + q * rows.n;
    for (int64_t t = 0; t < n_history; ++t)
      row[t] = voice->fine.at(q, voice->fine.n_frames - n_history + t);
    if (q >= coarse.n_codebook) continue;
    for (int64_t t = 0; t < coarse.n_frames; ++t) row[n_history + t] = coarse.at(q, t);
  }
  return rows;
}

// Predicts codebook q of a window from row `relative` on, in place: the codebooks after it see the
// result. ids is (n_fine_codebook, input_length).
void predict_codebook(const StageRun& run, std::vector<int32_t>& ids, int64_t q, int64_t relative,
                      int64_t pass, const Sampling& sampling) {
  const Config& config = run.model.config();
  const GptWeights& weights = run.model.weights().fine;
  Backend& backend = run.model.backend();
  const StageMemory& memory = run.memory.fine;
  const int64_t n = config.fine.input_length;
  if (relative >= n) return;
  std::vector<int32_t> slots(n, 0), positions(n);
  for (int64_t t = 0; t < n; ++t) positions[t] = static_cast<int32_t>(t);

  Engine::Turn turn(run.model.engine(), run.ticket);
  // The codebook predicted is part of its own input: unknown, or an earlier window's prediction.
  gpt_forward(backend, weights, memory.scratch, {memory.kv},
              {ids.data(), weights.wte.data(), q + 1}, {n, slots.data(), positions.data()}, false,
              relative, [&turn] { turn.pass_on(); });
  const int64_t count = n - relative;
  const ConstView h = gpt_final_norm(backend, weights, memory.scratch, relative, count);
  const View logits = view(memory.scratch.wide, count, config.codebook_size);
  const Matrix& head = weights.lm_head[q - config.fine.n_given];
  backend.linear(logits, h, head.slice(0, config.codebook_size), nullptr, {});

  std::vector<SampleParams> params(count);
  for (int64_t r = 0; r < count; ++r)
    params[r] = run.params(Stage::Fine, sampling, pass, relative + r);
  backend.sample(ids.data() + q * n + relative, logits, params.data());
}

// What the references allow in this stage: a temperature, and in transformers 1 means the argmax.
Sampling fine_sampling(const StageRun& run, const Sampling& sampling) {
  Sampling s;
  s.temperature = sampling.temperature;
  if (run.rules == Rules::Hf && s.temperature == 1.0f) s.temperature = 0;
  return s;
}

}  // namespace

std::vector<FineWindow> fine_windows(const FineConfig& c, int64_t n_history, int64_t n_frames) {
  const int64_t hop = c.history_length;
  const int64_t n = std::max(c.input_length, n_history + n_frames);
  const int64_t beyond = n_frames - (c.input_length - n_history);
  const int64_t count = (beyond > 0 ? (beyond + hop - 1) / hop : 0) + 1;
  std::vector<FineWindow> windows;
  for (int64_t i = 0; i < count; ++i) {
    FineWindow w;
    w.start = std::min(hop * i, n - c.input_length);
    w.fill = std::min(n_history + hop * i, n - hop);
    w.relative = w.fill - w.start;
    windows.push_back(w);
  }
  return windows;
}

Codes run_fine(const StageRun& run, const Codes& coarse, const Sampling& sampling) {
  const Config& config = run.model.config();
  const FineConfig& c = config.fine;
  Codes codes{c.n_fine_codebook, coarse.n_frames, {}};
  if (coarse.n_frames == 0) return codes;
  const int64_t n_history = run.voice ? std::min(c.history_length, run.voice->fine.n_frames) : 0;
  FineRows rows = fine_rows(config, run.voice, n_history, coarse);
  const std::vector<FineWindow> windows = fine_windows(c, n_history, coarse.n_frames);
  const int64_t n_predicted = c.n_fine_codebook - coarse.n_codebook;
  const int64_t n_passes = static_cast<int64_t>(windows.size()) * n_predicted;
  const Sampling sampled = fine_sampling(run, sampling);

  const int64_t n = c.input_length;
  std::vector<int32_t> window(c.n_fine_codebook * n);
  int64_t pass = 0;
  for (const FineWindow& w : windows) {
    for (int64_t q = 0; q < c.n_fine_codebook; ++q)
      std::copy_n(rows.ids.data() + q * rows.n + w.start, n, window.data() + q * n);
    for (int64_t q = coarse.n_codebook; q < c.n_fine_codebook; ++q) {
      predict_codebook(run, window, q, w.relative, pass, sampled);
      run.report(Stage::Fine, ++pass, n_passes);
    }
    for (int64_t q = coarse.n_codebook; q < c.n_fine_codebook; ++q)
      std::copy_n(window.data() + q * n + w.relative, n - w.relative,
                  rows.ids.data() + q * rows.n + w.fill);
  }
  for (int64_t q = 0; q < c.n_fine_codebook; ++q) {
    const int32_t* row = rows.ids.data() + q * rows.n + n_history;
    codes.ids.insert(codes.ids.end(), row, row + coarse.n_frames);
  }
  // Windows whose history is over half of them leave frames between them out.
  for (const int32_t id : codes.ids)
    if (id >= config.codebook_size)
      fail(Status::Unsupported,
           "the model's fine windows of %lld frames do not cover a voice of %lld frames and a clip "
           "of %lld: use a shorter voice",
           static_cast<long long>(n), static_cast<long long>(n_history),
           static_cast<long long>(coarse.n_frames));
  return codes;
}

}  // namespace barkrt
