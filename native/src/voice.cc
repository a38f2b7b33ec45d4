#include "voice.h"

#include <cstdio>
#include <cstring>

#include "error.h"
#include "gguf.h"

namespace barkrt {
namespace {

long long ll(int64_t v) { return v; }

void check_values(const char* what, const std::vector<int32_t>& ids, int64_t n_frames,
                  int64_t end) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < end) continue;
    fail(Status::InvalidArgument,
         "the voice's %s value %d at codebook %lld, position %lld is outside 0 .. %lld", what,
         ids[i], ll(static_cast<int64_t>(i) / n_frames), ll(static_cast<int64_t>(i) % n_frames),
         ll(end - 1));
  }
}

void check_codes(const char* what, const Codes& codes, int64_t n_codebook, int64_t end) {
  if (codes.n_codebook != n_codebook || codes.n_frames < 1)
    fail(Status::InvalidArgument,
         "the voice's %s codes are %lld codebooks by %lld frames; this model needs %lld codebooks "
         "and at least one frame",
         what, ll(codes.n_codebook), ll(codes.n_frames), ll(n_codebook));
  BARKRT_CHECK(static_cast<int64_t>(codes.ids.size()) == n_codebook * codes.n_frames);
  check_values(what, codes.ids, codes.n_frames, end);
}

const GgufTensor& voice_tensor(const Gguf& gguf, const std::string& name, const char* part) {
  const std::string tensor = "voice." + name + "." + part;
  const GgufTensor* t = gguf.find(tensor);
  if (!t)
    fail(Status::BadModel, "the file lists voice %s but has no tensor %s", name.c_str(),
         tensor.c_str());
  if (t->type != DType::I32)
    fail(Status::BadModel, "tensor %s is %s, not I32", tensor.c_str(), dtype_name(t->type));
  return *t;
}

std::vector<int32_t> read_ids(const Gguf& gguf, const GgufTensor& t) {
  std::vector<int32_t> ids(t.bytes / sizeof(int32_t));
  if (!ids.empty()) std::memcpy(ids.data(), gguf.data() + t.offset, t.bytes);
  return ids;
}

Codes read_codes(const Gguf& gguf, const GgufTensor& t) {
  return {t.shape[0], t.shape[1], read_ids(gguf, t)};
}

}  // namespace

int64_t voice_bytes(const Voice& voice) {
  const size_t n = voice.semantic.size() + voice.coarse.ids.size() + voice.fine.ids.size();
  return static_cast<int64_t>(n * sizeof(int32_t));
}

void check_voice(const Config& config, const Voice& voice) {
  if (voice.semantic.empty())
    fail(Status::InvalidArgument, "the voice has no semantic tokens; it needs at least one");
  check_values("semantic", voice.semantic, static_cast<int64_t>(voice.semantic.size()),
               config.semantic.vocab_size);
  check_codes("coarse", voice.coarse, config.coarse.n_codebook, config.codebook_size);
  check_codes("fine", voice.fine, config.fine.n_fine_codebook, config.codebook_size);
}

void check_voice_ratio(const Config& config, const Voice& voice) {
  // suno compares round(x, 1) of Python, which rounds the exact binary value, as printf does.
  char expected[64], found[64];
  const int64_t n_semantic = static_cast<int64_t>(voice.semantic.size());
  const int64_t n_frames = voice.coarse.n_frames;
  std::snprintf(expected, sizeof expected, "%.1f", config.coarse.rate_hz / config.semantic.rate_hz);
  std::snprintf(found, sizeof found, "%.1f",
                static_cast<double>(n_frames) / static_cast<double>(n_semantic));
  if (std::strcmp(expected, found) == 0) return;
  fail(Status::InvalidArgument,
       "the voice has %lld semantic tokens and %lld coarse frames, a ratio of %s; this model's "
       "rates need %s: cut the longer one",
       ll(n_semantic), ll(n_frames), found, expected);
}

void check_file_voice(const Gguf& gguf, const Config& config, const std::string& name) {
  const GgufTensor& semantic = voice_tensor(gguf, name, "semantic");
  const GgufTensor& coarse = voice_tensor(gguf, name, "coarse");
  const GgufTensor& fine = voice_tensor(gguf, name, "fine");
  const bool fits = semantic.shape.size() == 1 && semantic.shape[0] >= 1 &&
                    coarse.shape.size() == 2 && coarse.shape[0] == config.coarse.n_codebook &&
                    coarse.shape[1] >= 1 && fine.shape.size() == 2 &&
                    fine.shape[0] == config.fine.n_fine_codebook && fine.shape[1] >= 1;
  if (!fits)
    fail(Status::BadModel,
         "voice %s of the file has tensors of the wrong shape: want [n], "
         "[%lld, frames] and [%lld, frames]",
         name.c_str(), ll(config.coarse.n_codebook), ll(config.fine.n_fine_codebook));
}

int64_t file_voice_bytes(const Gguf& gguf, const std::string& name) {
  return voice_tensor(gguf, name, "semantic").bytes + voice_tensor(gguf, name, "coarse").bytes +
         voice_tensor(gguf, name, "fine").bytes;
}

Voice read_file_voice(const Gguf& gguf, const Config& config, const std::string& name) {
  Voice voice;
  voice.semantic = read_ids(gguf, voice_tensor(gguf, name, "semantic"));
  voice.coarse = read_codes(gguf, voice_tensor(gguf, name, "coarse"));
  voice.fine = read_codes(gguf, voice_tensor(gguf, name, "fine"));
  check_voice(config, voice);
  return voice;
}

}  // namespace barkrt
