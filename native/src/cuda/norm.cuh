// norm.cuh: layer norm of one row by one warp, the same bits wherever it is computed: by
// layernorm() and by the products that have it fused.
#pragma once

#include "cuda/common.cuh"

namespace barkrt::cuda {

constexpr float kNormEpsilon = 1e-5f;

struct RowNorm {
  float mean;
  float inverse_deviation;
  // Explicitly fused: what the compiler fuses by itself may differ from kernel to kernel.
  __device__ float apply(float x, float gamma, float beta) const {
    return fmaf((x - mean) * inverse_deviation, gamma, beta);
  }
};

// By all lanes of a warp, for row (k). The biased variance in two passes; lanes stride over k.
__device__ inline RowNorm row_norm(const float* row, int64_t k, int lane) {
  float sum = 0.0f;
#pragma unroll 8
  for (int64_t i = lane; i < k; i += kWarp) sum += row[i];
  const float mean = warp_sum(sum) / static_cast<float>(k);
  float squares = 0.0f;
#pragma unroll 8
  for (int64_t i = lane; i < k; i += kWarp) {
    const float d = row[i] - mean;
    squares = fmaf(d, d, squares);
  }
  const float variance = warp_sum(squares) / static_cast<float>(k);
  return {mean, 1.0f / sqrtf(variance + kNormEpsilon)};
}

}  // namespace barkrt::cuda
