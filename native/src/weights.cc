// weights.cc: which tensors a config asks for, looked up in the file.
#include "weights.h"

#include <algorithm>
#include <unordered_set>

#include "error.h"

namespace barkrt {
namespace {

// Looks tensors up, checks them, places them, and remembers which names were asked for.
class Builder {
 public:
  Builder(const Gguf& gguf, const PlaceTensor& place) : gguf_(gguf), place_(place) {}

  const float* vector(const std::string& name, int64_t n) {
    return static_cast<const float*>(take(name, {n}, false).data);
  }
  // A matrix of any weight type, I8 with its scales.
  Matrix matrix(const std::string& name, int64_t rows, int64_t cols) {
    return take(name, {rows, cols}, true);
  }
  // An F32 tensor of more dimensions, seen as rows x cols.
  Matrix folded(const std::string& name, const std::vector<int64_t>& shape, int64_t rows) {
    Matrix m = take(name, shape, false);
    m.cols = m.rows * m.cols / rows;
    m.rows = rows;
    return m;
  }
  // The same, or in tiles, of 4 bits only if `four_bits`: an I8 tensor of the tiles' bytes, (rows
  // of tiles, bytes of one).
  Matrix tiles_or_matrix(const std::string& name, int64_t rows, int64_t cols, bool four_bits) {
    const GgufTensor* t = gguf_.find(name);
    for (const DType type : {DType::I8Tiles, DType::I4}) {
      const bool may_be = fits_tiles(rows, cols) && (type != DType::I4 || four_bits);
      const std::vector<int64_t> shape = {rows / kTileRows, matrix_bytes(type, kTileRows, cols)};
      if (!may_be || !t || t->type != DType::I8 || t->shape != shape) continue;
      used_.insert(t->name);
      const Matrix m{nullptr, type, rows, cols, type == DType::I4 ? nullptr : scales(name, rows)};
      return place_(*t, m);
    }
    return matrix(name, rows, cols);
  }
  Linear linear(const std::string& name, int64_t out, int64_t in, bool bias, bool four_bits) {
    return {tiles_or_matrix(name + ".weight", out, in, four_bits),
            bias ? vector(name + ".bias", out) : nullptr};
  }
  Norm norm(const std::string& name, int64_t n, bool bias) {
    return {vector(name + ".weight", n), bias ? vector(name + ".bias", n) : nullptr};
  }
  bool has(const std::string& name) const { return gguf_.find(name) != nullptr; }

  // Every tensor of the file was asked for, or belongs to a voice. One that was not would be
  // ignored in silence, and a bias that is ignored makes another model.
  void check_all_used() const {
    for (const GgufTensor& t : gguf_.tensors()) {
      if (used_.count(t.name) || t.name.substr(0, 6) == "voice.") continue;
      fail(Status::BadModel, "tensor %s of the file is not part of a model with its config",
           std::string(t.name.substr(0, 200)).c_str());
    }
  }

 private:
  Matrix take(const std::string& name, const std::vector<int64_t>& shape, bool any_type) {
    const GgufTensor& t = gguf_.need(name, shape);
    const bool typed = t.type == DType::F32 || (any_type && t.type != DType::I32);
    if (!typed)
      fail(Status::BadModel, "tensor %s is %s, which it cannot be", name.c_str(),
           dtype_name(t.type));
    used_.insert(t.name);
    Matrix m{nullptr, t.type, shape[0], 1, nullptr};
    for (size_t i = 1; i < shape.size(); ++i) m.cols *= shape[i];
    m = place_(t, m);
    if (t.type == DType::I8) m.scale = scales(name, shape[0]);
    return m;
  }
  // "x.weight" has its scales in "x.scale".
  const float* scales(const std::string& name, int64_t rows) {
    return vector(name.substr(0, name.rfind('.')) + ".scale", rows);
  }

