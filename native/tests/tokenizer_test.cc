#include "tokenizer.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <sstream>

#include "error.h"
#include "gguf.h"
#include "tokenizer_fixture.h"

namespace barkrt {
namespace {

using test::TokenizerVariant;
using Ids = std::vector<int32_t>;

// A tokenizer and what it points into.
class Loaded {
 public:
  explicit Loaded(const test::GgufWriter& writer)
      : image_(writer.build()),
        gguf_(Gguf::from_memory(image_.data(), image_.bytes())),
        tokenizer_(std::make_unique<Tokenizer>(*gguf_, account_)) {}

  Ids encode(std::string_view text, Rules rules = Rules::Suno) const {
    return tokenizer_->encode(text, rules);
  }
  const Gguf& gguf() const { return *gguf_; }
  const MemoryAccount& account() const { return account_; }
  void close() { tokenizer_.reset(); }

 private:
  test::Image image_;
  std::shared_ptr<const Gguf> gguf_;
  MemoryAccount account_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

Status status_of(const std::function<void()>& f, std::string* text = nullptr) {
  try {
    f();
  } catch (const Error& e) {
    if (text != nullptr) *text = e.what();
    return e.status();
  }
  return Status::Ok;
}

// ---- the references' own ids ----

struct Case {
  std::string rules, variant, text;
  Ids ids;
};

std::string unescaped(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size(); i++) {
    if (s.compare(i, 2, "\\{") != 0) {
      out += s[i];
      continue;
    }
    utf8proc_uint8_t bytes[4];
    const auto n = utf8proc_encode_char(std::stoi(s.substr(i + 2), nullptr, 16), bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
    i = s.find('}', i);
  }
  return out;
}

std::vector<Case> reference_cases() {
  std::ifstream file(BARKRT_TESTDATA "/tokenizer_cases.tsv");
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::stringstream row(line);
    Case c;
    std::string text, ids;
    std::getline(row, c.rules, '\t');
    std::getline(row, c.variant, '\t');
    std::getline(row, text, '\t');
    std::getline(row, ids);
    c.text = unescaped(text);
    std::stringstream numbers(ids);
    for (int32_t id = 0; numbers >> id;) c.ids.push_back(id);
    cases.push_back(std::move(c));
  }
  return cases;
}

void expect_reference_ids(const std::vector<std::string>& vocab) {
  const std::vector<Case> cases = reference_cases();
  ASSERT_GT(cases.size(), 150u);
  for (const char* name : {"cased", "cased-stripped", "lower", "lower-stripped"}) {
    TokenizerVariant variant;
    variant.lowercase = std::string_view(name).substr(0, 5) == "lower";
    variant.strip_accents = std::string_view(name).find("stripped") != std::string_view::npos;
    const Loaded loaded(test::tokenizer_gguf(vocab, variant));
    for (const Case& c : cases) {
      if (c.variant != name) continue;
      for (const Rules rules : {Rules::Suno, Rules::Hf}) {
        if (c.rules == (rules == Rules::Suno ? "hf" : "suno")) continue;
        EXPECT_EQ(loaded.encode(c.text, rules), c.ids) << name << ": " << c.text;
      }
    }
  }
}

TEST(Tokenizer, GivesTheReferencesIdsFromTheExtractOfTheVocabulary) {
  expect_reference_ids(test::extract_vocab());
}

TEST(Tokenizer, GivesTheReferencesIdsFromTheWholeVocabulary) {
  const char* named = std::getenv("BARKRT_VOCAB");
  std::ifstream file(
      named != nullptr ? named : BARKRT_SHARED_DATA "/bert-base-multilingual-cased-vocab.txt");
  if (!file) GTEST_SKIP() << "no bert-base-multilingual-cased vocab.txt; BARKRT_VOCAB names one";
  std::vector<std::string> vocab;
  for (std::string line; std::getline(file, line);) vocab.push_back(line);
  ASSERT_EQ(vocab.size(), 119547u);
  expect_reference_ids(vocab);
}

TEST(Tokenizer, GivesThePublishedIds) {
  const Loaded bert(test::tokenizer_gguf(test::extract_vocab()));
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(bert.encode("Hello world!", rules), (Ids{31178, 11356, 106}));
    EXPECT_EQ(bert.encode("Hello, Bark!", rules), (Ids{31178, 117, 20698, 10174, 106}));
    EXPECT_EQ(bert.encode("你好", rules), (Ids{2262, 3240}));
    EXPECT_EQ(bert.encode("♪ In the jungle, the mighty jungle, the lion barks tonight ♪", rules),
              (Ids{1873, 10167, 10105, 104783, 117, 10105, 20970, 10157, 104783, 117, 10105, 73025,
                   18121, 11676, 22464, 27521, 1873}));
    EXPECT_EQ(
        bert.encode("Ceci est un texte en français pour tester le bon fonctionnement de bark.",
                    rules),
        (Ids{89451, 10176, 10119, 25098, 10110, 12501, 10322, 62574, 10129, 10141, 22873, 70640,
             10104, 18121, 10174, 119}));
  }
}

// ---- small vocabularies ----

// Ids are positions: [UNK] 0, special tokens 1 and 2.
const std::vector<std::string> kSmall = {"[UNK]", "[A]",  "[AB]", "a",       "##a", "ab", "##b",
                                         "abc",   "##cd", "!",    "[",       "]",   "é",  "##é",
                                         "漢",    "か",   "##な", "e\u0301", "x",   "##x"};

Loaded small(TokenizerVariant v = {}) {
  v.unknown_id = 0;
  return Loaded(test::tokenizer_gguf(kSmall, v, {"[UNK]", "[A]", "[AB]"}));
}

TEST(Tokenizer, TakesTheLongestPieceFromTheLeft) {
  const Loaded t = small();
  EXPECT_EQ(t.encode("abc"), (Ids{7}));
  EXPECT_EQ(t.encode("aba"), (Ids{5, 4}));
  EXPECT_EQ(t.encode("abb"), (Ids{5, 6}));
}

TEST(Tokenizer, OneDeadEndMakesTheWholeWordUnknown) {
  const Loaded t = small();
  EXPECT_EQ(t.encode("abcd"), (Ids{0}));  // "abc" is taken first, then "d" has no piece
  EXPECT_EQ(t.encode("aq!a"), (Ids{0, 9, 3}));
}

TEST(Tokenizer, AWordLongerThanTheLimitIsUnknown) {
  TokenizerVariant v;
  v.max_word_chars = 5;
  const Loaded t = small(v);
  EXPECT_EQ(t.encode("aaaaa"), (Ids{3, 4, 4, 4, 4}));
  EXPECT_EQ(t.encode("aaaaaa"), (Ids{0}));
  EXPECT_EQ(t.encode("ééééé"), (Ids{12, 13, 13, 13, 13}));  // characters, not bytes
  EXPECT_EQ(t.encode("aaaaa!aaaaaa"), (Ids{3, 4, 4, 4, 4, 9, 0}));
}

TEST(Tokenizer, CutsOutTheLongestSpecialToken) {
  const Loaded t = small();
  EXPECT_EQ(t.encode("a[AB]a[A]"), (Ids{3, 2, 3, 1}));
  EXPECT_EQ(t.encode("[[A]]"), (Ids{10, 1, 11}));
  EXPECT_EQ(t.encode("[a]"), (Ids{10, 3, 11}));
}

TEST(Tokenizer, SpacesCjkUnlessToldNotTo) {
  EXPECT_EQ(small().encode("a漢a"), (Ids{3, 14, 3}));
  EXPECT_EQ(small().encode("かな"), (Ids{15, 16}));  // kana is not spaced
  TokenizerVariant v;
  v.split_cjk = false;
  EXPECT_EQ(small(v).encode("a漢a"), (Ids{0}));
}

TEST(Tokenizer, ComposesAccentsUnderSunoOnly) {
  const Loaded t = small();
  EXPECT_EQ(t.encode("e\u0301", Rules::Suno), (Ids{12}));
  EXPECT_EQ(t.encode("e\u0301", Rules::Hf), (Ids{17}));
}

TEST(Tokenizer, SeparatesAtControlSpacesUnderSunoOnly) {
  const Loaded t = small();
  for (const char* s : {"a\x0b"
                        "b",
                        "a\x0c"
                        "b",
                        "a\x1c"
                        "b",
                        "a\x1f"
                        "b",
                        "a\u0085b"}) {
    EXPECT_EQ(t.encode(s, Rules::Suno), (Ids{3, 0}));
    EXPECT_EQ(t.encode(s, Rules::Hf), (Ids{5}));
  }
}

TEST(Tokenizer, DropsNulAndZeroWidthCharacters) {
  const Loaded t = small();
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(t.encode(std::string_view("a\0b", 3), rules), (Ids{5}));
    EXPECT_EQ(t.encode("a\u200bb\ufeff", rules), (Ids{5}));
    EXPECT_EQ(t.encode("a\u00adb", rules), (Ids{5}));
  }
}

