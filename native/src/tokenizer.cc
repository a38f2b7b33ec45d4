#include "tokenizer.h"

#include <algorithm>
#include <string>

#include "error.h"
#include "gguf.h"
#include "unicode.h"

namespace barkrt {

namespace {

constexpr std::string_view kContinuation = "##";

uint32_t hash_byte(uint32_t h, char byte) {  // FNV-1a: extends to longer prefixes byte by byte
  return (h ^ static_cast<unsigned char>(byte)) * 16777619u;
}

uint32_t hash_bytes(uint32_t h, std::string_view s) {
  for (const char c : s) h = hash_byte(h, c);
  return h;
}

constexpr uint32_t kHashStart = 2166136261u;
constexpr uint32_t kFree = 0xffffffffu;
constexpr int64_t kMaxPieceBytes = 65535;
constexpr int64_t kMaxWordChars = 10000;  // of 4 bytes: a piece that can match fits kMaxPieceBytes
constexpr int64_t kMaxSpecialTokens = 1024;

// Where a piece lies in the image's string table.
struct Piece {
  uint32_t offset = 0;  // from the first piece's text
  uint16_t bytes = 0;
  uint16_t tag = 0;  // high bits of the hash: spares most comparisons
};

struct SpecialToken {
  std::string_view text;
  int32_t id = 0;
};

// At most 2/3 full.
uint64_t slot_count(size_t n_pieces) {
  uint64_t slots = 4;
  while (slots * 2 < static_cast<uint64_t>(n_pieces) * 3) slots *= 2;
  return slots;
}

}  // namespace

struct Tokenizer::Impl {
  void build_index(const Gguf& gguf, const std::vector<std::string_view>& tokens);
  void read_special_tokens(const std::vector<std::string_view>& literals);
  void insert(uint32_t id, std::string_view text);
  // The id of `prefix` + `text`, whose hash is `h`; -1 when there is none.
  int32_t lookup(uint32_t h, std::string_view prefix, std::string_view text) const;
  const SpecialToken* special_at(std::string_view text) const;
  const SpecialToken* special_word(const CodePoints& word) const;

  void encode_plain(std::string_view text, Rules rules, std::vector<int32_t>* ids) const;
  void encode_word(CodePoints word, Rules rules, std::vector<int32_t>* ids) const;
  void encode_piece(const int32_t* first, const int32_t* last, std::vector<int32_t>* ids) const;

  const char* texts = nullptr;  // the first piece's text, in the image
  std::vector<Piece> pieces;    // by id
  std::vector<uint32_t> slots;  // open addressing, linear probing: an id or kFree
  std::vector<SpecialToken> special_tokens;
  bool special_start[256] = {};  // bytes that begin a special token
  size_t longest_piece = 0;      // bytes
  int32_t unknown_id = 0;
  int64_t max_word_chars = 0;
  bool lowercase = false;
  bool strip_accents = false;
  bool split_cjk = false;
  int64_t bytes = 0;  // counted in `account`
  MemoryAccount* account = nullptr;

