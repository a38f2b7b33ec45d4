// cublaslt.h: products of many rows by NVIDIA's library, where it can be opened at run time. It is
// neither linked nor shipped: without it the tile kernels make all products.
#pragma once

#include "cuda/ops.h"

namespace barkrt::cuda {

// As linear(), for F16 and BF16 weights. False, with nothing launched, where there is no library,
// where it refuses the shape, and for other weights. A log line says once which library is used, or
// that none is. Any thread.
bool cublaslt_linear(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                     int64_t bias_period, ConstView add, const Fused& fused);

// For tests, between calls: the library to open from now on; "" none, NULL those of CUDA 13 and 12.
void set_cublaslt_library(const char* path);

// rounded[t][k] = x[t][k], or its layer norm where fused.gamma is set, as F16 (saturating) or BF16.
void round_rows(Stream& stream, void* rounded, DType type, ConstView x, const Fused& fused);

}  // namespace barkrt::cuda