TEST(Tokenizer, RefusesEmptyTextUnderSuno) {
  const Loaded t = small();
  for (const char* s : {"", " ", " \t\r\n\u3000\u0085"}) {
    EXPECT_EQ(status_of([&] { t.encode(s, Rules::Suno); }), Status::InvalidArgument);
    EXPECT_EQ(t.encode(s, Rules::Hf), Ids{});
  }
  // Not empty to Suno, although cleaning leaves nothing.
  EXPECT_EQ(t.encode("\u200b", Rules::Suno), Ids{});
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
  const Loaded t = small();
  const std::pair<std::string, int> bad[] = {{"a\xff", 1},        {"\x80", 0},
                                             {"ab\xc3", 2},       {"a\xc0\x80", 1},
                                             {"\xed\xa0\x80", 0}, {"[A]\xf4\x90\x80\x80", 3},
                                             {"é\xe2\x82", 2}};
  for (const auto& [text, at] : bad) {
    for (const Rules rules : {Rules::Suno, Rules::Hf}) {
      std::string why;
      EXPECT_EQ(status_of([&, &s = text] { t.encode(s, rules); }, &why), Status::InvalidArgument);
      EXPECT_NE(why.find("byte " + std::to_string(at) + " "), std::string::npos) << why;
    }
  }
}