  const Gguf& gguf_;
  const PlaceTensor& place_;
  std::unordered_set<std::string_view> used_;
};

std::string numbered(const std::string& prefix, int64_t i) { return prefix + std::to_string(i); }

// Everything but tables and heads, which differ between the stages.
GptWeights build_blocks(Builder& b, const GptConfig& c, bool four_bits) {
  const int64_t n = c.n_embd;
  GptWeights w;
  w.n_head = c.n_head;
  w.n_embd = n;
  w.wpe = b.folded(c.name + ".wpe.weight", {c.block_size, n}, c.block_size);
  for (int64_t i = 0; i < c.n_layer; ++i) {
    const std::string p = numbered(c.name + ".h.", i);
    BlockWeights block;
    block.ln_1 = b.norm(p + ".ln_1", n, c.norm_bias);
    block.c_attn = b.linear(p + ".attn.c_attn", 3 * n, n, c.linear_bias, four_bits);
    block.attn_c_proj = b.linear(p + ".attn.c_proj", n, n, c.linear_bias, four_bits);
    block.ln_2 = b.norm(p + ".ln_2", n, c.norm_bias);
    block.c_fc = b.linear(p + ".mlp.c_fc", 4 * n, n, c.linear_bias, four_bits);
    block.mlp_c_proj = b.linear(p + ".mlp.c_proj", n, 4 * n, c.linear_bias, four_bits);
    w.blocks.push_back(block);
  }
  w.ln_f = b.norm(c.name + ".ln_f", n, c.norm_bias);
  return w;
}

// parts: where legal rows of the head begin.
GptWeights build_causal(Builder& b, const GptConfig& c, const std::vector<int64_t>& parts) {
  GptWeights w = build_blocks(b, c, true);
  w.wte = {b.matrix(c.name + ".wte.weight", c.n_vocab_in, c.n_embd)};
  const std::string head = c.name + ".lm_head.weight";
  w.lm_head = {b.tiles_or_matrix(head, c.n_vocab_out, c.n_embd, false)};
  const bool whole =
      std::all_of(parts.begin(), parts.end(), [](int64_t first) { return first % kTileRows == 0; });
  if (w.lm_head[0].type == DType::I8Tiles && !whole)
    fail(Status::BadModel, "tensor %s is in tiles, and its legal rows do not begin with one",
         head.c_str());
  return w;
}

GptWeights build_fine(Builder& b, const FineConfig& c) {
  GptWeights w = build_blocks(b, c.gpt, false);
  for (int64_t q = 0; q < c.n_codebook; ++q)
    w.wte.push_back(b.matrix(numbered("fine.wte.", q) + ".weight", c.gpt.n_vocab_in, c.gpt.n_embd));
  for (int64_t i = 0; i < c.n_codebook - c.n_given; ++i) {
    const std::string name = numbered("fine.lm_head.", i) + ".weight";
    if (b.has(name)) {
      w.lm_head.push_back(b.matrix(name, c.gpt.n_vocab_out, c.gpt.n_embd));
      continue;
    }
    if (c.gpt.n_vocab_out != c.gpt.n_vocab_in)
      fail(Status::BadModel, "tensor %s is missing, and fine.wte.%lld.weight has another shape",
           name.c_str(), static_cast<long long>(i + 1));
    w.lm_head.push_back(w.wte[i + 1]);
  }
  return w;
}

ConvWeights build_conv(Builder& b, const std::string& name, int64_t out, int64_t in, int64_t kernel,
                       int64_t dilation) {
  ConvWeights w;
  w.weight = b.folded(name + ".weight", {out, kernel, in}, out);
  w.bias = b.vector(name + ".bias", out);
  w.kernel = kernel;
  w.dilation = dilation;
  return w;
}

UpWeights build_up(Builder& b, const CodecConfig& c, int64_t i) {
  const std::string p = numbered("codec.up.", i);
  const int64_t in = c.width(i), out = c.width(i + 1), hidden = out / c.compress;
  UpWeights up;
  up.stride = c.ratios[i];
  up.weight = b.folded(p + ".convtr.weight", {up.stride, out, 2, in}, up.stride * out);
  up.bias = b.vector(p + ".convtr.bias", out);
  for (int64_t j = 0; j < c.n_residual_layer; ++j) {
    const std::string r = numbered(p + ".res.", j);
    ResidualWeights w;
    w.conv1 = build_conv(b, r + ".conv1", hidden, out, c.residual_kernel_size, c.dilation(j));
    w.conv2 = build_conv(b, r + ".conv2", out, hidden, 1, 1);
    if (c.conv_shortcut) w.shortcut = build_conv(b, r + ".shortcut", out, out, 1, 1);
    up.residual.push_back(w);
  }
  return up;
}

CodecWeights build_codec(Builder& b, const CodecConfig& c, int64_t n_used) {
  CodecWeights w;
  for (int64_t q = 0; q < c.n_codebook; ++q) {
    const Matrix table = b.folded(numbered("codec.codebook.", q) + ".weight",
                                  {c.codebook_size, c.hidden_size}, c.codebook_size);
    if (q < n_used) w.codebook.push_back(table);
  }
  const int64_t h = c.width(0);
  w.conv_in = build_conv(b, "codec.conv_in", h, c.hidden_size, c.kernel_size, 1);
  for (int64_t l = 0; l < c.n_lstm_layer; ++l) {
    const std::string p = numbered("codec.lstm.", l);
    LstmWeights lstm;
    lstm.ih = b.folded(p + ".weight_ih", {4 * h, h}, 4 * h);
    lstm.hh = b.folded(p + ".weight_hh", {4 * h, h}, 4 * h);
    lstm.bias = b.vector(p + ".bias", 4 * h);
    w.lstm.push_back(lstm);
  }
  for (size_t i = 0; i < c.ratios.size(); ++i) w.up.push_back(build_up(b, c, i));
  w.conv_out = build_conv(b, "codec.conv_out", 1, c.n_filter, c.last_kernel_size, 1);
  return w;
}

}  // namespace

ModelWeights build_weights(const Gguf& gguf, const Config& config, const PlaceTensor& place) {
  Builder b(gguf, place);
  ModelWeights w;
  const int64_t coarse = config.semantic.vocab_size;
  w.semantic = build_causal(b, config.semantic.gpt, {config.semantic.eos_token});
  w.coarse = build_causal(b, config.coarse.gpt, {coarse, coarse + config.codebook_size});
  w.fine = build_fine(b, config.fine);
  w.codec = build_codec(b, config.codec, config.fine.n_fine_codebook);
  b.check_all_used();
  return w;
}

}  // namespace barkrt
