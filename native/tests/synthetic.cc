#include "synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace barkrt::test {
namespace {

uint64_t fnv1a(const std::string& s) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : s) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

// splitmix64 of (name, index), as a float in [-1, 1) with 24 bits.
double unit(uint64_t h, int64_t i) {
  uint64_t x = h + static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15u;
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  x ^= x >> 31;
  return static_cast<double>(x >> 40) / 8388608.0 - 1;
}

std::vector<float> to_float(const std::vector<double>& v) { return {v.begin(), v.end()}; }

// Writes a matrix in 4 bits, with scales that differ from group to group.
void add_i4(GgufWriter& w, const std::string& name, int64_t rows, int64_t cols,
            const std::vector<float>& values) {
  std::vector<uint8_t> bytes(matrix_bytes(DType::I4, rows, cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      uint8_t* tile =
          &bytes[(r / kTileRows * (cols / kTileCols) + c / kTileCols) * tile_bytes(DType::I4)];
      const int64_t row = r % kTileRows, group = c % kTileCols / 32, at = c % 32;
      const int64_t quarters = (r + group) % 4;  // beside 2^-6
      const float scale = (1 + 0.25f * static_cast<float>(quarters)) / 64;
      const auto q = std::clamp<int64_t>(std::lround(values[r * cols + c] / scale), -8, 7) + 8;
      tile[at / 4 * 64 + row * 4 + at % 4] |= static_cast<uint8_t>(q << 4 * group);
      const auto half = static_cast<uint16_t>(0x2400 + quarters * 0x100);
      std::memcpy(tile + 512 + 2 * (group * kTileRows + row), &half, 2);
    }
  w.tensor(name + ".weight", DType::I8,
           {rows / kTileRows, matrix_bytes(DType::I4, kTileRows, cols)}, bytes.data());
}

// Writes a matrix of the type.
void add_matrix(GgufWriter& w, const std::string& name, int64_t rows, int64_t cols, DType type,
                const std::vector<float>& values) {
  const std::string tensor = name + ".weight";
  if (type == DType::BF16) {
    std::vector<uint16_t> half(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, &values[i], 4);
      half[i] = static_cast<uint16_t>(bits >> 16);
    }
    w.tensor(tensor, DType::BF16, {rows, cols}, half.data());
  } else if (type == DType::I4) {
    add_i4(w, name, rows, cols, values);
  } else if (type == DType::I8 || type == DType::I8Tiles) {
    const bool tiles = type == DType::I8Tiles;
    std::vector<int8_t> q(values.size());
    std::vector<float> scale(rows);
    for (int64_t r = 0; r < rows; ++r) {
      float most = 1e-9f;
      for (int64_t c = 0; c < cols; ++c) most = std::max(most, std::fabs(values[r * cols + c]));
      scale[r] = most / 127;
      for (int64_t c = 0; c < cols; ++c) {
        const int64_t at =
            tiles ? (r / 16 * cols / 64 + c / 64) * 1024 + c % 64 / 4 * 64 + r % 16 * 4 + c % 4
                  : r * cols + c;
        q[at] = static_cast<int8_t>(std::lround(values[r * cols + c] / scale[r]));
      }
    }
    const std::vector<int64_t> shape = {rows / kTileRows, kTileRows * cols};
    w.tensor(tensor, DType::I8, tiles ? shape : std::vector<int64_t>{rows, cols}, q.data());
    w.tensor(name + ".scale", {rows}, scale);
  } else {
    w.tensor(tensor, {rows, cols}, values);
  }
}

// Adds the tensors of one transformer, under the file's names, with the values of HF's.
class GptWriter {
 public:
  GptWriter(GgufWriter& w, const GptConfig& c, std::string hf, DType type)
      : w_(w), c_(c), hf_(std::move(hf)), type_(type) {}

