// conv.cu: convolutions as products: an output row meets `kernel` rows of x, its taps, one behind
// the other as columns of the weights. The tiles read the taps where they lie.
#include "cuda/tile.cuh"

namespace barkrt::cuda {
namespace {

// Of row t: rows t - (kernel - 1) * dilation, …, t. One row behind the other without gaps is one
// long row.
Taps taps(ConstView x, int64_t kernel, int64_t dilation) {
  const int64_t step = dilation * x.stride;
  const bool contiguous = kernel == 1 || step == x.cols;
  return {x.row(-(kernel - 1) * dilation), x.stride,
          static_cast<int>(contiguous ? kernel * x.cols : x.cols), contiguous ? 0 : step};
}

}  // namespace

void conv1d(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
            int64_t kernel, int64_t dilation) {
  tap_product(stream, out, taps(x, kernel, dilation), w, bias, w.rows);
}

// One pair of input rows gives `stride` output rows, which lie one behind the other.
void conv_transpose1d(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                      int64_t) {
  const View rows = {out.data, x.rows, w.rows, w.rows};
  tap_product(stream, rows, taps(x, 2, 1), w, bias, out.cols);
}

}  // namespace barkrt::cuda
