#include "gguf_writer.h"

#include <cstring>
#include <new>

namespace barkrt::test {

namespace {

uint32_t ggml_type(DType type) {
  switch (type) {
    case DType::F32:
      return 0;
    case DType::F16:
      return 1;
    case DType::I8:
      return 24;
    case DType::I32:
      return 26;
    case DType::BF16:
      return 30;
    case DType::I4:
    case DType::I8Tiles:
      break;  // written as the bytes of its tiles
  }
  return 0;
}

size_t tensor_bytes(DType type, const std::vector<int64_t>& shape) {
  int64_t n = dtype_bytes(type);
  for (int64_t d : shape) n *= d;
  return static_cast<size_t>(n);
}

template <typename To, typename From>
To bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &value, sizeof out);
  return out;
}

void pad(std::string& s, size_t alignment) {
  s.resize((s.size() + alignment - 1) / alignment * alignment, '\0');
}

}  // namespace

Image::Image(std::string_view content) : bytes_(static_cast<int64_t>(content.size())) {
  void* p = nullptr;
  if (posix_memalign(&p, 64, content.empty() ? 1 : content.size()) != 0) throw std::bad_alloc();
  data_.reset(static_cast<std::byte*>(p));
  if (!content.empty()) std::memcpy(p, content.data(), content.size());
}

std::string GgufWriter::number(uint64_t value, int n_bytes) {
  std::string out;
  for (int i = 0; i < n_bytes; i++) out += static_cast<char>(value >> (8 * i) & 0xff);
  return out;
}

std::string GgufWriter::text(std::string_view s) { return number(s.size(), 8).append(s); }

GgufWriter& GgufWriter::value(std::string_view key, GgufType type, std::string_view bytes) {
  metadata_ += text(key) + number(static_cast<uint32_t>(type), 4);
  metadata_ += bytes;
  n_metadata_++;
  return *this;
}

GgufWriter& GgufWriter::u32(std::string_view key, uint32_t v) {
  return value(key, GgufType::U32, number(v, 4));
}

GgufWriter& GgufWriter::i64(std::string_view key, int64_t v) {
  return value(key, GgufType::I64, number(static_cast<uint64_t>(v), 8));
}

GgufWriter& GgufWriter::f32(std::string_view key, float v) {
  return value(key, GgufType::F32, number(bits<uint32_t>(v), 4));
}

GgufWriter& GgufWriter::f64(std::string_view key, double v) {
  return value(key, GgufType::F64, number(bits<uint64_t>(v), 8));
}

GgufWriter& GgufWriter::boolean(std::string_view key, bool v) {
  return value(key, GgufType::Bool, number(v ? 1 : 0, 1));
}

GgufWriter& GgufWriter::string(std::string_view key, std::string_view v) {
  return value(key, GgufType::String, text(v));
}

GgufWriter& GgufWriter::strings(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = number(static_cast<uint32_t>(GgufType::String), 4) + number(values.size(), 8);
  for (const std::string& s : values) bytes += text(s);
  return value(key, GgufType::Array, bytes);
}

GgufWriter& GgufWriter::u32s(std::string_view key, const std::vector<uint32_t>& values) {
  std::string bytes = number(static_cast<uint32_t>(GgufType::U32), 4) + number(values.size(), 8);
  for (uint32_t v : values) bytes += number(v, 4);
  return value(key, GgufType::Array, bytes);
}

GgufWriter& GgufWriter::tensor(std::string_view name, DType type, const std::vector<int64_t>& shape,
                               const void* data) {
  tensors_.push_back({std::string(name), type, shape,
                      std::string(static_cast<const char*>(data), tensor_bytes(type, shape))});
  return *this;
}

GgufWriter& GgufWriter::reshape(std::string_view name, const std::vector<int64_t>& shape) {
  for (Tensor& t : tensors_)
    if (t.name == name) t.shape = shape, t.data = std::string(tensor_bytes(t.type, shape), '\0');
  return *this;
}

GgufWriter& GgufWriter::tensor(std::string_view name, const std::vector<int64_t>& shape,
                               const std::vector<float>& values) {
  return tensor(name, DType::F32, shape, values.data());
}

GgufWriter& GgufWriter::tensor(std::string_view name, const std::vector<int64_t>& shape,
                               const std::vector<int32_t>& values) {
  return tensor(name, DType::I32, shape, values.data());
}

GgufWriter& GgufWriter::alignment(uint32_t bytes) {
  alignment_ = bytes;
  return *this;
}

std::string GgufWriter::content() const {
  const size_t step = alignment_ == 0 ? 64 : alignment_;
  std::string out = "GGUF" + number(3, 4) + number(tensors_.size(), 8) +
                    number(n_metadata_ + (alignment_ == 0 ? 0 : 1), 8);
  if (alignment_ != 0) {
    out += text("general.alignment") + number(static_cast<uint32_t>(GgufType::U32), 4);
    out += number(alignment_, 4);
  }
  out += metadata_;
  std::string data;
  for (const Tensor& t : tensors_) {
    out += text(t.name) + number(t.shape.size(), 4);
    for (size_t i = t.shape.size(); i-- > 0;) out += number(static_cast<uint64_t>(t.shape[i]), 8);
    out += number(ggml_type(t.type), 4) + number(data.size(), 8);
    data += t.data;
    pad(data, step);
  }
  pad(out, step);
  return out + data;
}

}  // namespace barkrt::test
