#include "tiny_model.h"

#include <functional>
#include <numeric>

namespace barkrt::test {

namespace {

// Fills tensors with numbers that differ but stay small, so that logits are finite.
class Filler {
 public:
  // Tiles are so where they fit, else I8.
  Filler(GgufWriter& writer, DType matrices) : w_(writer), matrices_(matrices) {}

  void f32(const std::string& name, const std::vector<int64_t>& shape) {
    std::vector<float> values(static_cast<size_t>(size(shape)));
    for (float& v : values) v = static_cast<float>(next()) / 256.0f;
    w_.tensor(name, shape, values);
  }

  void matrix(const std::string& name, int64_t rows, int64_t cols) {
    if (matrices_ == DType::F32) return f32(name + ".weight", {rows, cols});
    std::string values;
    for (int64_t i = 0; i < rows * cols; i++) values += static_cast<char>(next());
    w_.tensor(name + ".weight", DType::I8, {rows, cols}, values.data());
    scales(name, rows);
  }

  void tiles(const std::string& name, int64_t rows, int64_t cols) {
    const bool scales = matrices_ == DType::I4;  // in the tiles
    std::string bytes;
    for (int64_t i = 0; i < matrix_bytes(matrices_, rows, cols); i++)
      bytes +=
          scales && i % tile_bytes(matrices_) >= 512 && i % 2 ? '\x20' : static_cast<char>(next());
    w_.tensor(name + ".weight", DType::I8,
              {rows / kTileRows, matrix_bytes(matrices_, kTileRows, cols)}, bytes.data());
    if (!scales) this->scales(name, rows);
  }

  void linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    if (has_tiles(matrices_) && fits_tiles(out, in))
      tiles(name, out, in);
    else
      matrix(name, out, in);
    if (bias) f32(name + ".bias", {out});
  }

  void norm(const std::string& name, int64_t n, bool bias) {
    f32(name + ".weight", {n});
    if (bias) f32(name + ".bias", {n});
  }

  void conv(const std::string& name, const std::vector<int64_t>& shape, int64_t out) {
    f32(name + ".weight", shape);
    f32(name + ".bias", {out});
  }

 private:
  void scales(const std::string& name, int64_t rows) {
    w_.tensor(name + ".scale", {rows}, std::vector<float>(static_cast<size_t>(rows), 1.0f / 128));
  }
  static int64_t size(const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }
  int next() {
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<int>(state_ >> 25) - 64;
  }

