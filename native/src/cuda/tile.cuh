// tile.cuh: what the two kernels of linear_tile have in common: the product, its rows of x, how K
// is cut.
#pragma once

#include "cuda/common.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/ops.h"
#include "cuda/rounding.cuh"

namespace barkrt::cuda {

// Number k of row t is data[t * stride + (k / cols) * step + k % cols]: the taps of a convolution
// are stretches of `cols` numbers that lie `step` apart. Rows may overlap.
struct Taps {
  const float* data = nullptr;
  int64_t stride = 0;
  int cols = 0;
  int64_t step = 0;

  // Four numbers may be loaded at once.
  bool aligned() const {
    return aligned16(data) && stride % 4 == 0 && cols % 4 == 0 && step % 4 == 0;
  }
};

struct TileProduct {
  Taps x;
  const void* w = nullptr;  // (n, k)
  DType type = DType::F32;
  int64_t rows = 0;
  int64_t n = 0;
  int k = 0;
  int segment = 0;           // of k: what blocks of one grid.z sum
  float* partial = nullptr;  // (segments, rows, n) sums of segments; NULL when there is one
  Epilogue epilogue;

  int segments() const { return divide_up(k, segment); }
  // Rows of w may be loaded in vectors of eight weights, and x in those of four.
  bool aligned() const { return k % 8 == 0 && aligned16(w) && x.aligned(); }

  __device__ void store(float sum, int64_t t, int64_t column) const {
    if (t >= rows || column >= n) return;
    if (partial)
      partial[(blockIdx.z * rows + t) * n + column] = sum;
    else
      epilogue.store(sum, t, column);
  }

  // x[t][k .. k + 3], zeros from row `rows` and from `end` on; k is a multiple of four.
  template <bool aligned>
  __device__ float4 load_x(int64_t t, int at, int end) const {
    if (t >= rows || at >= end) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float* const row = x.data + t * x.stride;
    const auto address = [&](int i) {
      return x.cols == k ? row + i : row + i / x.cols * x.step + i % x.cols;
    };
    if constexpr (aligned) {
      return __ldg(reinterpret_cast<const float4*>(address(at)));
    } else {
      float v[4];
      for (int i = 0; i < 4; ++i) v[i] = at + i < end ? *address(at + i) : 0.0f;
      return make_float4(v[0], v[1], v[2], v[3]);
    }
  }
};

// Tiles of 128 x 128 (wide) or 64 x 64. Which it is decides nothing about the bits: every output
// adds its products in ascending k, segment by segment.
void launch_ffma(cudaStream_t stream, const TileProduct& p, bool wide);  // f32, any weights
// Tensor cores: F16 and I8 weights with x rounded to f16, BF16 weights with x rounded to bf16
// (compute capability 8.0).
void launch_mma(cudaStream_t stream, const TileProduct& p, bool wide);

// A product of taps for convolutions: f32 arithmetic, and segments that depend on K alone, so that
// a row has the same bits in a chunk of any length.
void tap_product(Stream& stream, View out, const Taps& x, const Matrix& w, const float* bias,
                 int64_t bias_period);

}  // namespace barkrt::cuda
