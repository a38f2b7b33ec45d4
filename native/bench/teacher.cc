#include "teacher.h"

#include <algorithm>
#include <numeric>

#include "error.h"

namespace barkrt::bench {
namespace {

// Rows of logits, copied to the host.
std::vector<float> to_host(Backend& backend, ConstView logits) {
  std::vector<float> host(static_cast<size_t>(logits.rows * logits.cols));
  backend.download(host.data(), logits.data, logits.rows * logits.cols * 4);
  return host;
}

}  // namespace

void semantic_logits(const StageRun& run, const std::vector<int32_t>& text_ids,
                     const std::vector<int32_t>& tokens, const OnLogits& on_logits) {
  const SemanticConfig& config = run.model.config().semantic;
  const GptWeights& weights = run.model.weights().semantic;
  const Matrix& head = weights.lm_head[0];
  const Matrix legal[] = {head.slice(0, config.vocab_size), head.slice(config.eos_token, 1)};
  const Matrix tables[] = {weights.wte[0], weights.wte[0]};
  Sequence sequence(run.model.backend(), weights, run.memory.semantic.scratch,
                    run.memory.semantic.kv);
  const std::vector<int32_t> prefix = semantic_prefix(config, text_ids, nullptr);
  sequence.feed(prefix.data(), tables, 2, config.max_input_length + 1);
  for (size_t i = 0;; ++i) {
    const std::vector<float> row = to_host(run.model.backend(), sequence.logits(legal, 2));
    on_logits(row.data(), static_cast<int64_t>(row.size()));
    if (i == tokens.size() || static_cast<int64_t>(i) + 1 == config.max_tokens()) break;
    sequence.feed(&tokens[i], tables, 1, 1);
  }
}

void coarse_logits(const StageRun& run, const std::vector<int32_t>& semantic,
                   const std::vector<int32_t>& tokens, const OnLogits& on_logits) {
  const Config& config = run.model.config();
  const GptWeights& weights = run.model.weights().coarse;
  const Matrix& wte = weights.wte[0];
  Sequence sequence(run.model.backend(), weights, run.memory.coarse.scratch, run.memory.coarse.kv);
  const int64_t n = static_cast<int64_t>(tokens.size());
  for (int64_t done = 0; done < n;) {
    const std::vector<int32_t> before(tokens.begin(), tokens.begin() + done);
    const std::vector<int32_t> prompt = coarse_prompt(config, semantic, 0, before, done);
    const int64_t end = std::min(done + config.coarse.window_length, n);
    sequence.rewind(0);
    sequence.feed(prompt.data(), &wte, 1, static_cast<int64_t>(prompt.size()));
    while (true) {
      const LegalIds legal = coarse_legal(config, run.rules, done);
      const Matrix head = weights.lm_head[0].slice(legal.first, legal.count);
      const std::vector<float> row = to_host(run.model.backend(), sequence.logits(&head, 1));
      on_logits(row.data(), legal.count);
      if (++done == end) break;
      sequence.feed(&tokens[static_cast<size_t>(done - 1)], &wte, 1, 1);
    }
  }
}

void fine_logits(const StageRun& run, const Codes& coarse, std::vector<int32_t>& window,
                 const OnLogits& on_logits) {
  const Config& config = run.model.config();
  const FineConfig& c = config.fine;
  const GptWeights& weights = run.model.weights().fine;
  const StageMemory& memory = run.memory.fine;
  Backend& backend = run.model.backend();
  const int64_t n = c.input_length, n_code = config.codebook_size;
  BARKRT_CHECK(coarse.n_frames <= n);
  const bool choose = window.empty();
  std::vector<int32_t> ids(static_cast<size_t>(c.n_fine_codebook * n),
                           static_cast<int32_t>(n_code));  // unknown
  for (int64_t q = 0; q < coarse.n_codebook; ++q)
    std::copy_n(coarse.ids.data() + q * coarse.n_frames, coarse.n_frames, ids.data() + q * n);
  std::vector<int32_t> slots(static_cast<size_t>(n), 0), positions(static_cast<size_t>(n));
  std::iota(positions.begin(), positions.end(), 0);

  for (int64_t q = coarse.n_codebook; q < c.n_fine_codebook; ++q) {
    gpt_forward(backend, weights, memory.scratch, {memory.kv},
                {ids.data(), weights.wte.data(), q + 1}, {n, slots.data(), positions.data()}, false,
                {0, n}, {});
    const ConstView h = gpt_final_norm(backend, weights, memory.scratch, 0, n);
    const View logits = view(memory.scratch.wide, n, n_code);
    const Matrix& head = weights.lm_head[static_cast<size_t>(q - c.n_given)];
    backend.linear(logits, h, head.slice(0, n_code), nullptr, {});
    const std::vector<float> rows = to_host(backend, logits);
    for (int64_t t = 0; t < coarse.n_frames; ++t) on_logits(rows.data() + t * n_code, n_code);
    for (int64_t t = 0; t < n; ++t) {
      const float* row = rows.data() + t * n_code;
      ids[static_cast<size_t>(q * n + t)] =
          choose ? static_cast<int32_t>(std::max_element(row, row + n_code) - row)
                 : window[static_cast<size_t>(q * n + t)];
    }
  }
  if (choose) window = ids;
}

}  // namespace barkrt::bench