  GgufWriter& w_;
  DType matrices_;
  uint32_t state_ = 1;
};

// Channels of a stage: few, or as few as leave one matrix that tiles fit.
constexpr int64_t embd_of(DType matrices) { return has_tiles(matrices) ? 16 : 4; }

void add_gpt(GgufWriter& w, const std::string& stage, uint32_t block_size, uint32_t vocab_in,
             uint32_t vocab_out, bool causal, DType matrices) {
  const int64_t n = embd_of(matrices);
  const std::string key = "bark." + stage + ".";
  const bool bias = !causal;
  w.u32(key + "n_layer", 1).u32(key + "n_head", 2).u32(key + "n_embd", static_cast<uint32_t>(n));
  w.u32(key + "block_size", block_size).boolean(key + "bias", bias);
  w.u32(key + "n_vocab_in", vocab_in).u32(key + "n_vocab_out", vocab_out);
  w.f32(key + "hf.temperature", 0.7f);
  if (causal) w.u32(key + "hf.top_k", 0).f32(key + "hf.top_p", 1);

  Filler f(w, matrices);
  f.f32(stage + ".wpe.weight", {block_size, n});
  const std::string h = stage + ".h.0.";
  f.norm(h + "ln_1", n, bias);
  f.norm(h + "ln_2", n, bias);
  f.linear(h + "attn.c_attn", 3 * n, n, bias);
  f.linear(h + "attn.c_proj", n, n, bias);
  f.linear(h + "mlp.c_fc", 4 * n, n, bias);
  f.linear(h + "mlp.c_proj", n, 4 * n, bias);
  f.norm(stage + ".ln_f", n, bias);
  if (!causal) return;
  f.matrix(stage + ".wte", vocab_in, n);
  f.matrix(stage + ".lm_head", vocab_out, n);
}

void add_tokenizer(GgufWriter& w) {
  w.string("tokenizer.ggml.model", "bert")
      .strings("tokenizer.ggml.tokens", {"[UNK]", "[MASK]", "a", "##a", "b", "##b", "ab", "!"})
      .u32("tokenizer.ggml.unknown_token_id", 0)
      .strings("tokenizer.bark.special_tokens", {"[MASK]"})
      .boolean("tokenizer.bark.lowercase", false)
      .boolean("tokenizer.bark.strip_accents", false)
      .boolean("tokenizer.bark.split_cjk", true)
      .u32("tokenizer.bark.max_word_chars", 100);
}

void add_stages(GgufWriter& w, DType matrices) {
  add_gpt(w, "semantic", 12, 24, 14, true, matrices);
  w.u32("bark.semantic.vocab_size", 12).u32("bark.semantic.eos_token", 12);
  w.u32("bark.semantic.pad_token", 12).u32("bark.semantic.infer_token", 23);
  w.u32("bark.semantic.text_encoding_offset", 14).u32("bark.semantic.text_pad_token", 22);
  w.u32("bark.semantic.max_input_length", 4).u32("bark.semantic.max_new_tokens", 6);
  w.f64("bark.semantic.rate_hz", 49.9);

  add_gpt(w, "coarse", 16, 24, 24, true, matrices);
  w.u32("bark.coarse.semantic_pad_token", 22).u32("bark.coarse.infer_token", 23);
  w.u32("bark.coarse.max_input_length", 4).u32("bark.coarse.max_history", 6);
  w.u32("bark.coarse.window_length", 4).u32("bark.coarse.n_codebook", 2);
  w.f64("bark.coarse.rate_hz", 75);

  add_gpt(w, "fine", 8, 6, 6, false, DType::F32);
  w.u32("bark.fine.n_codebook", 3).u32("bark.fine.n_given", 1);
  w.u32("bark.fine.n_fine_codebook", 3);
  w.u32("bark.fine.input_length", 8).u32("bark.fine.history_length", 4);
  Filler f(w, DType::F32);
  const int64_t n = embd_of(DType::F32);
  for (const char* q : {"0", "1", "2"}) f.matrix(std::string("fine.wte.") + q, 6, n);
  f.matrix("fine.lm_head.1", 6, n);  // head 0 is tied
}

void add_codec(GgufWriter& w) {
  const std::string key = "bark.codec.";
  w.u32(key + "sample_rate", 300).u32(key + "hidden_size", 4).u32(key + "n_filter", 2);
  w.u32(key + "kernel_size", 3).u32(key + "last_kernel_size", 3);
  w.u32(key + "residual_kernel_size", 3).u32(key + "n_residual_layer", 1);
  w.u32(key + "dilation_growth_rate", 2).u32(key + "compress", 2).u32(key + "n_lstm_layer", 1);
  w.u32(key + "codebook_size", 5).u32(key + "n_codebook", 3).u32s(key + "ratios", {2, 2});
  w.boolean(key + "conv_shortcut", true);

  Filler f(w, DType::F32);
  for (const char* q : {"0", "1", "2"})
    f.f32(std::string("codec.codebook.") + q + ".weight", {5, 4});
  f.conv("codec.conv_in", {8, 3, 4}, 8);
  f.f32("codec.lstm.0.weight_ih", {32, 8});
  f.f32("codec.lstm.0.weight_hh", {32, 8});
  f.f32("codec.lstm.0.bias", {32});
  for (const int64_t i : {0, 1}) {
    const std::string up = "codec.up." + std::to_string(i) + ".";
    const int64_t in = 8 >> i, out = in / 2;
    f.conv(up + "convtr", {2, out, 2, in}, out);
    f.conv(up + "res.0.conv1", {out / 2, 3, out}, out / 2);
    f.conv(up + "res.0.conv2", {out, 1, out / 2}, out);
    f.conv(up + "res.0.shortcut", {out, 1, out}, out);
  }
  f.conv("codec.conv_out", {1, 3, 2}, 1);
}

}  // namespace

GgufWriter tiny_model(DType matrices) {
  GgufWriter w;
  w.string("general.architecture", "bark").string("general.name", "tiny");
  w.u32("bark.format_version", 1).boolean("bark.trained", false).u32("bark.codebook_size", 5);
  add_tokenizer(w);
  add_stages(w, matrices);
  add_codec(w);
  w.strings("bark.voices", {"v"});
  w.tensor("voice.v.semantic", {2}, std::vector<int32_t>{3, 4});
  w.tensor("voice.v.coarse", {2, 3}, std::vector<int32_t>{0, 1, 2, 3, 4, 0});
  w.tensor("voice.v.fine", {3, 3}, std::vector<int32_t>{0, 1, 2, 3, 4, 0, 1, 2, 3});
  return w;
}

}  // namespace barkrt::test