  void blocks() {
    const int64_t n = c_.n_embd;
    w_.tensor(c_.name + ".wpe.weight", {c_.block_size, n},
              synthetic_values(hf_ + "position_embeds_layer.weight", c_.block_size * n, 0.25));
    for (int64_t i = 0; i < c_.n_layer; ++i) {
      const std::string ours = c_.name + ".h." + std::to_string(i);
      const std::string theirs = hf_ + "layers." + std::to_string(i);
      norm(ours + ".ln_1", theirs + ".layernorm_1");
      linear(ours + ".attn.c_attn", theirs + ".attn.att_proj", 3 * n, n);
      linear(ours + ".attn.c_proj", theirs + ".attn.out_proj", n, n);
      norm(ours + ".ln_2", theirs + ".layernorm_2");
      linear(ours + ".mlp.c_fc", theirs + ".mlp.in_proj", 4 * n, n);
      linear(ours + ".mlp.c_proj", theirs + ".mlp.out_proj", n, 4 * n);
    }
    norm(c_.name + ".ln_f", hf_ + "layernorm_final");
  }
  void matrix(const std::string& ours, const std::string& theirs, int64_t rows, double scale) {
    add_matrix(w_, c_.name + ours, rows, c_.n_embd,
               type_of(rows, c_.n_embd, ours == ".lm_head" ? DType::I8Tiles : DType::I8),
               synthetic_values(hf_ + theirs, rows * c_.n_embd, scale));
  }

 private:
  // A file of tiles has them where they fit, in so few bits at most; elsewhere I8.
  DType type_of(int64_t rows, int64_t cols, DType least) const {
    if (!has_tiles(type_)) return type_;
    if (!fits_tiles(rows, cols) || least == DType::I8) return DType::I8;
    return least == DType::I4 ? type_ : DType::I8Tiles;
  }
  void norm(const std::string& ours, const std::string& theirs) {
    w_.tensor(ours + ".weight", {c_.n_embd},
              synthetic_values(theirs + ".weight", c_.n_embd, 0.125, 1));
    if (c_.norm_bias)
      w_.tensor(ours + ".bias", {c_.n_embd}, synthetic_values(theirs + ".bias", c_.n_embd, 0.125));
  }
  void linear(const std::string& ours, const std::string& theirs, int64_t out, int64_t in) {
    add_matrix(w_, ours, out, in, type_of(out, in, c_.name == "fine" ? DType::I8Tiles : DType::I4),
               synthetic_values(theirs + ".weight", out * in, 0.125));
    if (c_.linear_bias)
      w_.tensor(ours + ".bias", {out}, synthetic_values(theirs + ".bias", out, 0.125));
  }

  GgufWriter& w_;
  const GptConfig& c_;
  std::string hf_;
  DType type_;
};

void add_gpts(GgufWriter& w, const Config& c, DType type) {
  GptWriter semantic(w, c.semantic.gpt, "semantic.", type);
  semantic.matrix(".wte", "input_embeds_layer.weight", c.semantic.gpt.n_vocab_in, 0.5);
  semantic.blocks();
  semantic.matrix(".lm_head", "lm_head.weight", c.semantic.gpt.n_vocab_out, 0.25);
  GptWriter coarse(w, c.coarse.gpt, "coarse_acoustics.", type);
  coarse.matrix(".wte", "input_embeds_layer.weight", c.coarse.gpt.n_vocab_in, 0.5);
  coarse.blocks();
  coarse.matrix(".lm_head", "lm_head.weight", c.coarse.gpt.n_vocab_out, 0.25);
  GptWriter fine(w, c.fine.gpt, "fine_acoustics.", type);
  for (int64_t q = 0; q < c.fine.n_codebook; ++q)
    fine.matrix(".wte." + std::to_string(q), "input_embeds_layers." + std::to_string(q) + ".weight",
                c.fine.gpt.n_vocab_in, 0.5);
  fine.blocks();
  // Tied heads are absent from the file.
  if (c.fine.gpt.n_vocab_in != c.fine.gpt.n_vocab_out)
    for (int64_t i = 0; i < c.fine.n_codebook - c.fine.n_given; ++i)
      fine.matrix(".lm_head." + std::to_string(i), "lm_heads." + std::to_string(i) + ".weight",
                  c.fine.gpt.n_vocab_out, 0.5);
}

void add_conv(GgufWriter& w, const std::string& ours, const std::string& theirs, int64_t out,
              int64_t in, int64_t k) {
  const FoldedConv f = folded_conv(theirs, out, in, k, out);
  std::vector<float> permuted(f.weight.size());  // [out, k, in]
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < in; ++i)
      for (int64_t j = 0; j < k; ++j)
        permuted[(o * k + j) * in + i] = static_cast<float>(f.weight[(o * in + i) * k + j]);
  w.tensor(ours + ".weight", {out, k, in}, permuted);
  w.tensor(ours + ".bias", {out}, to_float(f.bias));
}

