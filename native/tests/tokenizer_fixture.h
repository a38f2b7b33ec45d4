// tokenizer_fixture.h: vocabularies for tests of the tokenizer, as GGUF metadata.
#pragma once

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gguf_writer.h"

namespace barkrt::test {

inline std::vector<std::string> special_tokens() {
  return {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
}

struct TokenizerVariant {
  bool lowercase = false;
  bool strip_accents = false;
  bool split_cjk = true;
  uint32_t max_word_chars = 100;
  uint32_t unknown_id = 100;
};

// Everything tokenizer.* that DESIGN.md lists.
inline GgufWriter tokenizer_gguf(const std::vector<std::string>& vocab, TokenizerVariant v = {},
                                 const std::vector<std::string>& special = special_tokens()) {
  GgufWriter w;
  w.string("tokenizer.ggml.model", "bert")
      .strings("tokenizer.ggml.tokens", vocab)
      .u32("tokenizer.ggml.unknown_token_id", v.unknown_id)
      .strings("tokenizer.bark.special_tokens", special)
      .boolean("tokenizer.bark.lowercase", v.lowercase)
      .boolean("tokenizer.bark.strip_accents", v.strip_accents)
      .boolean("tokenizer.bark.split_cjk", v.split_cjk)
      .u32("tokenizer.bark.max_word_chars", v.max_word_chars);
  return w;
}

// The committed extract of BERT's vocabulary at its own ids; the gaps are empty pieces, which never
// match.
inline std::vector<std::string> extract_vocab() {
  std::ifstream file(BARKRT_TESTDATA "/tokenizer_vocab.tsv");
  std::vector<std::string> vocab(119547);
  for (std::string line; std::getline(file, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) continue;
    const size_t id = std::stoul(line.substr(0, tab));
    if (id < vocab.size()) vocab[id] = line.substr(tab + 1);
  }
  return vocab;
}

}  // namespace barkrt::test
