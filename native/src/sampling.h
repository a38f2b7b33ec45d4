// sampling.h: from one row of logits to one token id: filters, early stop, draw. Pure host code, no
// state.
#pragma once

#include <cstdint>

namespace barkrt {

// Whose procedure is followed where the references differ. Values equal barkrt_rules.
enum class Rules : int32_t { Suno = 0, Hf = 1 };

struct SampleParams {
  float temperature = 0;  // 0: argmax, lowest index among equals
  int32_t top_k = 0;      // 0: off; ties with the k-th survive
  float top_p = 1;        // 1: off
  Rules rules = Rules::Suno;
  int32_t eos = -1;     // index of the end candidate in the row; -1: the stage has none
  float min_eos_p = 0;  // 0: off
  double coin = 0;      // uniform in [0, 1), from random_uniform()
};

// Index into logits[0 .. n). Suno order: top-p on raw logits, top-k, temperature; min_eos_p tests
// p(EOS) >= it after the filters. HF order: temperature, top-k, top-p; min_eos_p tests p(EOS) > it
// on the unfiltered softmax. When the test holds the result is `eos`. scratch: n floats and n int32
// (2 * n * 4 bytes). Throws Internal on a NaN logit.
int32_t sample_row(const float* logits, int64_t n, const SampleParams& params, void* scratch);

// Bytes of scratch that sample_row needs.
constexpr int64_t sample_scratch_bytes(int64_t n) { return n * 8; }

// One number of a request's random stream, uniform in [0, 1) with 53 bits: Philox 4x32-10 (Salmon
// et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), key = seed, counter = (stage,
// step, row, 0). Independent of order, batch and threads.
double random_uniform(uint64_t seed, uint32_t stage, uint32_t step, uint32_t row);

// The generator itself: four 32-bit words of one counter block.
void philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

}  // namespace barkrt
