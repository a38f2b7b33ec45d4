// config.h: every constant of a model, read from its file's metadata and checked against each
// other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor.h"

namespace barkrt {

class Gguf;

// What transformers would sample with, given the model's generation config.
struct HfSampling {
  float temperature = 0;  // 0: it takes the argmax
  float top_p = 1;        // 1: off
  int32_t top_k = 0;      // 0: off
};

// Shape of one transformer.
struct GptConfig {
  std::string name;  // "semantic", "coarse", "fine": prefix of its tensors and keys
  int64_t n_layer = 0;
  int64_t n_head = 0;
  int64_t n_embd = 0;
  int64_t block_size = 0;  // positions of wpe
  int64_t n_vocab_in = 0;
  int64_t n_vocab_out = 0;
  bool linear_bias = false;
  bool norm_bias = false;
  DType matrix_type = DType::F32;  // of the first block's c_fc, and as a rule of all
  HfSampling hf;
};

struct SemanticConfig {
  GptConfig gpt;
  int64_t vocab_size = 0;  // ids 0 .. vocab_size-1 are speech
  int64_t eos_token = 0;   // also the "no history" token; >= vocab_size
  int64_t infer_token = 0;
  int64_t text_encoding_offset = 0;
  int64_t text_pad_token = 0;
  int64_t max_input_length = 0;  // of the text, and of the history beside it
  int64_t max_new_tokens = 0;
  double rate_hz = 0;

  // Tokens one generation can have: the last one is sampled but never fed.
  int64_t max_tokens() const;
  // Positions that the cache must hold.
  int64_t n_ctx() const;
};

struct CoarseConfig {
  GptConfig gpt;
  int64_t semantic_pad_token = 0;
  int64_t infer_token = 0;
  int64_t max_input_length = 0;  // semantic tokens in front of a window
  int64_t max_history = 0;       // coarse tokens in front of a window
  int64_t window_length = 0;     // tokens generated per window
  int64_t n_codebook = 0;
  double rate_hz = 0;  // frames per second

  int64_t max_prompt() const;  // longest prompt of a window, within the context
  int64_t n_ctx() const;
};

struct FineConfig {
  GptConfig gpt;
  int64_t n_codebook = 0;       // token tables
  int64_t n_given = 0;          // tables without a head: head of codebook c is c - n_given
  int64_t n_fine_codebook = 0;  // codebooks of the result
  int64_t input_length = 0;     // rows of every pass
  int64_t history_length = 0;   // rows of voice in front, and the hop of the windows
};

struct CodecConfig {
  int64_t sample_rate = 0;
  int64_t hidden_size = 0;
  int64_t n_filter = 0;
  int64_t kernel_size = 0;
  int64_t last_kernel_size = 0;
  int64_t residual_kernel_size = 0;
  int64_t n_residual_layer = 0;
  int64_t dilation_growth_rate = 0;
  int64_t compress = 0;
  int64_t n_lstm_layer = 0;
  int64_t codebook_size = 0;
  int64_t n_codebook = 0;  // tables in the file
  std::vector<int64_t> ratios;
  bool conv_shortcut = true;

  int64_t hop_length() const;         // samples per frame
  int64_t width(int64_t up) const;    // channels after `up` upsamplings
  int64_t rate(int64_t up) const;     // rows per frame after `up` upsamplings
  int64_t dilation(int64_t j) const;  // of residual layer j
};

struct Config {
  std::string name;
  bool trained = true;
  int64_t codebook_size = 0;  // codes are 0 .. codebook_size-1; codebook_size means "unknown"
  SemanticConfig semantic;
  CoarseConfig coarse;
  FineConfig fine;
  CodecConfig codec;
};

// Throws BadModel (Unsupported for what is well formed but not implemented), naming key and value.
Config read_config(const Gguf& gguf);

// The cross-checks of read_config, apart: what must hold between the constants.
void check_config(const Config& config);

}  // namespace barkrt
