#include "gguf.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>

#include "error.h"
#include "gguf_writer.h"

namespace barkrt {
namespace {

using test::GgufType;
using test::GgufWriter;
using test::Image;

std::string number(uint64_t v, int n_bytes) { return GgufWriter::number(v, n_bytes); }

struct Outcome {
  Status status = Status::Ok;
  std::string text;
};

template <typename F>
Outcome outcome_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return {e.status(), e.what()};
  }
  return {};
}

Outcome outcome_of_content(const std::string& content) {
  const Image image(content);
  return outcome_of([&] { Gguf::from_memory(image.data(), image.bytes()); });
}

void expect_bad(const std::string& content, const char* why) {
  const Outcome o = outcome_of_content(content);
  EXPECT_EQ(o.status, Status::BadModel) << o.text;
  EXPECT_NE(o.text.find(why), std::string::npos) << o.text;
}

// `content` with `bytes` written over it at `at`.
std::string patched(std::string content, size_t at, const std::string& bytes) {
  return content.replace(at, bytes.size(), bytes);
}

GgufWriter sample() {
  GgufWriter w;
  w.u32("a.u32", 7)
      .i64("a.i64", -5)
      .f32("a.f32", 0.5f)
      .f64("a.f64", 49.9)
      .boolean("a.yes", true)
      .boolean("a.no", false)
      .string("a.text", "na\u00efve")
      .strings("a.list", {"one", "", "three"})
      .u32s("a.ratios", {8, 5, 4, 2})
      .tensor("m", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6})
      .tensor("v", {2, 1, 2}, std::vector<int32_t>{-1, 2, 3, 4})
      .tensor("q", DType::I8, {5}, "\1\2\3\4\5")
      .tensor("h", DType::F16, {2}, "\1\2\3\4")
      .tensor("b", DType::BF16, {1}, "\1\2");
  return w;
}

// ---- what is well formed ----

TEST(Gguf, GivesMetadataByKey) {
  const Image image = sample().build();
  const auto g = Gguf::from_memory(image.data(), image.bytes());
  EXPECT_EQ(g->need_int("a.u32", 0, 7), 7);
  EXPECT_EQ(g->need_int("a.i64", -5, 0), -5);
  EXPECT_EQ(g->need_float("a.f32", 0, 1), 0.5);
  EXPECT_EQ(g->need_float("a.f64", 0, 100), 49.9);
  EXPECT_TRUE(g->need_bool("a.yes"));
  EXPECT_FALSE(g->need_bool("a.no"));
  EXPECT_EQ(g->need_string("a.text"), "na\u00efve");
  EXPECT_EQ(g->need_strings("a.list"), (std::vector<std::string_view>{"one", "", "three"}));
  EXPECT_EQ(g->need_ints("a.ratios", 1, 8), (std::vector<int64_t>{8, 5, 4, 2}));
  EXPECT_TRUE(g->has("a.u32"));
  EXPECT_FALSE(g->has("a.u3"));
}

TEST(Gguf, GivesTensorsInPlaceRowMajorAndAligned) {
  const Image image = sample().build();
  const auto g = Gguf::from_memory(image.data(), image.bytes());
  ASSERT_EQ(g->tensors().size(), 5u);
  const GgufTensor& m = g->need("m", {2, 3});
  EXPECT_EQ(m.type, DType::F32);
  EXPECT_EQ(m.bytes, 24);
  for (const GgufTensor& t : g->tensors()) EXPECT_EQ(t.offset % 64, 0) << t.name;
  float last = 0;
  std::memcpy(&last, g->data() + m.offset + 20, 4);
  EXPECT_EQ(last, 6);
  EXPECT_EQ(g->need("v", {2, 1, 2}).type, DType::I32);
  EXPECT_EQ(g->need("q", {5}).bytes, 5);
  EXPECT_EQ(g->need("h", {2}).type, DType::F16);
  EXPECT_EQ(g->need("b", {1}).type, DType::BF16);
  EXPECT_EQ(g->find("x"), nullptr);
  const auto* text = reinterpret_cast<const std::byte*>(m.name.data());
  EXPECT_TRUE(text > image.data() && text < image.data() + image.bytes());  // a view
}

