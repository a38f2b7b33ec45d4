#include "bounds.h"

#include <algorithm>
#include <numeric>

#include "stages.h"

namespace barkrt::bench {
namespace {

double bytes_of(const Matrix& m) {
  return static_cast<double>(matrix_bytes(m.type, m.rows, m.cols));
}
double size_of(const Matrix& m) { return static_cast<double>(m.rows * m.cols); }

// One transformer: weights of all blocks, and a pass's arithmetic.
struct Gpt {
  explicit Gpt(const GptWeights& w)
      : n_layer(static_cast<double>(w.blocks.size())),
        n_embd(static_cast<double>(w.n_embd)),
        type(w.blocks[0].c_fc.weight.type) {
    const BlockWeights& b = w.blocks[0];
    attn = size_of(b.c_attn.weight);
    rest = size_of(b.attn_c_proj.weight) + size_of(b.c_fc.weight) + size_of(b.mlp_c_proj.weight);
    block_bytes = bytes_of(b.c_attn.weight) + bytes_of(b.attn_c_proj.weight) +
                  bytes_of(b.c_fc.weight) + bytes_of(b.mlp_c_proj.weight);
  }

  // `rows` rows that see `keys` keys in all, by operations of attention_type. Of the last block
  // only `wanted` rows are needed, and of those that are not, keys and values alone.
  double pass_seconds(const Roofs& roofs, double rows, double keys, double wanted,
                      DType attention_type = DType::F32) const {
    const double whole = n_layer - 1 + wanted / rows;
    const double products =
        2 * rows * (attn * (n_layer - 1) + attn * (2 + wanted / rows) / 3 + rest * whole);
    const double attention = 4 * n_embd * keys * whole;
    const double bytes = n_layer * block_bytes;
    return std::max(products / roofs.peak(type) + attention / roofs.peak(attention_type),
                    bytes / roofs.read(bytes));
  }

  // One row that sees n_keys halves of keys and values and evaluates `head`.
  double step_seconds(const Roofs& roofs, int64_t n_keys, double head_bytes) const {
    const double bytes =
        n_layer * (block_bytes + 4 * n_embd * static_cast<double>(n_keys)) + head_bytes;
    return bytes / roofs.read(bytes);
  }

  double n_layer, n_embd;
  DType type;
  double attn, rest, block_bytes;
};

double causal_keys(double past, double rows) { return rows * past + rows * (rows + 1) / 2; }

void add_semantic(StageBounds& bounds, const Model& model, const Roofs& roofs, int64_t n_tokens) {
  const SemanticConfig& c = model.config().semantic;
  const GptWeights& w = model.weights().semantic;
  const Gpt gpt(w);
  const double prompt = static_cast<double>(c.max_input_length + 1);
  const double head = bytes_of(w.lm_head[0].slice(0, c.vocab_size + 1));
  bounds.semantic_prefill =
      gpt.pass_seconds(roofs, prompt, causal_keys(0, prompt), 1) + head / roofs.read(head);
  for (int64_t i = 1; i < n_tokens; ++i)
    bounds.semantic_decode += gpt.step_seconds(roofs, c.max_input_length + 1 + i, head);
}

// The windows as run_coarse feeds them, with all tokens different from each other.
void add_coarse(StageBounds& bounds, const Model& model, const Roofs& roofs, int64_t n_semantic,
                const Voice* voice) {
  const Config& config = model.config();
  const GptWeights& w = model.weights().coarse;
  const Gpt gpt(w);
  const double head = bytes_of(w.lm_head[0].slice(0, config.codebook_size));
  const CoarseHistory history = coarse_history(config, voice);
  const int64_t n_history = static_cast<int64_t>(history.semantic.size());
  std::vector<int32_t> semantic(static_cast<size_t>(n_history + n_semantic)), fed;
  std::vector<int32_t> tokens(history.coarse.size());
  std::iota(semantic.begin(), semantic.end(), 0);
  int32_t next = static_cast<int32_t>(semantic.size());
  for (int32_t& token : tokens) token = next++;
  const int64_t n_steps = coarse_steps(config, Rules::Suno, n_semantic);
  for (int64_t done = 0; done < n_steps;) {
    const std::vector<int32_t> prompt = coarse_prompt(config, semantic, n_history, tokens, done);
    const auto differ =
        std::mismatch(prompt.begin(), prompt.end() - 1, fed.begin(), fed.end()).first;
    const double common = static_cast<double>(differ - prompt.begin());
    const double rows = static_cast<double>(prompt.size()) - common;
    bounds.coarse_prefill +=
        gpt.pass_seconds(roofs, rows, causal_keys(common, rows), 1) + head / roofs.read(head);
    fed = prompt;
    const int64_t end = std::min(done + config.coarse.window_length, n_steps);
    for (; done < end; ++done) {
      tokens.push_back(next);
      if (done + 1 == end) continue;
      fed.push_back(next++);
      bounds.coarse_decode += gpt.step_seconds(roofs, static_cast<int64_t>(fed.size()), head);
    }
  }
}

void add_fine(StageBounds& bounds, const Model& model, const Roofs& roofs, int64_t n_frames,
              const Voice* voice) {
  const FineConfig& c = model.config().fine;
  const GptWeights& w = model.weights().fine;
  const Gpt gpt(w);
  const double rows = static_cast<double>(c.input_length);
  const double head = size_of(w.lm_head[0].slice(0, model.config().codebook_size));
  const int64_t passes = c.n_fine_codebook - model.config().coarse.n_codebook;
  const DType attention = gpt.type == DType::F32 ? DType::F32 : DType::BF16;
  const int64_t n_history = voice ? std::min(c.history_length, voice->fine.n_frames) : 0;
  for (const FineWindow& window : fine_windows(c, n_history, n_frames)) {
    const double wanted = rows - static_cast<double>(window.relative);
    bounds.fine += static_cast<double>(passes) *
                   (gpt.pass_seconds(roofs, rows, rows * rows, wanted, attention) +
                    2 * wanted * head / roofs.peak(gpt.type));
  }
}

void add_codec(StageBounds& bounds, const Model& model, const Roofs& roofs, int64_t n_frames) {
  const CodecConfig& c = model.config().codec;
  const CodecWeights& w = model.weights().codec;
  double work = size_of(w.conv_in.weight);  // multiply-adds a frame
  double recurrent = 0;                     // bytes read at every frame
  for (const LstmWeights& l : w.lstm) {
    work += size_of(l.ih) + size_of(l.hh);
    recurrent += bytes_of(l.hh);
  }
  int64_t up = 0;
  for (const UpWeights& u : w.up) {
    work += size_of(u.weight) * static_cast<double>(c.rate(up++));
    for (const ResidualWeights& r : u.residual)
      work += (size_of(r.conv1.weight) + size_of(r.conv2.weight) + size_of(r.shortcut.weight)) *
              static_cast<double>(c.rate(up));
  }
  work += size_of(w.conv_out.weight) * static_cast<double>(c.rate(up));
  bounds.codec =
      static_cast<double>(n_frames) * (2 * work / roofs.f32 + recurrent / roofs.read(recurrent));
}

}  // namespace

StageBounds stage_bounds(const Model& model, const Roofs& roofs, int64_t n_semantic,
                         int64_t n_frames, const Voice* voice) {
  StageBounds bounds;
  add_semantic(bounds, model, roofs, n_semantic);
  add_coarse(bounds, model, roofs, n_semantic, voice);
  add_fine(bounds, model, roofs, n_frames, voice);
  add_codec(bounds, model, roofs, n_frames);
  return bounds;
}

}  // namespace barkrt::bench
