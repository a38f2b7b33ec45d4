// conv.cc: convolutions as matrix products. The inputs of an output row are consecutive rows of x,
// so with contiguous rows they are one longer row, and the next output's overlaps it.
#include "cpu/cpu_backend.h"

#include <algorithm>

#include "error.h"

namespace barkrt {
namespace {

constexpr int64_t kGatheredRows = 96, kGatheredPiece = 24;

}  // namespace

void CpuBackend::conv1d(View out, ConstView x, const Matrix& w, const float* bias, int64_t kernel,
                        int64_t dilation) {
  BARKRT_CHECK(kernel >= 1 && dilation >= 1 && w.cols == kernel * x.cols);
  BARKRT_CHECK(out.rows == x.rows && out.cols == w.rows);
  convolve(out, x, w, bias, w.rows, kernel, dilation);
}

void CpuBackend::conv_transpose1d(View out, ConstView x, const Matrix& w, const float* bias,
                                  int64_t stride) {
  BARKRT_CHECK(stride >= 1 && w.rows == stride * out.cols && w.cols == 2 * x.cols);
  BARKRT_CHECK(out.rows == x.rows * stride && out.stride == out.cols);
  // One input row pair gives `stride` output rows, which lie one behind the other.
  convolve({out.data, x.rows, w.rows, w.rows}, x, w, bias, out.cols, 2, 1);
}

void CpuBackend::convolve(View out, ConstView x, const Matrix& w, const float* bias,
                          int64_t bias_period, int64_t kernel, int64_t dilation) {
  Op op(*this);
  if (kernel == 1 || (dilation == 1 && x.stride == x.cols)) {
    product(op, out, {x.row(-(kernel - 1)), x.rows, w.cols, x.stride}, w, bias, bias_period, {});
    return op.finish();
  }
  // Dilated, or rows with gaps: collect the taps of some outputs at a time.
  const int64_t most = std::min(x.rows, kGatheredRows);
  float* const taps = reinterpret_cast<float*>(op->area(0, most * w.cols * int64_t{sizeof(float)}));
  for (int64_t t0 = 0; t0 < x.rows; t0 += kGatheredRows) {
    const int64_t count = std::min(x.rows - t0, kGatheredRows);
    op->chain.parallel_for(count, kGatheredPiece, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t j = 0; j < kernel; ++j)
          std::copy_n(x.row(t0 + t - (kernel - 1 - j) * dilation), x.cols,
                      taps + t * w.cols + j * x.cols);
    });
    product(op, out.slice(t0, count), view(static_cast<const float*>(taps), count, w.cols), w, bias,
            bias_period, {});
  }
  op.finish();
}

}  // namespace barkrt