TEST(Gguf, ReadsEveryValueType) {
  GgufWriter w;
  w.value("u8", GgufType::U8, number(200, 1))
      .value("i8", GgufType::I8, number(0xff, 1))
      .value("u16", GgufType::U16, number(60000, 2))
      .value("i16", GgufType::I16, number(0xffff, 2))
      .value("i32", GgufType::I32, number(0xffffffff, 4))
      .value("u64", GgufType::U64, number(1ull << 40, 8))
      .value("nested", GgufType::Array,
             number(9, 4) + number(2, 8) +                     // two arrays:
                 number(4, 4) + number(1, 8) + number(7, 4) +  // [7u]
                 number(8, 4) + number(1, 8) + GgufWriter::text("x"))
      .value("empty", GgufType::Array, number(5, 4) + number(0, 8))
      .u32("after", 1);
  const Image image = w.build();
  const auto g = Gguf::from_memory(image.data(), image.bytes());
  EXPECT_EQ(g->need_int("u8", 0, 255), 200);
  EXPECT_EQ(g->need_int("i8", -1, 0), -1);
  EXPECT_EQ(g->need_int("u16", 0, 65535), 60000);
  EXPECT_EQ(g->need_int("i16", -1, 0), -1);
  EXPECT_EQ(g->need_int("i32", -1, 0), -1);
  EXPECT_EQ(g->need_int("u64", 0, 1ll << 40), 1ll << 40);
  EXPECT_TRUE(g->need_ints("empty", 0, 0).empty());
  EXPECT_EQ(g->need_int("after", 1, 1), 1);
}

TEST(Gguf, OpensAFileAndKeepsItMapped) {
  const std::string path = testing::TempDir() + "barkrt_gguf_test.gguf";
  const std::string content = sample().content();
  std::ofstream(path, std::ios::binary) << content;
  const auto g = Gguf::open(path);
  std::remove(path.c_str());
  EXPECT_EQ(g->origin(), path);
  EXPECT_EQ(g->bytes(), static_cast<int64_t>(content.size()));
  EXPECT_EQ(std::memcmp(g->data(), content.data(), content.size()), 0);
}

// ---- errors of lookup name what was asked for ----

TEST(Gguf, NamesTheKeyThatIsMissingOrWrong) {
  const Image image = sample().build();
  const auto g = Gguf::from_memory(image.data(), image.bytes());
  const auto expect = [](const Outcome& o, const char* part) {
    EXPECT_EQ(o.status, Status::BadModel);
    EXPECT_NE(o.text.find(part), std::string::npos) << o.text;
  };
  expect(outcome_of([&] { g->need_int("nope", 0, 1); }), "nope is missing");
  expect(outcome_of([&] { g->need_int("a.u32", 0, 6); }), "a.u32 is 7; expected 0 to 6");
  expect(outcome_of([&] { g->need_int("a.f32", 0, 6); }), "a.f32 is of type f32");
  expect(outcome_of([&] { g->need_float("a.u32", 0, 9); }), "a.u32 is of type u32");
  expect(outcome_of([&] { g->need_float("a.f64", 0, 1); }), "a.f64 is 49.9");
  expect(outcome_of([&] { g->need_bool("a.u32"); }), "a.u32");
  expect(outcome_of([&] { g->need_string("a.list"); }), "array of string");
  expect(outcome_of([&] { g->need_strings("a.ratios"); }), "array of u32");
  expect(outcome_of([&] { g->need_ints("a.ratios", 1, 7); }), "a.ratios is 8");
  expect(outcome_of([&] { g->need("nope", {1}); }), "tensor nope is missing");
  expect(outcome_of([&] { g->need("m", {3, 2}); }), "shape [2, 3]; the metadata calls for [3, 2]");
}

TEST(Gguf, RefusesNumbersThatAreNotNumbersOrTooLarge) {
  GgufWriter w;
  w.f32("nan", std::numeric_limits<float>::quiet_NaN())
      .f64("inf", std::numeric_limits<double>::infinity())
      .value("huge", GgufType::U64, number(~0ull, 8));
  const Image image = w.build();
  const auto g = Gguf::from_memory(image.data(), image.bytes());
  EXPECT_EQ(outcome_of([&] { g->need_float("nan", -1e9, 1e9); }).status, Status::BadModel);
  EXPECT_EQ(outcome_of([&] { g->need_float("inf", -1e9, 1e9); }).status, Status::BadModel);
  EXPECT_EQ(outcome_of([&] { g->need_int("huge", 0, std::numeric_limits<int64_t>::max()); }).status,
            Status::BadModel);
}

