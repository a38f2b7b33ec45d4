#include "config.h"

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cstdarg>
#include <cstdio>

#include "error.h"
#include "gguf.h"

namespace barkrt {
namespace {

// Bounds that no sane model nears: they keep every product of sizes far inside int64.
constexpr int64_t kMaxId = INT32_MAX / 2;
constexpr int64_t kMaxLength = 1 << 20;
constexpr int64_t kMaxWidth = 1 << 16;
constexpr int64_t kMaxKernel = 64;
constexpr int64_t kMaxDilation = 4096;
constexpr double kMaxTokens = 1 << 26;

// Reads the keys below one prefix.
class Section {
 public:
  Section(const Gguf& gguf, std::string prefix) : gguf_(gguf), prefix_(std::move(prefix)) {}
  int64_t length(const char* key) const { return integer(key, 1, kMaxLength); }
  int64_t width(const char* key) const { return integer(key, 1, kMaxWidth); }
  int64_t id(const char* key) const { return integer(key, 0, kMaxId); }
  int64_t integer(const char* key, int64_t min, int64_t max) const {
    return gguf_.need_int(prefix_ + key, min, max);
  }
  double rate(const char* key) const { return gguf_.need_float(prefix_ + key, 1e-3, 1e9); }
  float real(const char* key, double min, double max) const {
    return static_cast<float>(gguf_.need_float(prefix_ + key, min, max));
  }
  bool flag(const char* key) const { return gguf_.need_bool(prefix_ + key); }
  std::vector<int64_t> list(const char* key, int64_t min, int64_t max) const {
    return gguf_.need_ints(prefix_ + key, min, max);
  }

