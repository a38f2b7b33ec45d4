// fuzz_gguf.cc: any bytes as a GGUF image: parsed, looked up by every key and type, given to the
// tokenizer. Only an Error may come out.
#include <cstdint>
#include <string_view>

#include "error.h"
#include "gguf.h"
#include "gguf_writer.h"
#include "tokenizer.h"

namespace {

using barkrt::Gguf;

constexpr const char* kKeys[] = {"a",
                                 "b",
                                 "c",
                                 "d",
                                 "general.alignment",
                                 "general.architecture",
                                 "bark.codec.ratios",
                                 "bark.semantic.rate_hz",
                                 "bark.trained",
                                 "bark.voices",
                                 "tokenizer.ggml.tokens"};
constexpr const char* kTexts[] = {"Hello [MASK] world!", "a\u0301b c\u6f22d", "\xff", ""};

template <typename F>
void attempt(F f) {
  try {
    f();
  } catch (const barkrt::Error& e) {
    if (e.status() == barkrt::Status::Internal) __builtin_trap();
  }
}

volatile unsigned sink;  // so that reads happen

void touch(std::string_view s) {
  for (const char c : s) sink = sink + static_cast<unsigned char>(c);
}

void look_up(const Gguf& g, std::string_view key) {
  attempt([&] { g.need_int(key, -1000, 1000); });
  attempt([&] { g.need_float(key, -1e30, 1e30); });
  attempt([&] { g.need_bool(key); });
  attempt([&] { touch(g.need_string(key)); });
  attempt([&] {
    for (const std::string_view s : g.need_strings(key)) touch(s);
  });
  attempt([&] { g.need_ints(key, INT64_MIN, INT64_MAX); });
}

void tokenize(const Gguf& g) {
  barkrt::MemoryAccount account;
  {
    const int64_t estimate = barkrt::Tokenizer::estimate_bytes(g);
    const barkrt::Tokenizer t(g, account);
    if (account.total() != estimate) __builtin_trap();
    for (const char* text : kTexts) {
      attempt([&] { t.encode(text, barkrt::Rules::Suno); });
      attempt([&] { t.encode(text, barkrt::Rules::Hf); });
    }
  }
  if (account.total() != 0) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const barkrt::test::Image image({reinterpret_cast<const char*>(data), size});
  attempt([&] {
    const auto g = Gguf::from_memory(image.data(), image.bytes());
    for (const char* key : kKeys) look_up(*g, key);
    for (const barkrt::GgufTensor& t : g->tensors()) {
      if (g->find(t.name) != &t || t.offset % 64 != 0) __builtin_trap();
      g->need(t.name, t.shape);
      touch({reinterpret_cast<const char*>(g->data()) + t.offset, static_cast<size_t>(t.bytes)});
    }
    tokenize(*g);
  });
  return 0;
}