// ---- what is malformed ----

TEST(Gguf, RefusesOtherFilesAndVersions) {
  const std::string good = sample().content();
  expect_bad("GG", "not a GGUF file");
  expect_bad(patched(good, 0, "PK\3\4"), "not a GGUF file");
  EXPECT_EQ(outcome_of_content(patched(good, 4, number(2, 4))).status, Status::Unsupported);
  EXPECT_EQ(outcome_of_content(patched(good, 4, number(0x03000000, 4))).status,
            Status::Unsupported);
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string good = sample().content();
  const size_t needed = good.size() - 62;  // the last tensor has two bytes; padding may be missing
  for (size_t n = 0; n < needed; n++) {
    const Outcome o = outcome_of_content(good.substr(0, n));
    EXPECT_EQ(o.status, n == 0 ? Status::InvalidArgument : Status::BadModel) << n << o.text;
  }
  EXPECT_EQ(outcome_of_content(good.substr(0, needed)).status, Status::Ok);
}

TEST(Gguf, RefusesLengthsThatLie) {
  const std::string good = GgufWriter().u32("k", 1).content();
  for (const uint64_t lie : {uint64_t{1} << 20, uint64_t{1} << 63, ~uint64_t{0}}) {
    expect_bad(patched(good, 8, number(lie, 8)), "number of tensors");
    expect_bad(patched(good, 16, number(lie, 8)), "number of metadata values");
    expect_bad(patched(good, 24, number(lie, 8)), "metadata key");
    GgufWriter array;
    array.value("k", GgufType::Array, number(12, 4) + number(lie, 8));
    expect_bad(array.content(), "length of a metadata array");
    GgufWriter string;
    string.value("k", GgufType::String, number(lie, 8));
    expect_bad(string.content(), "metadata string");
  }
}

TEST(Gguf, RefusesMetadataItCannotTrust) {
  expect_bad(GgufWriter().u32("k", 1).u32("k", 2).content(), "k occurs twice");
  expect_bad(GgufWriter().u32("", 1).content(), "empty");
  expect_bad(GgufWriter().u32("a\nb", 1).content(), "control character");
  expect_bad(GgufWriter().u32("a\xff", 1).content(), "not UTF-8");
  expect_bad(GgufWriter().string("k", "a\xc0").content(), "not UTF-8");
  expect_bad(GgufWriter().strings("k", {"ok", "\xed\xa0\x80"}).content(), "not UTF-8");
  expect_bad(GgufWriter().value("k", static_cast<GgufType>(13), "").content(), "unknown");
  expect_bad(GgufWriter().value("k", GgufType::Bool, number(2, 1)).content(), "neither 0 nor 1");
  std::string nested;
  for (int i = 0; i < 100; i++) nested += number(9, 4) + number(1, 8);
  expect_bad(GgufWriter().value("k", GgufType::Array, nested).content(), "nested too deeply");
}

TEST(Gguf, RefusesAlignmentThatKernelsCannotUse) {
  expect_bad(GgufWriter().alignment(32).content(), "general.alignment is 32");
  expect_bad(GgufWriter().alignment(0).content(), "general.alignment is 32");
  expect_bad(GgufWriter().alignment(96).content(), "general.alignment is 96");
  expect_bad(GgufWriter().alignment(0).string("general.alignment", "64").content(), "not a u32");
  GgufWriter wide;
  wide.alignment(256).tensor("m", {1}, std::vector<float>{3});
  EXPECT_EQ(outcome_of_content(wide.content()).status, Status::Ok);
}

// A file with one tensor whose description is given byte by byte.
std::string one_tensor(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  GgufWriter empty;
  std::string s = patched(empty.content(), 8, number(1, 8)).substr(0, 24 + 8 + 17 + 4 + 4);
  s += GgufWriter::text("t") + number(dims.size(), 4);
  for (const uint64_t d : dims) s += number(d, 8);
  s += number(type, 4) + number(offset, 8);
  s.resize((s.size() + 63) / 64 * 64 + 128, '\0');
  return s;
}

