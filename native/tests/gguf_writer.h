// gguf_writer.h: builds a GGUF v3 image in memory, well formed or, where a test asks, not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor.h"

namespace barkrt::test {

// Owned bytes at a 64-byte aligned address. Exactly as many as asked for, so that a sanitizer sees
// a read past the end.
class Image {
 public:
  explicit Image(std::string_view content);

  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t bytes_ = 0;
};

// GGUF's numbers of the metadata value types.
enum class GgufType : uint32_t {
  U8 = 0,
  I8 = 1,
  U16 = 2,
  I16 = 3,
  U32 = 4,
  I32 = 5,
  F32 = 6,
  Bool = 7,
  String = 8,
  Array = 9,
  U64 = 10,
  I64 = 11,
  F64 = 12,
};

// Collects metadata and tensors, then lays them out. general.alignment = 64 comes first unless
// alignment(0). Keys and names may be added twice: readers must refuse that.
class GgufWriter {
 public:
  GgufWriter& u32(std::string_view key, uint32_t value);
  GgufWriter& i64(std::string_view key, int64_t value);
  GgufWriter& f32(std::string_view key, float value);
  GgufWriter& f64(std::string_view key, double value);
  GgufWriter& boolean(std::string_view key, bool value);
  GgufWriter& string(std::string_view key, std::string_view value);
  GgufWriter& strings(std::string_view key, const std::vector<std::string>& values);
  GgufWriter& u32s(std::string_view key, const std::vector<uint32_t>& values);
  // Any value, its bytes as they lie in the file.
  GgufWriter& value(std::string_view key, GgufType type, std::string_view bytes);

  // `shape` is row-major, slowest first; `data` holds product(shape) elements of `type`.
  GgufWriter& tensor(std::string_view name, DType type, const std::vector<int64_t>& shape,
                     const void* data);
  GgufWriter& tensor(std::string_view name, const std::vector<int64_t>& shape,
                     const std::vector<float>& values);
  GgufWriter& tensor(std::string_view name, const std::vector<int64_t>& shape,
                     const std::vector<int32_t>& values);
  // Another shape for a tensor that is there; its bytes are zeros then.
  GgufWriter& reshape(std::string_view name, const std::vector<int64_t>& shape);

  // Of general.alignment and of the layout; 0 leaves the key out and lays out by 64.
  GgufWriter& alignment(uint32_t bytes);

  std::string content() const;
  Image build() const { return Image(content()); }

  // Little-endian bytes and length-prefixed strings, for value().
  static std::string number(uint64_t value, int n_bytes);
  static std::string text(std::string_view s);

 private:
  struct Tensor {
    std::string name;
    DType type;
    std::vector<int64_t> shape;
    std::string data;
  };
  uint64_t n_metadata_ = 0;
  std::string metadata_;
  std::vector<Tensor> tensors_;
  uint32_t alignment_ = 64;
};

}  // namespace barkrt::test
