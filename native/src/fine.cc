// fine.cc: the first codebooks to all of them, in overlapping windows.
#include <algorithm>

#include "error.h"
#include "stages.h"

namespace barkrt {
namespace {

// Predicts codebook q of some rows of a window of n, in place: the codebooks after it see the
// result. ids is (n_fine_codebook, n).
void predict_codebook(const StageRun& run, std::vector<int32_t>& ids, int64_t n, int64_t q,
                      RowRange predicted, int64_t pass, const Sampling& sampling) {
  const Config& config = run.model.config();
  const GptWeights& weights = run.model.weights().fine;
  Backend& backend = run.model.backend();
  const StageMemory& memory = run.memory.fine;
  if (predicted.count() <= 0) return;
  std::vector<int32_t> slots(n, 0), positions(n);
  for (int64_t t = 0; t < n; ++t) positions[t] = static_cast<int32_t>(t);

  Engine::Turn turn(run.model.engine(), run.ticket);
  // The codebook predicted is part of its own input: unknown, or an earlier window's prediction.
  gpt_forward(backend, weights, memory.scratch, {memory.kv},
              {ids.data(), weights.wte.data(), q + 1}, {n, slots.data(), positions.data()}, false,
              predicted, [&turn] { turn.pass_on(); });
  const int64_t count = predicted.count();
  const ConstView h = gpt_final_norm(backend, weights, memory.scratch, predicted.first, count);
  const View logits = view(memory.scratch.wide, count, config.codebook_size);
  const Matrix& head = weights.lm_head[q - config.fine.n_given];
  backend.linear(logits, h, head.slice(0, config.codebook_size), nullptr, {});

  std::vector<SampleParams> params(count);
  for (int64_t r = 0; r < count; ++r)
    params[r] = run.params(Stage::Fine, sampling, pass, predicted.first + r);
  backend.sample(ids.data() + q * n + predicted.first, logits, params.data());
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
    w.n_rows = c.input_length;
    windows.push_back(w);
  }
  return windows;
}

std::vector<FineWindow> fine_chunks(const FineConfig& c, int64_t n_history, int64_t n_frames,
                                    int64_t chunk) {
  const int64_t left = std::min(kFineLeft, c.input_length / 4);
  const int64_t right = std::min(kFineRight, c.input_length / 4);
  chunk = std::min(chunk, c.input_length - left - right);
  const int64_t n = n_history + n_frames;
  std::vector<FineWindow> windows;
  for (int64_t fill = n_history, end = 0; end < n; fill += chunk) {
    end = std::min(n, fill + chunk + right);
    FineWindow w;
    w.start = std::max<int64_t>(0, fill - left);
    w.fill = fill;
    w.relative = w.fill - w.start;
    w.n_rows = end - w.start;
    windows.push_back(w);
  }
  return windows;
}

FineRun::FineRun(const StageRun& run, int64_t n_frames, const Sampling& sampling, int64_t chunk)
    : run_(run), sampling_(fine_sampling(run, sampling)), n_frames_(n_frames) {
  if (n_frames == 0) return;
  const Config& config = run.model.config();
  const FineConfig& c = config.fine;
  n_history_ = run.voice ? std::min(c.history_length, run.voice->fine.n_frames) : 0;
  windows_ = chunk > 0 ? fine_chunks(c, n_history_, n_frames, chunk)
                       : fine_windows(c, n_history_, n_frames);
  n_rows_ = std::max(c.input_length, n_history_ + n_frames);
  ids_.assign(c.n_fine_codebook * n_rows_, static_cast<int32_t>(config.codebook_size));
  for (int64_t q = 0; q < c.n_fine_codebook; ++q)
    for (int64_t t = 0; t < n_history_; ++t)
      row(q)[t] = run.voice->fine.at(q, run.voice->fine.n_frames - n_history_ + t);
}

int64_t FineRun::needs() const {
  const FineWindow& w = windows_[next_];
  return std::min(n_frames_, w.start + w.n_rows - n_history_);
}

int64_t FineRun::ready() const {
  if (done()) return n_frames_;
  return next_ == 0 ? 0 : std::min(n_frames_, windows_[next_].fill - n_history_);
}

void FineRun::advance(const Codes& coarse) {
  if (done()) return;
  const FineConfig& c = run_.model.config().fine;
  const FineWindow& w = windows_[next_];
  for (int64_t q = 0; q < coarse.n_codebook; ++q)
    for (int64_t t = 0; t < needs(); ++t) row(q)[n_history_ + t] = coarse.at(q, t);

  const int64_t n = w.n_rows;
  std::vector<int32_t> window(c.n_fine_codebook * n);
  for (int64_t q = 0; q < c.n_fine_codebook; ++q)
    std::copy_n(row(q) + w.start, n, window.data() + q * n);
  const int64_t n_predicted = c.n_fine_codebook - coarse.n_codebook;
  int64_t pass = static_cast<int64_t>(next_) * n_predicted;
  for (int64_t q = coarse.n_codebook; q < c.n_fine_codebook; ++q) {
    // Rows behind the clip are inputs of the next codebook, and of nothing after the last one.
    const bool ends = last() && q + 1 == c.n_fine_codebook;
    const int64_t end = ends ? std::min(n, n_history_ + n_frames_ - w.start) : n;
    predict_codebook(run_, window, n, q, {w.relative, end}, pass, sampling_);
    run_.report(Stage::Fine, ++pass, static_cast<int64_t>(windows_.size()) * n_predicted);
  }
  for (int64_t q = coarse.n_codebook; q < c.n_fine_codebook; ++q)
    std::copy_n(window.data() + q * n + w.relative, n - w.relative, row(q) + w.fill);
  ++next_;
}

Codes FineRun::codes(int64_t first, int64_t n_frames) const {
  const Config& config = run_.model.config();
  Codes codes{config.fine.n_fine_codebook, n_frames, {}};
  for (int64_t q = 0; q < codes.n_codebook; ++q) {
    const int32_t* from = row(q) + n_history_ + first;
    codes.ids.insert(codes.ids.end(), from, from + n_frames);
  }
  // Windows whose history is over half of them leave frames between them out.
  for (const int32_t id : codes.ids)
    if (id >= config.codebook_size)
      fail(Status::Unsupported,
           "the model's fine windows of %lld frames do not cover a voice of %lld frames and a clip "
           "of %lld: use a shorter voice",
           static_cast<long long>(config.fine.input_length), static_cast<long long>(n_history_),
           static_cast<long long>(n_frames_));
  return codes;
}

Codes run_fine(const StageRun& run, const Codes& coarse, const Sampling& sampling) {
  FineRun fine(run, coarse.n_frames, sampling, 0);
  while (!fine.done()) fine.advance(coarse);
  return fine.codes(0, coarse.n_frames);
}

}  // namespace barkrt