void add_conv_transpose(GgufWriter& w, const std::string& ours, const std::string& theirs,
                        int64_t in, int64_t out, int64_t stride) {
  const int64_t k = 2 * stride;
  const FoldedConv f = folded_conv(theirs, in, out, k, out);
  std::vector<float> permuted(f.weight.size());  // [stride, out, 2, in]
  for (int64_t i = 0; i < in; ++i)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t j = 0; j < k; ++j)
        permuted[((j % stride * out + o) * 2 + (j < stride ? 1 : 0)) * in + i] =
            static_cast<float>(f.weight[(i * out + o) * k + j]);
  w.tensor(ours + ".weight", {stride, out, 2, in}, permuted);
  w.tensor(ours + ".bias", {out}, to_float(f.bias));
}

void add_codec(GgufWriter& w, const CodecConfig& c) {
  const std::string hf = "codec_model.";
  for (int64_t q = 0; q < c.n_codebook; ++q)
    w.tensor("codec.codebook." + std::to_string(q) + ".weight", {c.codebook_size, c.hidden_size},
             synthetic_values(hf + "quantizer.layers." + std::to_string(q) + ".codebook.embed",
                              c.codebook_size * c.hidden_size, 1));
  int64_t layer = 0;  // number in HF's module list
  const auto name = [&](int64_t n) { return hf + "decoder.layers." + std::to_string(n); };
  const int64_t h = c.width(0);
  add_conv(w, "codec.conv_in", name(layer++) + ".conv", h, c.hidden_size, c.kernel_size);
  const std::string lstm = name(layer++) + ".lstm.";
  for (int64_t l = 0; l < c.n_lstm_layer; ++l) {
    const std::string ours = "codec.lstm." + std::to_string(l), n = std::to_string(l);
    w.tensor(ours + ".weight_ih", {4 * h, h},
             synthetic_values(lstm + "weight_ih_l" + n, 4 * h * h, 0.0625));
    w.tensor(ours + ".weight_hh", {4 * h, h},
             synthetic_values(lstm + "weight_hh_l" + n, 4 * h * h, 0.0625));
    std::vector<float> bias = synthetic_values(lstm + "bias_ih_l" + n, 4 * h, 0.0625);
    const std::vector<float> more = synthetic_values(lstm + "bias_hh_l" + n, 4 * h, 0.0625);
    for (int64_t i = 0; i < 4 * h; ++i) bias[i] += more[i];
    w.tensor(ours + ".bias", {4 * h}, bias);
  }
  for (size_t i = 0; i < c.ratios.size(); ++i) {
    const std::string up = "codec.up." + std::to_string(i);
    const int64_t in = c.width(i), out = c.width(i + 1), hidden = out / c.compress;
    layer++;  // ELU
    add_conv_transpose(w, up + ".convtr", name(layer++) + ".conv", in, out, c.ratios[i]);
    for (int64_t j = 0; j < c.n_residual_layer; ++j) {
      const std::string ours = up + ".res." + std::to_string(j), theirs = name(layer++);
      add_conv(w, ours + ".conv1", theirs + ".block.1.conv", hidden, out, c.residual_kernel_size);
      add_conv(w, ours + ".conv2", theirs + ".block.3.conv", out, hidden, 1);
      if (c.conv_shortcut) add_conv(w, ours + ".shortcut", theirs + ".shortcut.conv", out, out, 1);
    }
  }
  layer++;  // ELU
  add_conv(w, "codec.conv_out", name(layer) + ".conv", 1, c.n_filter, c.last_kernel_size);
}

uint32_t u32(int64_t v) { return static_cast<uint32_t>(v); }

void add_gpt_metadata(GgufWriter& w, const GptConfig& c) {
  const std::string p = "bark." + c.name + ".";
  w.u32(p + "n_layer", u32(c.n_layer)).u32(p + "n_head", u32(c.n_head));
  w.u32(p + "n_embd", u32(c.n_embd)).u32(p + "block_size", u32(c.block_size));
  w.u32(p + "n_vocab_in", u32(c.n_vocab_in)).u32(p + "n_vocab_out", u32(c.n_vocab_out));
  w.boolean(p + "bias", c.linear_bias).f32(p + "hf.temperature", c.hf.temperature);
  if (c.name != "fine") w.u32(p + "hf.top_k", u32(c.hf.top_k)).f32(p + "hf.top_p", c.hf.top_p);
}

