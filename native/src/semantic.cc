// semantic.cc: text ids to semantic tokens.
#include <algorithm>

#include "error.h"
#include "stages.h"

namespace barkrt {

std::vector<int32_t> semantic_prefix(const SemanticConfig& config,
                                     const std::vector<int32_t>& text_ids, const Voice* voice) {
  const int64_t n = config.max_input_length;
  const int64_t n_text = static_cast<int64_t>(text_ids.size());
  std::vector<int32_t> ids(2 * (n + 1));
  int32_t* text = ids.data();
  int32_t* history = ids.data() + n + 1;

  for (int64_t i = 0; i < n; ++i) {
    const int64_t id =
        i < n_text ? config.text_encoding_offset + text_ids[i] : config.text_pad_token;
    if (id < 0 || id >= config.gpt.n_vocab_in)
      fail(Status::InvalidArgument, "text token %lld has no row in the model's table of %lld",
           static_cast<long long>(id), static_cast<long long>(config.gpt.n_vocab_in));
    text[i] = static_cast<int32_t>(id);
  }
  // The last n tokens of the voice, padded on the right.
  std::fill(history, history + n, static_cast<int32_t>(config.eos_token));
  if (voice) {
    const int64_t n_voice = static_cast<int64_t>(voice->semantic.size());
    const int64_t kept = std::min(n, n_voice);
    std::copy(voice->semantic.end() - kept, voice->semantic.end(), history);
  }
  text[n] = static_cast<int32_t>(config.infer_token);
  history[n] = -1;
  return ids;
}

std::vector<int32_t> run_semantic(const StageRun& run, const std::vector<int32_t>& text_ids,
                                  const Sampling& sampling, int64_t max_tokens) {
  const SemanticConfig& config = run.model.config().semantic;
  const GptWeights& weights = run.model.weights().semantic;
  const Matrix& head = weights.lm_head[0];
  const Matrix& wte = weights.wte[0];
  // Legal are the speech tokens and, as the last candidate, the end token.
  const Matrix legal[] = {head.slice(0, config.vocab_size), head.slice(config.eos_token, 1)};
  const int64_t limit =
      max_tokens > 0 ? std::min(max_tokens, config.max_tokens()) : config.max_tokens();

  const StageMemory& memory = run.memory.semantic;
  Generation generation(run.model, Engine::CausalStage::Semantic, memory.scratch, memory.kv,
                        run.ticket);
  const Matrix tables[] = {wte, wte};
  const std::vector<int32_t> prefix = semantic_prefix(config, text_ids, run.voice);
  GptInput input{prefix.data(), tables, 2};
  int64_t n_rows = config.max_input_length + 1;

  std::vector<int32_t> tokens;
  while (true) {
    const int64_t step = static_cast<int64_t>(tokens.size());
    SampleParams params = run.params(Stage::Semantic, sampling, step, 0);
    params.eos = static_cast<int32_t>(config.vocab_size);
    params.min_eos_p = sampling.min_eos_p;
    const int32_t token = generation.next(input, n_rows, legal, 2, params);
    if (token == params.eos) break;
    tokens.push_back(token);
    run.report(Stage::Semantic, step + 1, limit);
    if (step + 1 == limit) break;
    input = {&tokens.back(), &wte, 1};
    n_rows = 1;
  }
  return tokens;
}

}  // namespace barkrt
