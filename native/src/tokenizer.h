// tokenizer.h: BERT WordPiece as Bark uses it: no lower-casing by default, accents kept, no special
// tokens added.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "memory.h"
#include "sampling.h"

namespace barkrt {

class Gguf;

// Immutable after construction; pieces point into the model file. Thread-safe.
class Tokenizer {
 public:
  // Reads tokenizer.* (DESIGN.md, file format); counts its index in `account` (Tables). BadModel.
  Tokenizer(const Gguf& gguf, MemoryAccount& account);
  ~Tokenizer();
  // What the index takes, from the header alone: equals what the constructor counts.
  static int64_t estimate_bytes(const Gguf& gguf);

  // Ids of UTF-8 text. Suno: every run of \s becomes one space, ends stripped, NFC first. HF:
  // neither. InvalidArgument for invalid UTF-8 (naming the byte), and under Suno for text that is
  // empty after stripping.
  std::vector<int32_t> encode(std::string_view text, Rules rules) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace barkrt