void add_semantic_metadata(GgufWriter& w, const SemanticConfig& c) {
  const std::string p = "bark.semantic.";
  add_gpt_metadata(w, c.gpt);
  w.u32(p + "vocab_size", u32(c.vocab_size)).u32(p + "eos_token", u32(c.eos_token));
  w.u32(p + "pad_token", u32(c.eos_token)).u32(p + "infer_token", u32(c.infer_token));
  w.u32(p + "text_encoding_offset", u32(c.text_encoding_offset));
  w.u32(p + "text_pad_token", u32(c.text_pad_token));
  w.u32(p + "max_input_length", u32(c.max_input_length));
  w.u32(p + "max_new_tokens", u32(c.max_new_tokens)).f64(p + "rate_hz", c.rate_hz);
}

void add_coarse_metadata(GgufWriter& w, const CoarseConfig& c) {
  const std::string p = "bark.coarse.";
  add_gpt_metadata(w, c.gpt);
  w.u32(p + "semantic_pad_token", u32(c.semantic_pad_token));
  w.u32(p + "infer_token", u32(c.infer_token));
  w.u32(p + "max_input_length", u32(c.max_input_length)).u32(p + "max_history", u32(c.max_history));
  w.u32(p + "window_length", u32(c.window_length)).u32(p + "n_codebook", u32(c.n_codebook));
  w.f64(p + "rate_hz", c.rate_hz);
}

void add_fine_metadata(GgufWriter& w, const FineConfig& c) {
  const std::string p = "bark.fine.";
  add_gpt_metadata(w, c.gpt);
  w.u32(p + "n_codebook", u32(c.n_codebook)).u32(p + "n_given", u32(c.n_given));
  w.u32(p + "n_fine_codebook", u32(c.n_fine_codebook));
  w.u32(p + "input_length", u32(c.input_length)).u32(p + "history_length", u32(c.history_length));
}

void add_codec_metadata(GgufWriter& w, const CodecConfig& c) {
  const std::string p = "bark.codec.";
  w.u32(p + "sample_rate", u32(c.sample_rate)).u32(p + "hidden_size", u32(c.hidden_size));
  w.u32(p + "n_filter", u32(c.n_filter)).u32(p + "kernel_size", u32(c.kernel_size));
  w.u32(p + "last_kernel_size", u32(c.last_kernel_size));
  w.u32(p + "residual_kernel_size", u32(c.residual_kernel_size));
  w.u32(p + "n_residual_layer", u32(c.n_residual_layer));
  w.u32(p + "dilation_growth_rate", u32(c.dilation_growth_rate));
  w.u32(p + "compress", u32(c.compress)).u32(p + "n_lstm_layer", u32(c.n_lstm_layer));
  w.u32(p + "codebook_size", u32(c.codebook_size)).u32(p + "n_codebook", u32(c.n_codebook));
  w.u32s(p + "ratios", {c.ratios.begin(), c.ratios.end()});
  w.boolean(p + "conv_shortcut", c.conv_shortcut);
}

// Letters, alone and as continuations.
void add_tokenizer(GgufWriter& w) {
  std::vector<std::string> tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  const std::vector<std::string> special = tokens;
  for (char c = 'a'; c <= 'z'; ++c) tokens.push_back(std::string(1, c));
  for (char c = 'a'; c <= 'z'; ++c) tokens.push_back(std::string("##") + c);
  w.string("tokenizer.ggml.model", "bert").strings("tokenizer.ggml.tokens", tokens);
  w.u32("tokenizer.ggml.unknown_token_id", 1).strings("tokenizer.bark.special_tokens", special);
  w.boolean("tokenizer.bark.lowercase", false).boolean("tokenizer.bark.strip_accents", false);
  w.boolean("tokenizer.bark.split_cjk", true).u32("tokenizer.bark.max_word_chars", 100);
}

}  // namespace

std::vector<float> synthetic_values(const std::string& hf_name, int64_t n, double scale,
                                    double offset) {
  const uint64_t h = fnv1a(hf_name);
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(offset + scale * unit(h, i));
  return values;
}

