// fuzz_tokenizer.cc: any bytes as text. The first byte chooses rules and variant, the rest is the
// text.
#include <cstdint>
#include <memory>
#include <string_view>

#include "error.h"
#include "gguf.h"
#include "tokenizer.h"
#include "tokenizer_fixture.h"

namespace {

struct Loaded {
  explicit Loaded(const barkrt::test::GgufWriter& writer)
      : image(writer.build()), gguf(barkrt::Gguf::from_memory(image.data(), image.bytes())) {
    tokenizer = std::make_unique<barkrt::Tokenizer>(*gguf, account);
  }
  barkrt::test::Image image;
  std::shared_ptr<const barkrt::Gguf> gguf;
  barkrt::MemoryAccount account;
  std::unique_ptr<barkrt::Tokenizer> tokenizer;
};

barkrt::test::GgufWriter variant(unsigned bits) {
  barkrt::test::TokenizerVariant v;
  v.lowercase = (bits & 1) != 0;
  v.strip_accents = (bits & 2) != 0;
  v.split_cjk = (bits & 4) == 0;
  return tokenizer_gguf(barkrt::test::extract_vocab(), v);
}

const barkrt::Tokenizer& tokenizer(unsigned bits) {
  static const Loaded all[8] = {Loaded(variant(0)), Loaded(variant(1)), Loaded(variant(2)),
                                Loaded(variant(3)), Loaded(variant(4)), Loaded(variant(5)),
                                Loaded(variant(6)), Loaded(variant(7))};
  return *all[bits].tokenizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const barkrt::test::Image text({reinterpret_cast<const char*>(data) + 1, size - 1});
  const auto rules = (data[0] & 8) != 0 ? barkrt::Rules::Hf : barkrt::Rules::Suno;
  try {
    const auto ids = tokenizer(data[0] & 7)
                         .encode({reinterpret_cast<const char*>(text.data()), size - 1}, rules);
    for (const int32_t id : ids)
      if (id < 0 || id >= 119547) __builtin_trap();
  } catch (const barkrt::Error& e) {
    if (e.status() != barkrt::Status::InvalidArgument) __builtin_trap();
  }
  return 0;
}