TEST(Tokenizer, EncodesTenKilobytesAsItsParts) {
  const Loaded bert(test::tokenizer_gguf(test::extract_vocab()));
  std::string text;
  Ids ids;
  while (text.size() < 10240) {
    text += "Hello, Bark! ";
    ids.insert(ids.end(), {31178, 117, 20698, 10174, 106});
  }
  EXPECT_EQ(bert.encode(text, Rules::Suno), ids);
  EXPECT_EQ(bert.encode(text, Rules::Hf), ids);
}

// A quadratic sort of marks would take minutes here.
TEST(Tokenizer, TakesALongRunOfMarksInItsStride) {
  std::string text = "a";
  for (int i = 0; i < 200000; i++) text += i % 2 == 0 ? "\u0301" : "\u0323";
  EXPECT_EQ(small().encode(text, Rules::Suno), (Ids{0}));
}

// ---- memory and malformed vocabularies ----

TEST(Tokenizer, CountsExactlyWhatItEstimates) {
  Loaded t(test::tokenizer_gguf(test::extract_vocab()));
  const int64_t counted = t.account().live(Category::Tables);
  EXPECT_EQ(counted, Tokenizer::estimate_bytes(t.gguf()));
  EXPECT_EQ(counted, t.account().total());
  EXPECT_LT(counted, 2500000);
  t.close();
  EXPECT_EQ(t.account().total(), 0);
}

TEST(Tokenizer, APieceListedTwiceHasItsLastId) {
  TokenizerVariant v;
  v.unknown_id = 0;
  const Loaded t(test::tokenizer_gguf({"[UNK]", "a", "a", "b", "a"}, v));
  EXPECT_EQ(t.encode("a b"), (Ids{4, 3}));
}

TEST(Tokenizer, PiecesThatCannotMatchDoNoHarm) {
  TokenizerVariant v;
  v.unknown_id = 0;
  const Loaded t(
      test::tokenizer_gguf({"", "", "##", std::string(70000, 'a'), "a", ""}, v, {"", "a"}));
  EXPECT_EQ(t.encode("a ##"), (Ids{4, 0, 0}));
}

TEST(Tokenizer, ASpecialTokenOutsideTheVocabularyIsUnknown) {
  TokenizerVariant v;
  v.unknown_id = 1;
  const Loaded t(test::tokenizer_gguf({"a", "[UNK]"}, v, {"[X]"}));
  EXPECT_EQ(t.encode("a[X]a"), (Ids{0, 1, 0}));
}

TEST(Tokenizer, RefusesAMalformedVocabulary) {
  const auto load = [](const test::GgufWriter& w) { return status_of([&] { const Loaded l(w); }); };
  TokenizerVariant v;
  v.unknown_id = 1;
  EXPECT_EQ(load(test::tokenizer_gguf({"[UNK]"}, v)), Status::BadModel);
  EXPECT_EQ(load(test::tokenizer_gguf({}, v)), Status::BadModel);
  v.unknown_id = 0;
  EXPECT_EQ(load(test::tokenizer_gguf({"a"}, v, std::vector<std::string>(2000, "b"))),
            Status::BadModel);
  v.max_word_chars = 0;
  EXPECT_EQ(load(test::tokenizer_gguf({"a"}, v)), Status::BadModel);
  EXPECT_EQ(load(test::GgufWriter().string("tokenizer.ggml.model", "bert")), Status::BadModel);
  EXPECT_EQ(load(test::GgufWriter().string("tokenizer.ggml.model", "gpt2")), Status::Unsupported);
}

}  // namespace
}  // namespace barkrt