FoldedConv folded_conv(const std::string& hf_prefix, int64_t dim0, int64_t dim1, int64_t kernel,
                       int64_t n_bias) {
  const uint64_t v = fnv1a(hf_prefix + ".weight_v"), g = fnv1a(hf_prefix + ".weight_g"),
                 b = fnv1a(hf_prefix + ".bias");
  FoldedConv f;
  const int64_t per_row = dim1 * kernel;
  f.weight.resize(dim0 * per_row);
  for (int64_t r = 0; r < dim0; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < per_row; ++i) sum += std::pow(unit(v, r * per_row + i), 2);
    const double factor = (1 + 0.25 * unit(g, r)) / std::sqrt(sum);
    for (int64_t i = 0; i < per_row; ++i)
      f.weight[r * per_row + i] = factor * unit(v, r * per_row + i);
  }
  for (int64_t i = 0; i < n_bias; ++i) f.bias.push_back(0.0625 * unit(b, i));
  return f;
}

GgufWriter synthetic_metadata(const Config& c, const std::vector<std::string>& voice_names) {
  GgufWriter w;
  w.string("general.architecture", "bark").string("general.name", c.name);
  w.u32("bark.format_version", 1).boolean("bark.trained", c.trained);
  w.string("bark.converter", "test").string("bark.source.format", "untrained");
  w.strings("bark.source.files", {}).strings("bark.source.sha256", {});
  w.u32("bark.codebook_size", u32(c.codebook_size)).strings("bark.voices", voice_names);
  add_semantic_metadata(w, c.semantic);
  add_coarse_metadata(w, c.coarse);
  add_fine_metadata(w, c.fine);
  add_codec_metadata(w, c.codec);
  add_tokenizer(w);
  return w;
}

void add_synthetic_tensors(GgufWriter& w, const Config& c, const SyntheticOptions& options) {
  for (const auto& [name, voice] : options.voices) {
    w.tensor("voice." + name + ".semantic", {static_cast<int64_t>(voice.semantic.size())},
             voice.semantic);
    w.tensor("voice." + name + ".coarse", {voice.coarse.n_codebook, voice.coarse.n_frames},
             voice.coarse.ids);
    w.tensor("voice." + name + ".fine", {voice.fine.n_codebook, voice.fine.n_frames},
             voice.fine.ids);
  }
  add_gpts(w, c, options.matrices);
  add_codec(w, c.codec);
}

GgufWriter synthetic_writer(const Config& c, const SyntheticOptions& options) {
  std::vector<std::string> names;
  for (const auto& [name, voice] : options.voices) names.push_back(name);
  GgufWriter w = synthetic_metadata(c, names);
  if (!options.codec_digest.empty()) w.string("bark.codec.sha256", options.codec_digest);
  add_synthetic_tensors(w, c, options);
  return w;
}

SyntheticModel synthetic_model(const Config& config, int n_threads,
                               const SyntheticOptions& options) {
  SyntheticModel m;
  m.image = std::make_shared<Image>(synthetic_writer(config, options).build());
  const bool cuda = options.instruction_set == "cuda";
  m.model = Model::load(Gguf::from_memory(m.image->data(), m.image->bytes()), cuda ? 1 : 0,
                        n_threads, {}, cuda ? "" : options.instruction_set);
  return m;
}

Voice synthetic_voice(const Config& c, int64_t n_semantic, int64_t n_frames) {
  Voice v;
  for (int64_t i = 0; i < n_semantic; ++i)
    v.semantic.push_back(static_cast<int32_t>((7 * i * i + 3 * i + 11) % c.semantic.vocab_size));
  v.fine = {c.fine.n_fine_codebook, n_frames, {}};
  for (int64_t q = 0; q < c.fine.n_fine_codebook; ++q)
    for (int64_t i = 0; i < n_frames; ++i)
      v.fine.ids.push_back(
          static_cast<int32_t>((13 * i * i + 5 * i * q + 29 * q + 3) % c.codebook_size));
  v.coarse = {c.coarse.n_codebook, n_frames, v.fine.ids};
  v.coarse.ids.resize(c.coarse.n_codebook * n_frames);
  return v;
}

}  // namespace barkrt::test
