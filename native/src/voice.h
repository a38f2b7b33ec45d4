// voice.h: a history prompt: semantic, coarse and fine tokens of earlier speech, validated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config.h"

namespace barkrt {

class Gguf;

// Codec codes without offsets.
struct Codes {
  int64_t n_codebook = 0;
  int64_t n_frames = 0;
  std::vector<int32_t> ids;  // (n_codebook, n_frames)

  int32_t at(int64_t codebook, int64_t frame) const { return ids[codebook * n_frames + frame]; }
};

struct Voice {
  std::vector<int32_t> semantic;
  Codes coarse;
  Codes fine;
};

// What the voice takes of host memory.
int64_t voice_bytes(const Voice& voice);

// Throws InvalidArgument naming the lengths or the first bad value. What the values mean beyond
// their ranges is not checked here.
void check_voice(const Config& config, const Voice& voice);

// suno's further demand: frames per semantic token, to one decimal, are those of the model's rates.
// InvalidArgument names both lengths.
void check_voice_ratio(const Config& config, const Voice& voice);

// The voices of a file: shapes and types are checked at load, values when one is read.
void check_file_voice(const Gguf& gguf, const Config& config, const std::string& name);
int64_t file_voice_bytes(const Gguf& gguf, const std::string& name);
Voice read_file_voice(const Gguf& gguf, const Config& config, const std::string& name);

}  // namespace barkrt