 private:
  const Gguf& gguf_;
  std::string prefix_;
};

__attribute__((format(printf, 2, 3))) void require(bool holds, const char* format, ...) {
  if (holds) return;
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error(Status::BadModel, text);
}

long long ll(int64_t v) { return v; }

GptConfig read_gpt(const Gguf& gguf, const char* name, bool causal) {
  const Section s(gguf, std::string("bark.") + name + ".");
  GptConfig c;
  c.name = name;
  c.n_layer = s.integer("n_layer", 1, 1024);
  c.n_head = s.width("n_head");
  c.n_embd = s.width("n_embd");
  c.block_size = s.length("block_size");
  c.n_vocab_in = s.integer("n_vocab_in", 1, kMaxId);
  c.n_vocab_out = s.integer("n_vocab_out", 1, kMaxId);
  c.linear_bias = s.flag("bias");
  c.norm_bias = !causal || c.linear_bias;
  if (const GgufTensor* t = gguf.find(c.name + ".h.0.mlp.c_fc.weight")) c.matrix_type = t->type;
  c.hf.temperature = s.real("hf.temperature", 0, FLT_MAX);
  if (causal) {
    c.hf.top_k = static_cast<int32_t>(s.integer("hf.top_k", 0, INT32_MAX));
    c.hf.top_p = s.real("hf.top_p", FLT_MIN, 1);
  }
  return c;
}

SemanticConfig read_semantic(const Gguf& gguf) {
  const Section s(gguf, "bark.semantic.");
  SemanticConfig c;
  c.gpt = read_gpt(gguf, "semantic", true);
  c.vocab_size = s.integer("vocab_size", 1, kMaxId);
  c.eos_token = s.id("eos_token");
  const int64_t pad_token = s.id("pad_token");
  if (pad_token != c.eos_token)
    fail(Status::Unsupported,
         "the model's semantic eos_token %lld and pad_token %lld differ: convert a model where "
         "they are the same token",
         ll(c.eos_token), ll(pad_token));
  c.infer_token = s.id("infer_token");
  c.text_encoding_offset = s.id("text_encoding_offset");
  c.text_pad_token = s.id("text_pad_token");
  c.max_input_length = s.length("max_input_length");
  c.max_new_tokens = s.length("max_new_tokens");
  c.rate_hz = s.rate("rate_hz");
  return c;
}

CoarseConfig read_coarse(const Gguf& gguf) {
  const Section s(gguf, "bark.coarse.");
  CoarseConfig c;
  c.gpt = read_gpt(gguf, "coarse", true);
  c.semantic_pad_token = s.id("semantic_pad_token");
  c.infer_token = s.id("infer_token");
  c.max_input_length = s.length("max_input_length");
  c.max_history = s.length("max_history");
  c.window_length = s.length("window_length");
  c.n_codebook = s.integer("n_codebook", 1, 256);
  c.rate_hz = s.rate("rate_hz");
  return c;
}

FineConfig read_fine(const Gguf& gguf) {
  const Section s(gguf, "bark.fine.");
  FineConfig c;
  c.gpt = read_gpt(gguf, "fine", false);
  c.n_codebook = s.integer("n_codebook", 1, 256);
  c.n_given = s.integer("n_given", 1, 256);
  c.n_fine_codebook = s.integer("n_fine_codebook", 1, 256);
  c.input_length = s.length("input_length");
  c.history_length = s.length("history_length");
  return c;
}

CodecConfig read_codec(const Gguf& gguf) {
  const Section s(gguf, "bark.codec.");
  CodecConfig c;
  c.sample_rate = s.integer("sample_rate", 1, 10'000'000);
  c.hidden_size = s.width("hidden_size");
  c.n_filter = s.width("n_filter");
  c.kernel_size = s.integer("kernel_size", 1, kMaxKernel);
  c.last_kernel_size = s.integer("last_kernel_size", 1, kMaxKernel);
  c.residual_kernel_size = s.integer("residual_kernel_size", 1, kMaxKernel);
  c.n_residual_layer = s.integer("n_residual_layer", 0, 64);
  c.dilation_growth_rate = s.integer("dilation_growth_rate", 1, kMaxDilation);
  c.compress = s.width("compress");
  c.n_lstm_layer = s.integer("n_lstm_layer", 1, 64);
  c.codebook_size = s.integer("codebook_size", 1, kMaxId);
  c.n_codebook = s.integer("n_codebook", 1, 256);
  c.ratios = s.list("ratios", 1, kMaxWidth);
  c.conv_shortcut = s.flag("conv_shortcut");
  return c;
}

void check_gpt(const GptConfig& c) {
  require(c.n_embd % c.n_head == 0, "bark.%s: n_embd %lld is not a multiple of n_head %lld",
          c.name.c_str(), ll(c.n_embd), ll(c.n_head));
}

void check_id(const GptConfig& c, const char* key, int64_t id) {
  require(id < c.n_vocab_in, "bark.%s.%s is %lld, outside its n_vocab_in of %lld", c.name.c_str(),
          key, ll(id), ll(c.n_vocab_in));
}

void check_semantic(const SemanticConfig& c) {
  check_gpt(c.gpt);
  check_id(c.gpt, "eos_token", c.eos_token);
  check_id(c.gpt, "infer_token", c.infer_token);
  check_id(c.gpt, "text_pad_token", c.text_pad_token);
  check_id(c.gpt, "text_encoding_offset", c.text_encoding_offset);
  require(c.eos_token >= c.vocab_size && c.eos_token < c.gpt.n_vocab_out,
          "bark.semantic.eos_token is %lld, outside vocab_size %lld .. n_vocab_out %lld",
          ll(c.eos_token), ll(c.vocab_size), ll(c.gpt.n_vocab_out));
  require(c.max_input_length < c.gpt.block_size,
          "bark.semantic.max_input_length %lld does not fit a block_size of %lld",
          ll(c.max_input_length), ll(c.gpt.block_size));
}

void check_coarse(const Config& config) {
  const CoarseConfig& c = config.coarse;
  check_gpt(c.gpt);
  check_id(c.gpt, "semantic_pad_token", c.semantic_pad_token);
  check_id(c.gpt, "infer_token", c.infer_token);
  const int64_t end = config.semantic.vocab_size + c.n_codebook * config.codebook_size;
  require(end <= c.gpt.n_vocab_out,
          "bark.coarse: %lld codebooks of %lld codes end at %lld, past n_vocab_out %lld",
          ll(c.n_codebook), ll(config.codebook_size), ll(end), ll(c.gpt.n_vocab_out));
  // What bounds the length of a clip.
  const double n_tokens = static_cast<double>(config.semantic.max_tokens()) * c.rate_hz /
                          config.semantic.rate_hz * static_cast<double>(c.n_codebook);
  require(n_tokens <= kMaxTokens,
          "bark.coarse.rate_hz %g over bark.semantic.rate_hz %g makes a clip of %g tokens",
          c.rate_hz, config.semantic.rate_hz, n_tokens);
  require(c.gpt.n_vocab_out <= c.gpt.n_vocab_in,
          "bark.coarse: n_vocab_out %lld is more than n_vocab_in %lld", ll(c.gpt.n_vocab_out),
          ll(c.gpt.n_vocab_in));
  require(c.max_input_length < c.gpt.block_size,
          "bark.coarse.max_input_length %lld does not fit a block_size of %lld",
          ll(c.max_input_length), ll(c.gpt.block_size));
}

void check_fine(const Config& config) {
  const FineConfig& c = config.fine;
  check_gpt(c.gpt);
  require(c.gpt.n_vocab_in > config.codebook_size,
          "bark.fine.n_vocab_in %lld has no row for the unknown code %lld", ll(c.gpt.n_vocab_in),
          ll(config.codebook_size));
  require(c.gpt.n_vocab_out >= config.codebook_size,
          "bark.fine.n_vocab_out %lld is less than codebook_size %lld", ll(c.gpt.n_vocab_out),
          ll(config.codebook_size));
  require(c.n_fine_codebook <= c.n_codebook,
          "bark.fine: n_fine_codebook %lld is more than n_codebook %lld", ll(c.n_fine_codebook),
          ll(c.n_codebook));
  require(config.coarse.n_codebook <= c.n_fine_codebook,
          "bark.coarse.n_codebook %lld is more than bark.fine.n_fine_codebook %lld",
          ll(config.coarse.n_codebook), ll(c.n_fine_codebook));
  require(c.n_given <= config.coarse.n_codebook,
          "bark.fine.n_given %lld is more than bark.coarse.n_codebook %lld: codebook %lld "
          "would have no head",
          ll(c.n_given), ll(config.coarse.n_codebook), ll(config.coarse.n_codebook));
  require(c.input_length <= c.gpt.block_size,
          "bark.fine.input_length %lld does not fit a block_size of %lld", ll(c.input_length),
          ll(c.gpt.block_size));
  require(c.history_length <= c.input_length,
          "bark.fine.history_length %lld is more than input_length %lld", ll(c.history_length),
          ll(c.input_length));
}

void check_codec(const Config& config) {
  const CodecConfig& c = config.codec;
  require(!c.ratios.empty() && c.ratios.size() <= 16,
          "bark.codec.ratios has %zu entries, not 1 .. 16", c.ratios.size());
  int64_t hop = 1, width = c.n_filter;
  for (const int64_t ratio : c.ratios) {
    hop *= ratio;
    width *= 2;
    require(ratio >= 1 && hop <= kMaxWidth && width <= kMaxWidth,
            "bark.codec: ratios or n_filter are too large (hop over %lld, or width %lld)",
            ll(kMaxWidth), ll(width));
  }
  require(c.n_residual_layer == 0 || c.n_filter / c.compress >= 1,
          "bark.codec.compress %lld leaves nothing of n_filter %lld", ll(c.compress),
          ll(c.n_filter));
  int64_t dilation = 1;
  for (int64_t j = 1; j < c.n_residual_layer; ++j) {
    dilation *= c.dilation_growth_rate;
    require(dilation <= kMaxDilation, "bark.codec: residual layer %lld is dilated by %lld", ll(j),
            ll(dilation));
  }
  require(c.n_codebook >= config.fine.n_fine_codebook,
          "bark.codec.n_codebook %lld is less than bark.fine.n_fine_codebook %lld",
          ll(c.n_codebook), ll(config.fine.n_fine_codebook));
  require(c.codebook_size >= config.codebook_size,
          "bark.codec.codebook_size %lld is less than bark.codebook_size %lld", ll(c.codebook_size),
          ll(config.codebook_size));
}

}  // namespace

int64_t SemanticConfig::max_tokens() const {
  return std::min(max_new_tokens, gpt.block_size - max_input_length);
}

int64_t SemanticConfig::n_ctx() const { return max_input_length + max_tokens(); }

int64_t CoarseConfig::max_prompt() const {
  return std::min(max_input_length + 1 + max_history, gpt.block_size);
}

int64_t CoarseConfig::n_ctx() const {
  return std::min(max_input_length + max_history + window_length, gpt.block_size);
}

int64_t CodecConfig::hop_length() const { return rate(static_cast<int64_t>(ratios.size())); }

int64_t CodecConfig::width(int64_t up) const {
  return n_filter << (static_cast<int64_t>(ratios.size()) - up);
}

int64_t CodecConfig::rate(int64_t up) const {
  int64_t rows = 1;
  for (int64_t i = 0; i < up; ++i) rows *= ratios[i];
  return rows;
}

int64_t CodecConfig::dilation(int64_t j) const {
  int64_t d = 1;
  for (int64_t i = 0; i < j; ++i) d *= dilation_growth_rate;
  return d;
}

void check_config(const Config& config) {
  check_semantic(config.semantic);
  check_coarse(config);
  check_fine(config);
  check_codec(config);
}

Config read_config(const Gguf& gguf) {
  const std::string architecture(gguf.need_string("general.architecture"));
  if (architecture != "bark")
    fail(Status::BadModel, "%s holds a model of architecture \"%s\", not \"bark\"",
         gguf.origin().c_str(), architecture.substr(0, 64).c_str());
  const int64_t version = gguf.need_int("bark.format_version", 0, UINT32_MAX);
  if (version != 1)
    fail(Status::Unsupported, "%s has format version %lld; this build reads 1: convert it again",
         gguf.origin().c_str(), ll(version));
  Config config;
  config.name = std::string(gguf.need_string("general.name"));
  config.trained = gguf.need_bool("bark.trained");
  config.codebook_size = gguf.need_int("bark.codebook_size", 1, kMaxLength);
  config.semantic = read_semantic(gguf);
  config.coarse = read_coarse(gguf);
  config.fine = read_fine(gguf);
  config.codec = read_codec(gguf);
  check_config(config);
  return config;
}

}  // namespace barkrt
