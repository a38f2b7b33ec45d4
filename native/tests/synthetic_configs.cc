// synthetic_configs.cc: the shapes of the synthetic models.
#include "synthetic.h"

namespace barkrt::test {
namespace {

void set_shape(GptConfig& g, const char* name, int64_t n_layer, int64_t n_head, int64_t n_embd,
               int64_t block_size, int64_t n_vocab_in, int64_t n_vocab_out) {
  g.name = name;
  g.n_layer = n_layer;
  g.n_head = n_head;
  g.n_embd = n_embd;
  g.block_size = block_size;
  g.n_vocab_in = n_vocab_in;
  g.n_vocab_out = n_vocab_out;
  g.norm_bias = g.name == "fine";
  g.hf = {0.7f, 1, 50};
}

}  // namespace

Config golden_config() {
  Config c;
  c.name = "test/golden";
  c.trained = false;
  c.codebook_size = 1024;
  set_shape(c.semantic.gpt, "semantic", 2, 2, 128, 1024, 129600, 10048);
  c.semantic.vocab_size = c.semantic.eos_token = 10000;
  c.semantic.infer_token = 129599;
  c.semantic.text_encoding_offset = 10048;
  c.semantic.text_pad_token = 129595;
  c.semantic.max_input_length = 256;
  c.semantic.max_new_tokens = 768;
  c.semantic.rate_hz = 49.9;
  set_shape(c.coarse.gpt, "coarse", 2, 2, 128, 1024, 12096, 12096);
  c.coarse.semantic_pad_token = 12048;
  c.coarse.infer_token = 12050;
  c.coarse.max_input_length = 256;
  c.coarse.max_history = 630;
  c.coarse.window_length = 60;
  c.coarse.n_codebook = 2;
  c.coarse.rate_hz = 75;
  set_shape(c.fine.gpt, "fine", 2, 2, 128, 1024, 1056, 1056);
  c.fine.gpt.hf = {0.5f, 1, 0};
  c.fine.n_codebook = c.fine.n_fine_codebook = 8;
  c.fine.n_given = 1;
  c.fine.input_length = 1024;
  c.fine.history_length = 512;
  c.codec = {24000, 128, 32, 7, 7, 3, 1, 2, 2, 2, 1024, 8, {8, 5, 4, 2}, true};
  return c;
}

Config small_config() {
  Config c;
  c.name = "test/small";
  c.trained = false;
  c.codebook_size = 48;
  set_shape(c.semantic.gpt, "semantic", 2, 2, 32, 64, 300, 140);
  c.semantic.vocab_size = c.semantic.eos_token = 120;
  c.semantic.infer_token = 299;
  c.semantic.text_encoding_offset = 140;
  c.semantic.text_pad_token = 290;
  c.semantic.max_input_length = 16;
  c.semantic.max_new_tokens = 40;
  c.semantic.rate_hz = 49.9;
  set_shape(c.coarse.gpt, "coarse", 2, 2, 32, 96, 224, 222);
  c.coarse.semantic_pad_token = 218;
  c.coarse.infer_token = 220;
  c.coarse.max_input_length = 24;
  c.coarse.max_history = 48;
  c.coarse.window_length = 12;
  c.coarse.n_codebook = 2;
  c.coarse.rate_hz = 75;
  set_shape(c.fine.gpt, "fine", 2, 2, 32, 64, 56, 56);
  c.fine.gpt.hf = {0.5f, 1, 0};
  c.fine.n_codebook = c.fine.n_fine_codebook = 4;
  c.fine.n_given = 1;
  c.fine.input_length = 40;
  c.fine.history_length = 20;
  c.codec = {8000, 12, 4, 7, 7, 3, 1, 2, 2, 2, 48, 4, {4, 3, 2}, true};
  return c;
}

Config odd_config() {
  Config c = small_config();
  c.name = "test/odd";
  set_shape(c.semantic.gpt, "semantic", 1, 3, 21, 70, 301, 133);
  c.semantic.gpt.linear_bias = c.semantic.gpt.norm_bias = true;
  c.semantic.eos_token = 131;
  c.semantic.rate_hz = 31;
  set_shape(c.coarse.gpt, "coarse", 3, 1, 20, 91, 300, 277);
  c.coarse.semantic_pad_token = 280;
  c.coarse.infer_token = 299;
  c.coarse.window_length = 9;
  c.coarse.n_codebook = 3;
  c.coarse.rate_hz = 47;
  set_shape(c.fine.gpt, "fine", 2, 4, 36, 50, 60, 51);
  c.fine.gpt.linear_bias = true;
  c.fine.n_codebook = 6;
  c.fine.n_fine_codebook = 5;
  c.fine.n_given = 2;
  c.fine.input_length = 33;
  c.fine.history_length = 11;
  c.codec = {8000, 10, 3, 5, 3, 3, 2, 3, 1, 1, 50, 6, {3, 2}, false};
  return c;
}

Config tiled_config() {
  Config c = small_config();
  c.name = "test/tiled";
  c.semantic.gpt.n_embd = c.coarse.gpt.n_embd = c.fine.gpt.n_embd = 64;
  // Heads and their legal parts begin and end with a tile.
  c.semantic.gpt.n_vocab_out = 144, c.coarse.gpt.n_vocab_out = 224;
  c.semantic.vocab_size = c.semantic.eos_token = 112;
  c.semantic.text_encoding_offset = 144;
  return c;
}

}  // namespace barkrt::test
