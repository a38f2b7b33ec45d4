// epilogue.cuh: what a product does with a finished sum.
#pragma once

#include "cuda/common.cuh"
#include "cuda/ops.h"

namespace barkrt::cuda {

struct Epilogue {
  float* out = nullptr;  // (rows, n)
  int64_t out_stride = 0;
  const float* scale = nullptr;  // (n) or NULL
  const float* bias = nullptr;   // (bias_period) or NULL
  int64_t bias_period = 1;
  const float* add = nullptr;  // (rows, n) or NULL; may be out
  int64_t add_stride = 0;
  bool gelu = false;

  Epilogue() = default;
  Epilogue(View to, const Matrix& w, const float* bias_values, int64_t period, ConstView added,
           bool with_gelu)
      : out(to.data),
        out_stride(to.stride),
        scale(w.type == DType::I8 ? w.scale : nullptr),
        bias(bias_values),
        bias_period(period),
        add(added.data),
        add_stride(added.stride),
        gelu(with_gelu) {}

  // Output n of row t. Explicitly fused: the same bits in every kernel.
  __device__ void store(float sum, int64_t t, int64_t n) const {
    const int64_t b = n < bias_period ? n : n % bias_period;  // a division is fifty instructions
    sum = fmaf(sum, scale ? scale[n] : 1.0f, bias ? bias[b] : 0.0f);
    if (add) sum += add[t * add_stride + n];
    out[t * out_stride + n] = gelu ? cuda::gelu(sum) : sum;
  }
};

}  // namespace barkrt::cuda
