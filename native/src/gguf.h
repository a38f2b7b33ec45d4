// gguf.h: a GGUF v3 image, validated: metadata by key, tensors by name, in place. Never trusts a
// length.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor.h"

namespace barkrt {

struct GgufTensor {
  std::string_view name;
  DType type = DType::F32;
  std::vector<int64_t> shape;  // row-major, slowest first: [out, in]; GGUF's own order reversed
  int64_t offset = 0;          // of the data, from the start of the image; 64-byte aligned
  int64_t bytes = 0;
};

// Immutable after construction; all views point into the image. Thread-safe.
class Gguf {
 public:
  // Maps the file read-only. NotFound, BadModel ("... at byte N ...").
  static std::shared_ptr<const Gguf> open(const std::string& path);
  // Uses the caller's bytes in place; `data` is 64-byte aligned (else InvalidArgument) and outlives
  // the object.
  static std::shared_ptr<const Gguf> from_memory(const void* data, int64_t bytes);
  ~Gguf();
  Gguf(const Gguf&) = delete;

  const std::string& origin() const;  // path or "memory", for error texts
  const std::byte* data() const;
  int64_t bytes() const;
  const std::vector<GgufTensor>& tensors() const;

  bool is_file() const;  // else the caller's memory
  // Part of the image, for as long as the result lives: a mapping of its own, or a pointer into the
  // caller's memory. OutOfMemory.
  std::shared_ptr<const std::byte> map(int64_t offset, int64_t bytes) const;

  // nullptr when absent. O(1).
  const GgufTensor* find(std::string_view name) const;
  // BadModel naming the tensor when absent or of another shape.
  const GgufTensor& need(std::string_view name, const std::vector<int64_t>& shape) const;

  // Metadata. need_*: BadModel naming the key when absent, of another type, or outside [min, max].
  bool has(std::string_view key) const;
  int64_t need_int(std::string_view key, int64_t min, int64_t max) const;
  double need_float(std::string_view key, double min, double max) const;
  bool need_bool(std::string_view key) const;
  std::string_view need_string(std::string_view key) const;
  std::vector<std::string_view> need_strings(std::string_view key) const;
  std::vector<int64_t> need_ints(std::string_view key, int64_t min, int64_t max) const;

 private:
  Gguf();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace barkrt
