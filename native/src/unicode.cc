#include "unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "error.h"

namespace barkrt {

void decode_utf8(std::string_view text, CodePoints* out) {
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto n = static_cast<utf8proc_ssize_t>(text.size());
  for (utf8proc_ssize_t i = 0; i < n;) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t used = utf8proc_iterate(p + i, n - i, &c);
    if (used <= 0)
      fail(Status::InvalidArgument, "the text is not UTF-8: byte %lld (0x%02x)",
           static_cast<long long>(i), static_cast<unsigned>(p[i]));
    out->push_back(c);
    i += used;
  }
}

void append_utf8(int32_t c, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t n = utf8proc_encode_char(c, bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

namespace {

// What Python's \s matches: White_Space and the four ASCII separators.
bool is_python_space(int32_t c) {
  if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85) return true;
  return c > 0x85 && utf8proc_category(c) >= UTF8PROC_CATEGORY_ZS &&
         utf8proc_category(c) <= UTF8PROC_CATEGORY_ZP;
}

}  // namespace

// What cleaning turns into a space. The slow tokenizer keeps U+2028 and U+2029 here and splits at
// them later: no difference.
bool is_space(int32_t c) {
  return c == '\t' || c == '\n' || c == '\r' || c == ' ' || (c > 0x85 && is_python_space(c));
}

// What cleaning drops. Python's "control" is all of C*; the Rust crate's knows no Cn, so that HF
// keeps unassigned code points (newer emoji, for one).
bool is_dropped(int32_t c, Rules rules) {
  if (c == 0 || c == 0xfffd) return true;
  if (c == '\t' || c == '\n' || c == '\r') return false;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
      return true;
    case UTF8PROC_CATEGORY_CN:
      return rules == Rules::Suno;
    default:
      return false;
  }
}

bool is_cjk(int32_t c, Rules rules) {
  // HF's Rust tokenizer has 2B920 where BERT has 2B820.
  const int32_t extension_e = rules == Rules::Hf ? 0x2b920 : 0x2b820;
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
         (c >= 0x2b740 && c <= 0x2b81f) || (c >= extension_e && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

bool is_punctuation(int32_t c) {
  if (c < 128)
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
  const utf8proc_category_t category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

namespace {

// NFD. Marks are sorted in n log n: utf8proc's own sort is quadratic in the length of a run, and
// the text is a stranger's.
CodePoints decomposed(const CodePoints& word) {
  CodePoints out;
  out.reserve(word.size());
  for (const int32_t c : word) {
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, 32, UTF8PROC_DECOMPOSE, &boundary);
    BARKRT_CHECK(n >= 0 && n <= 32);
    out.insert(out.end(), parts, parts + n);
  }
  const auto combining_class = [](int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto first = out.begin(); first != out.end();) {
    if (combining_class(*first) == 0) {
      ++first;
      continue;
    }
    const auto last =
        std::find_if(first, out.end(), [&](int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(first, last,
                     [&](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    first = last;
  }
  return out;
}

}  // namespace

void to_nfc(CodePoints* word) {
  // Below the combining marks every text is its own NFC.
  if (std::all_of(word->begin(), word->end(), [](int32_t c) { return c < 0x300; })) return;
  CodePoints parts = decomposed(*word);
  const utf8proc_ssize_t n =
      utf8proc_normalize_utf32(parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  BARKRT_CHECK(n >= 0);
  parts.resize(static_cast<size_t>(n));
  *word = std::move(parts);
}

void drop_accents(CodePoints* word) {
  CodePoints parts = decomposed(*word);
  parts.erase(
      std::remove_if(parts.begin(), parts.end(),
                     [](int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_MN; }),
      parts.end());
  *word = std::move(parts);
}

void to_lowercase(CodePoints* word) {
  CodePoints out;
  out.reserve(word->size());
  for (const int32_t c : *word) {
    if (c == 0x130) {  // the one capital whose small form is two code points
      out.push_back('i');
      out.push_back(0x307);
    } else {
      out.push_back(utf8proc_tolower(c));
    }
  }
  *word = std::move(out);
}

std::string collapse_spaces(std::string_view text) {
  CodePoints points;
  decode_utf8(text, &points);
  std::string out;
  bool gap = false;
  for (const int32_t c : points) {
    if (is_python_space(c)) {
      gap = true;
      continue;
    }
    if (gap && !out.empty()) out += ' ';
    gap = false;
    append_utf8(c, &out);
  }
  return out;
}

}  // namespace barkrt