TEST(Gguf, RefusesTensorsThatDoNotFit) {
  EXPECT_EQ(outcome_of_content(one_tensor({32}, 0, 0)).status, Status::Ok);
  EXPECT_EQ(outcome_of_content(one_tensor({16}, 0, 64)).status, Status::Ok);
  expect_bad(one_tensor({33}, 0, 0), "tensor t needs 132 bytes");
  expect_bad(one_tensor({17}, 0, 64), "tensor t needs 68 bytes");
  expect_bad(one_tensor({1}, 0, 4), "not aligned");
  expect_bad(one_tensor({1}, 0, 1ull << 62), "outside the file");
  expect_bad(one_tensor({1}, 0, ~0ull), "outside the file");
  expect_bad(one_tensor({}, 0, 0), "0 dimensions");
  expect_bad(one_tensor({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  expect_bad(one_tensor({4, 0}, 0, 0), "dimension of 0");
  expect_bad(one_tensor({1ull << 63}, 0, 0), "cannot hold");
  expect_bad(one_tensor({1ull << 32, 1ull << 32}, 0, 0), "cannot hold");
  expect_bad(one_tensor({200, 200, 200, 200}, 0, 0), "cannot hold");
}

TEST(Gguf, NamesATensorTypeItDoesNotSupport) {
  const Outcome o = outcome_of_content(one_tensor({32}, 8, 0));
  EXPECT_EQ(o.status, Status::Unsupported);
  EXPECT_NE(o.text.find("Q8_0"), std::string::npos) << o.text;
  expect_bad(one_tensor({32}, 4, 0), "unknown type 4");
  expect_bad(one_tensor({32}, 999, 0), "unknown type 999");
}

TEST(Gguf, RefusesTensorsThatShareANameOrBytes) {
  const std::vector<float> one = {1};
  expect_bad(GgufWriter().tensor("t", {1}, one).tensor("t", {1}, one).content(), "t occurs twice");
  // The second tensor's offset is the eight bytes before the padding: move it onto the first.
  const std::string two = GgufWriter().tensor("s", {1}, one).tensor("t", {1}, one).content();
  const size_t at = two.find(GgufWriter::text("t")) + 9 + 4 + 8 + 4;
  ASSERT_EQ(two.substr(at, 8), number(64, 8));
  expect_bad(patched(two, at, number(0, 8)), "overlap");
}

TEST(Gguf, NamesTheByte) {
  const std::string good = GgufWriter().u32("k", 1).content();
  const Outcome o = outcome_of_content(patched(good, 24, number(~0ull, 8)));
  EXPECT_NE(o.text.find("at byte 24"), std::string::npos) << o.text;
}

TEST(Gguf, RefusesMemoryThatIsNotAligned) {
  const Image image(sample().content());
  const auto load = [&](const void* p, int64_t n) {
    return outcome_of([&] { Gguf::from_memory(p, n); }).status;
  };
  EXPECT_EQ(load(image.data() + 1, image.bytes() - 1), Status::InvalidArgument);
  EXPECT_EQ(load(nullptr, 100), Status::InvalidArgument);
  EXPECT_EQ(load(image.data(), -1), Status::InvalidArgument);
}

TEST(Gguf, SaysWhyAFileCannotBeOpened) {
  const std::string none = testing::TempDir() + "barkrt_no_such_file.gguf";
  const Outcome missing = outcome_of([&] { Gguf::open(none); });
  EXPECT_EQ(missing.status, Status::NotFound);
  EXPECT_NE(missing.text.find(none), std::string::npos) << missing.text;
  EXPECT_EQ(outcome_of([] { Gguf::open(testing::TempDir()); }).status, Status::BadModel);
  EXPECT_EQ(outcome_of([] { Gguf::open("/dev/zero"); }).status, Status::BadModel);
  const std::string path = testing::TempDir() + "barkrt_empty.gguf";
  std::ofstream(path).flush();
  EXPECT_EQ(outcome_of([&] { Gguf::open(path); }).status, Status::BadModel);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace barkrt
