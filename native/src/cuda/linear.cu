// linear.cu: which kernel makes a product: few rows are bound by reading the weights, many by the
// arithmetic.
#include "cuda/cublaslt.h"
#include "cuda/ops.h"

namespace barkrt::cuda {

void linear(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
            int64_t bias_period, ConstView add, const Fused& fused) {
  if (x.rows <= kFewRows) {
    linear_rows(stream, out, x, w, bias, bias_period, add, fused);
    return;
  }
  if (cublaslt_linear(stream, out, x, w, bias, bias_period, add, fused)) return;
  linear_tile(stream, out, x, w, bias, bias_period, add, fused);
}

}  // namespace barkrt::cuda
