// codec.h: from codes to samples: residual codebooks and the EnCodec decoder, in exact chunks.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "config.h"
#include "tensor.h"

namespace barkrt {

struct ConvWeights {
  Matrix weight;                // (out, kernel * in)
  const float* bias = nullptr;  // (out)
  int64_t kernel = 1;
  int64_t dilation = 1;

  int64_t history() const { return (kernel - 1) * dilation; }  // rows needed in front
};

struct ResidualWeights {
  ConvWeights conv1, conv2;
  ConvWeights shortcut;  // no weight: the identity
};

struct UpWeights {
  Matrix weight;                // (stride * out, 2 * in)
  const float* bias = nullptr;  // (out)
  int64_t stride = 1;
  std::vector<ResidualWeights> residual;
};

struct LstmWeights {
  Matrix ih, hh;                // (4H, H)
  const float* bias = nullptr;  // (4H)
};

struct CodecWeights {
  std::vector<Matrix> codebook;  // (codebook_size, hidden) each, those in use
  ConvWeights conv_in;
  std::vector<LstmWeights> lstm;
  std::vector<UpWeights> up;
  ConvWeights conv_out;
};

// Frames decoded per chunk: long enough to be efficient, short enough for a cancel to be prompt.
constexpr int64_t kCodecChunkFrames = 32;

// Sizes in floats of a decoder's device memory, independent of the clip's length. The three work
// areas are reused by every layer; a layer keeps only its carry from chunk to chunk.
struct CodecPlan {
  int64_t chunk_frames = 0;  // most frames per chunk
  int64_t first_frames = 0;  // fewest frames of the first of several chunks: reflection needs them
  int64_t main = 0;          // a layer's output
  int64_t padded = 0;        // a convolution's input with its history in front, or LSTM gates
  int64_t side = 0;          // residual hidden rows, LSTM output, samples
  std::vector<int64_t> carry;  // per convolution: history rows x channels; per LSTM layer: h, c

  static CodecPlan make(const CodecConfig& config, int64_t chunk_frames = kCodecChunkFrames);
  int64_t work_bytes() const;   // needed during a chunk only
  int64_t carry_bytes() const;  // kept from chunk to chunk
};

// Decodes one clip, chunk by chunk. The samples do not depend on where it is cut.
class CodecDecoder {
 public:
  // work and carry: plan.work_bytes() and plan.carry_bytes() of device memory, 64-byte aligned,
  // borrowed. Between two chunks others may use the work memory.
  CodecDecoder(Backend& backend, const CodecConfig& config, const CodecWeights& weights,
               const CodecPlan& plan, std::byte* work, std::byte* carry);

  // Next n_frames frames: ids is (codebooks, n_frames), host; pcm receives n_frames * hop samples.
  // The first of several chunks has at least plan.first_frames, and none more than chunk_frames.
  void decode(const int32_t* ids, int64_t n_frames, float* pcm);

 private:
  View padded_rows(int64_t rows, int64_t channels, int64_t history) const;
  void exchange_history(View x, int64_t history, bool reflect);
  View conv(float* out, View x, const ConvWeights& w);
  View lstm(View x);
  View upsample(View x, const UpWeights& w);
  View residual(View x, const ResidualWeights& w);
  float* next_carry();

  Backend& backend_;
  const CodecConfig& config_;
  const CodecWeights& weights_;
  const CodecPlan& plan_;
  float* main_;
  float* padded_;
  float* side_;
  std::vector<float*> carry_;
  size_t carry_index_ = 0;
  bool first_ = true;
};

}  // namespace barkrt