  static int64_t bytes_for(size_t n_pieces, size_t n_special) {
    const auto slots_bytes = static_cast<int64_t>(slot_count(n_pieces) * sizeof(uint32_t));
    return static_cast<int64_t>(sizeof(Impl) + n_pieces * sizeof(Piece) +
                                n_special * sizeof(SpecialToken)) +
           slots_bytes;
  }
};

void Tokenizer::Impl::insert(uint32_t id, std::string_view text) {
  const uint32_t h = hash_bytes(kHashStart, text);
  pieces[id] = {static_cast<uint32_t>(text.data() - texts), static_cast<uint16_t>(text.size()),
                static_cast<uint16_t>(h >> 16)};
  const size_t mask = slots.size() - 1;
  size_t i = h & mask;
  for (; slots[i] != kFree; i = (i + 1) & mask) {
    const Piece& other = pieces[slots[i]];
    if (std::string_view(texts + other.offset, other.bytes) == text)
      break;  // a piece listed twice has its last id, as in BERT's own loader
  }
  slots[i] = id;
  longest_piece = std::max(longest_piece, text.size());
}

int32_t Tokenizer::Impl::lookup(uint32_t h, std::string_view prefix, std::string_view text) const {
  const size_t mask = slots.size() - 1;
  const size_t bytes_wanted = prefix.size() + text.size();
  for (size_t i = h & mask; slots[i] != kFree; i = (i + 1) & mask) {
    const Piece& p = pieces[slots[i]];
    if (p.tag != h >> 16 || p.bytes != bytes_wanted) continue;
    const std::string_view known(texts + p.offset, p.bytes);
    if (known.substr(0, prefix.size()) == prefix && known.substr(prefix.size()) == text)
      return static_cast<int32_t>(slots[i]);
  }
  return -1;
}

void Tokenizer::Impl::build_index(const Gguf& gguf, const std::vector<std::string_view>& tokens) {
  if (tokens.empty() || tokens.size() >= 0x7fffffff)
    fail(Status::BadModel, "%s: tokenizer.ggml.tokens has %zu entries", gguf.origin().c_str(),
         tokens.size());
  texts = tokens.front().data();
  if (tokens.back().data() - texts > 0xffffffffll)
    fail(Status::BadModel, "%s: tokenizer.ggml.tokens takes more than 4 GiB",
         gguf.origin().c_str());
  pieces.resize(tokens.size());
  slots.assign(slot_count(tokens.size()), kFree);
  for (size_t id = 0; id < tokens.size(); id++) {
    const std::string_view text = tokens[id];
    // An empty piece and one longer than any word can never match.
    if (!text.empty() && static_cast<int64_t>(text.size()) <= kMaxPieceBytes)
      insert(static_cast<uint32_t>(id), text);
  }
}

void Tokenizer::Impl::read_special_tokens(const std::vector<std::string_view>& literals) {
  special_tokens.reserve(literals.size());
  for (const std::string_view literal : literals) {
    if (literal.empty()) continue;  // found everywhere: HF ignores it, too
    const int32_t id = lookup(hash_bytes(kHashStart, literal), {}, literal);
    // A literal outside the vocabulary is cut out all the same, and unknown.
    special_tokens.push_back({literal, id < 0 ? unknown_id : id});
    special_start[static_cast<unsigned char>(literal.front())] = true;
  }
}

// The longest special token that `text` begins with.
const SpecialToken* Tokenizer::Impl::special_at(std::string_view text) const {
  if (!special_start[static_cast<unsigned char>(text.front())]) return nullptr;
  const SpecialToken* best = nullptr;
  for (const SpecialToken& s : special_tokens)
    if (text.substr(0, s.text.size()) == s.text &&
        (best == nullptr || s.text.size() > best->text.size()))
      best = &s;
  return best;
}

// Text without special tokens: cleaned, spaced and cut into words.
void Tokenizer::Impl::encode_plain(std::string_view text, Rules rules,
                                   std::vector<int32_t>* ids) const {
  CodePoints points;
  decode_utf8(text, &points);
  CodePoints word;
  const auto end_word = [&] {
    if (!word.empty()) encode_word(std::move(word), rules, ids);
    word.clear();
  };
  for (const int32_t c : points) {
    if (is_dropped(c, rules)) continue;
    const bool alone = split_cjk && is_cjk(c, rules);
    if (alone || is_space(c)) end_word();
    if (!is_space(c)) word.push_back(c);
    if (alone) end_word();
  }
  end_word();
}

// The special token that the slow tokenizer takes `word` for: one that cleaning has left equal to
// it.
const SpecialToken* Tokenizer::Impl::special_word(const CodePoints& word) const {
  std::string text;
  for (const int32_t c : word) append_utf8(c, &text);
  const SpecialToken* s = text.empty() ? nullptr : special_at(text);
  return s != nullptr && s->text.size() == text.size() ? s : nullptr;
}

void Tokenizer::Impl::encode_word(CodePoints word, Rules rules, std::vector<int32_t>* ids) const {
  if (rules == Rules::Suno) {
    to_nfc(&word);
    const SpecialToken* special = special_word(word);
    if (special == nullptr && (lowercase || strip_accents)) {
      if (lowercase) to_lowercase(&word);
      if (strip_accents) drop_accents(&word);
      special = special_word(word);
    }
    if (special != nullptr) return ids->push_back(special->id);
  } else {
    if (strip_accents) drop_accents(&word);
    if (lowercase) to_lowercase(&word);
  }
  const int32_t* const last = word.data() + word.size();
  for (const int32_t* first = word.data(); first != last;) {
    const int32_t* end = std::find_if(first, last, is_punctuation);
    if (end == first) end = first + 1;
    encode_piece(first, end, ids);
    first = end;
  }
}

// WordPiece: the longest match from the left, again and again; one dead end makes the whole word
// unknown.
void Tokenizer::Impl::encode_piece(const int32_t* first, const int32_t* last,
                                   std::vector<int32_t>* ids) const {
  if (last - first > max_word_chars) return ids->push_back(unknown_id);
  std::string text;
  for (const int32_t* c = first; c != last; c++) append_utf8(*c, &text);
  const size_t n_before = ids->size();
  for (size_t start = 0; start < text.size();) {
    const std::string_view prefix = start == 0 ? std::string_view() : kContinuation;
    uint32_t h = hash_bytes(kHashStart, prefix);
    int32_t best = -1;
    size_t best_end = start;
    for (size_t end = start; end < text.size() && end - start < longest_piece;) {
      do {
        h = hash_byte(h, text[end++]);
      } while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
      const int32_t id = lookup(h, prefix, std::string_view(text).substr(start, end - start));
      if (id < 0) continue;
      best = id;
      best_end = end;
    }
    if (best < 0) {
      ids->resize(n_before);
      ids->push_back(unknown_id);
      return;
    }
    ids->push_back(best);
    start = best_end;
  }
}

Tokenizer::Tokenizer(const Gguf& gguf, MemoryAccount& account) : impl_(std::make_unique<Impl>()) {
  const std::string_view kind = gguf.need_string("tokenizer.ggml.model");
  if (kind != "bert")
    fail(Status::Unsupported, "%s: tokenizer.ggml.model is %.*s; bert is supported",
         gguf.origin().c_str(), static_cast<int>(std::min<size_t>(kind.size(), 100)), kind.data());
  const auto tokens = gguf.need_strings("tokenizer.ggml.tokens");
  const auto literals = gguf.need_strings("tokenizer.bark.special_tokens");
  if (static_cast<int64_t>(literals.size()) > kMaxSpecialTokens)
    fail(Status::BadModel, "%s: tokenizer.bark.special_tokens has %zu entries",
         gguf.origin().c_str(), literals.size());
  impl_->max_word_chars = gguf.need_int("tokenizer.bark.max_word_chars", 1, kMaxWordChars);
  impl_->lowercase = gguf.need_bool("tokenizer.bark.lowercase");
  impl_->strip_accents = gguf.need_bool("tokenizer.bark.strip_accents");
  impl_->split_cjk = gguf.need_bool("tokenizer.bark.split_cjk");
  impl_->build_index(gguf, tokens);
  impl_->unknown_id = static_cast<int32_t>(
      gguf.need_int("tokenizer.ggml.unknown_token_id", 0, static_cast<int64_t>(tokens.size()) - 1));
  impl_->read_special_tokens(literals);
  impl_->bytes = Impl::bytes_for(tokens.size(), literals.size());
  impl_->account = &account;
  account.add(Category::Tables, impl_->bytes);
}

Tokenizer::~Tokenizer() { impl_->account->remove(Category::Tables, impl_->bytes); }

int64_t Tokenizer::estimate_bytes(const Gguf& gguf) {
  return Impl::bytes_for(gguf.need_strings("tokenizer.ggml.tokens").size(),
                         gguf.need_strings("tokenizer.bark.special_tokens").size());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Rules rules) const {
  std::string collapsed;
  if (rules == Rules::Suno) {
    collapsed = collapse_spaces(text);
    text = collapsed;
    if (text.empty()) fail(Status::InvalidArgument, "the text is empty");
  } else {
    CodePoints checked;  // the whole text at once, so that an error counts bytes from its start
    decode_utf8(text, &checked);
  }
  std::vector<int32_t> ids;
  size_t plain = 0;  // start of the text not yet encoded
  for (size_t i = 0; i < text.size();) {
    const SpecialToken* special = impl_->special_at(text.substr(i));
    if (special == nullptr) {
      i++;
      continue;
    }
    impl_->encode_plain(text.substr(plain, i - plain), rules, &ids);
    ids.push_back(special->id);
    i += special->text.size();
    plain = i;
  }
  impl_->encode_plain(text.substr(plain), rules, &ids);
  return ids;
}

}  // namespace barkrt
