// gguf_cursor.h: reads a GGUF image front to back, every step checked against its end.
#pragma once

#include <utf8proc.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace barkrt::gguf {

constexpr int64_t kMaxName = 65535;  // bytes of a key or tensor name, by the GGUF standard
constexpr int kMaxArrayDepth = 4;

// GGUF's metadata value types.
enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kValueTypes,
};
constexpr const char* kValueName[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};
constexpr int64_t kValueBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // 0: not fixed

inline bool is_integer(uint32_t type) { return type <= kI32 || type == kU64 || type == kI64; }

// One metadata value, where it lies. An array's elements start at `offset`.
struct Value {
  uint32_t type = 0;
  uint32_t element = 0;  // type of an array's elements
  int64_t count = 1;
  int64_t offset = 0;
};

// A name as error texts show it: at most about 100 bytes, cut between characters.
inline std::string shown(std::string_view name) {
  if (name.size() <= 100) return std::string(name);
  size_t n = 100;
  while (n > 0 && (static_cast<unsigned char>(name[n]) & 0xc0) == 0x80) n--;
  return std::string(name.substr(0, n)) + "...";
}

inline std::string shown(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); i++) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

// Offset of the first byte that is not UTF-8, or -1.
inline int64_t invalid_utf8_at(std::string_view s) {
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(s.data());
  const auto n = static_cast<utf8proc_ssize_t>(s.size());
  for (utf8proc_ssize_t i = 0; i < n;) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t used = p[i] < 0x80 ? 1 : utf8proc_iterate(p + i, n - i, &code_point);
    if (used <= 0) return i;
    i += used;
  }
  return -1;
}

// Reads the image front to back; every read is checked against its end.
class Cursor {
 public:
  Cursor(const std::byte* data, int64_t bytes, const std::string& origin)
      : data_(data), bytes_(bytes), origin_(origin) {}

  int64_t at() const { return at_; }
  int64_t left() const { return bytes_ - at_; }

  template <typename T>
  T read(const char* what) {
    need(static_cast<int64_t>(sizeof(T)), what);
    T v;
    std::memcpy(&v, data_ + at_, sizeof v);
    at_ += static_cast<int64_t>(sizeof v);
    return v;
  }

  void skip(int64_t n, const char* what) {
    need(n, what);
    at_ += n;
  }

  // A number of things of at least `min_bytes` each: more than fit in the rest is a lie.
  int64_t read_count(int64_t min_bytes, const char* what) {
    const int64_t start = at_;
    const auto n = read<uint64_t>(what);
    if (n > static_cast<uint64_t>(left() / min_bytes))
      bad(start, std::string(what) + " is " + std::to_string(n) + ", more than the file can hold");
    return static_cast<int64_t>(n);
  }

  std::string_view read_string(const char* what) {
    const int64_t n = read_count(1, what);
    const std::string_view s(reinterpret_cast<const char*>(data_ + at_), static_cast<size_t>(n));
    const int64_t wrong = invalid_utf8_at(s);
    if (wrong >= 0) bad(at_ + wrong, std::string(what) + " is not UTF-8");
    at_ += n;
    return s;
  }

  // A key or tensor name: fit to be shown in an error text or a list.
  std::string_view read_name(const char* what) {
    const int64_t start = at_;
    const std::string_view s = read_string(what);
    if (s.empty()) bad(start, std::string(what) + " is empty");
    if (static_cast<int64_t>(s.size()) > kMaxName)
      bad(start, std::string(what) + " is " + std::to_string(s.size()) + " bytes long");
    for (const char c : s)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
        bad(start, std::string(what) + " contains a control character");
    return s;
  }

  [[noreturn]] void bad(int64_t at, const std::string& why) const {
    fail(Status::BadModel, "%s: %s (at byte %lld)", origin_.c_str(), why.c_str(),
         static_cast<long long>(at));
  }

 private:
  void need(int64_t n, const char* what) const {
    if (n > left())
      bad(at_, std::string("the file ends inside ") + what + ": " + std::to_string(n) +
                   " bytes needed, " + std::to_string(left()) + " left; it may be incomplete");
  }

  const std::byte* data_;
  int64_t bytes_;
  int64_t at_ = 0;
  const std::string& origin_;
};

inline void skip_value(Cursor& in, uint32_t type, int64_t count, int depth);

// Reads an array's head into `value`, then passes its elements.
inline void skip_array(Cursor& in, Value* value, int depth) {
  const int64_t start = in.at();
  if (depth > kMaxArrayDepth) in.bad(start, "metadata arrays are nested too deeply");
  value->element = in.read<uint32_t>("a metadata array");
  if (value->element >= kValueTypes)
    in.bad(start, "unknown metadata type " + std::to_string(value->element));
  const int64_t min_bytes = value->element == kString  ? 8
                            : value->element == kArray ? 12
                                                       : kValueBytes[value->element];
  value->count = in.read_count(min_bytes, "length of a metadata array");
  value->offset = in.at();
  skip_value(in, value->element, value->count, depth);
}

inline void skip_value(Cursor& in, uint32_t type, int64_t count, int depth) {
  if (type == kArray) {
    Value inner;
    for (int64_t i = 0; i < count; i++) skip_array(in, &inner, depth + 1);
  } else if (type == kString) {
    for (int64_t i = 0; i < count; i++) in.read_string("a metadata string");
  } else if (type == kBool) {
    for (int64_t i = 0; i < count; i++)
      if (in.read<uint8_t>("a metadata value") > 1)
        in.bad(in.at() - 1, "a bool is neither 0 nor 1");
  } else {
    in.skip(count * kValueBytes[type], "a metadata value");  // read_count bounded the product
  }
}

inline Value read_value(Cursor& in) {
  Value value;
  const int64_t start = in.at();
  value.type = in.read<uint32_t>("a metadata type");
  if (value.type >= kValueTypes)
    in.bad(start, "unknown metadata type " + std::to_string(value.type));
  value.offset = in.at();
  if (value.type == kArray) {
    skip_array(in, &value, 0);
  } else {
    skip_value(in, value.type, 1, 0);
  }
  return value;
}

}  // namespace barkrt::gguf
