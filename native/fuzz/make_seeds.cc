// make_seeds.cc: writes the seed corpora: make_seeds native/fuzz/corpus
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "gguf_writer.h"
#include "tiny_model.h"
#include "tokenizer_fixture.h"

namespace {

using barkrt::DType;
using barkrt::test::GgufType;
using barkrt::test::GgufWriter;

void write(const std::filesystem::path& path, const std::string& content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

std::string number(uint64_t v, int n_bytes) { return GgufWriter::number(v, n_bytes); }

void write_gguf(const std::filesystem::path& dir) {
  GgufWriter values;
  values.u32("a", 7).i64("b", -5).f64("c", 49.9).boolean("d", true);
  values.u32s("bark.codec.ratios", {8, 5, 4, 2}).string("general.architecture", "bark");
  write(dir / "values", values.content());
  GgufWriter arrays;
  arrays.strings("a", {"one", "", "three"});
  arrays.value("b", GgufType::Array,
               number(9, 4) + number(1, 8) + number(4, 4) + number(1, 8) + number(7, 4));
  arrays.value("c", GgufType::I16, number(0xfffe, 2)).value("d", GgufType::U64, number(9, 8));
  write(dir / "arrays", arrays.content());
  GgufWriter tensors;
  tensors.tensor("t", {2, 3}, std::vector<float>(6, 1)).tensor("q", DType::I8, {5}, "12345");
  tensors.tensor("v", {2}, std::vector<int32_t>{1, 2}).tensor("h", DType::F16, {1, 2}, "1234");
  write(dir / "tensors", tensors.content());
  barkrt::test::TokenizerVariant v;
  v.unknown_id = 0;
  v.lowercase = true;
  const GgufWriter vocabulary = barkrt::test::tokenizer_gguf(
      {"[UNK]", "[MASK]", "hello", "##o", "hell", "a", "!", "c", "a", ""}, v, {"[MASK]", "[X]"});
  write(dir / "vocabulary", vocabulary.content());

  // Hostile: lengths that lie, cut files, overlapping tensors.
  std::string lie = values.content();
  lie.replace(8, 16, std::string(16, '\xff'));
  write(dir / "hostile_counts", lie);
  write(dir / "hostile_string",
        GgufWriter().value("a", GgufType::String, number(~0ull - 7, 8)).content());
  write(dir / "hostile_array",
        GgufWriter().value("a", GgufType::Array, number(12, 4) + number(1ull << 61, 8)).content());
  std::string nested;
  for (int i = 0; i < 50; i++) nested += number(9, 4) + number(1, 8);
  write(dir / "hostile_nesting", GgufWriter().value("a", GgufType::Array, nested).content());
  write(dir / "hostile_cut", tensors.content().substr(0, 260));
  std::string overlap = tensors.content();
  overlap.replace(overlap.find(number(64, 8) + GgufWriter::text("v")), 8, number(0, 8));
  write(dir / "hostile_overlap", overlap);
}

void write_tokenizer(const std::filesystem::path& dir) {
  const std::string all[] = {
      "Hello, Bark! [laughs] isn't",
      "[MASK] [MA\u00adSK][[SEP]]",
      "fran\u00e7ais e\u0301te\u0301 \u1112\u1161\u11ab \u0130",
      "\u6f22\u5b57ABC \U0002b830\uf900 \u3072\u3089",
      "tab\tnl\n\x0b\x1c\u0085\u2028\u3000 \u200b\ufeff",
      std::string("nul\0x\xff", 6),
      "\xed\xa0\x80 \xf4\x90\x80\x80 \xc0\x80",
      std::string(101, 'a') + " " + std::string(100, 'b'),
      "a\u0301\u0323\u0301\u0323\u0301\u0323",
  };
  int i = 0;
  for (const std::string& text : all)
    for (const char mode : {'\0', '\x0b'})
      write(dir / ("text_" + std::to_string(i++)), std::string(1, mode) + text);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds CORPUS\n");
    return 2;
  }
  const std::filesystem::path corpus = argv[1];
  write_gguf(corpus / "gguf");
  write_tokenizer(corpus / "tokenizer");
  write(corpus / "model" / "tiny", barkrt::test::tiny_model(DType::F32).content());
  write(corpus / "model" / "tiny_i8", barkrt::test::tiny_model(DType::I8).content());
  write(corpus / "model" / "tiny_tiles", barkrt::test::tiny_model(DType::I8Tiles).content());
  write(corpus / "model" / "tiny_i4", barkrt::test::tiny_model(DType::I4).content());
  return 0;
}
