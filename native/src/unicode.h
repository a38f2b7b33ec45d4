// unicode.h: code points and what BERT's tokenizers call them: dropped, space, CJK, punctuation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sampling.h"

namespace barkrt {

using CodePoints = std::vector<int32_t>;

// Appends the code points of `text`. InvalidArgument naming the first byte that is not UTF-8.
void decode_utf8(std::string_view text, CodePoints* out);
void append_utf8(int32_t c, std::string* out);

// Suno's preparation: every run of Python's \s becomes one space, ends stripped.
std::string collapse_spaces(std::string_view text);

// What BERT's cleaning deletes, and what it turns into a space; asked in this order.
bool is_dropped(int32_t c, Rules rules);
bool is_space(int32_t c);
// Each is a word of its own.
bool is_cjk(int32_t c, Rules rules);
// ASCII symbols such as $ and ~ count; symbols outside ASCII do not.
bool is_punctuation(int32_t c);

void to_nfc(CodePoints* word);
// NFD without the nonspacing marks (category Mn).
void drop_accents(CodePoints* word);
// Character by character: a capital sigma at a word's end is like any other.
void to_lowercase(CodePoints* word);

}  // namespace barkrt
