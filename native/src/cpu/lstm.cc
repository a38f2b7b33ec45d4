// lstm.cc: the recurrent half of an LSTM layer: one matrix-vector product per step.
#include "cpu/cpu_backend.h"

#include "error.h"

namespace barkrt {

void CpuBackend::lstm(View out, ConstView gates, const Matrix& w_hh, float* h, float* c) {
  const int64_t hidden = out.cols;
  BARKRT_CHECK(gates.rows == out.rows && gates.cols == 4 * hidden);
  BARKRT_CHECK(w_hh.rows == 4 * hidden && w_hh.cols == hidden);
  std::vector<float> sums(static_cast<size_t>(4 * hidden));
  for (int64_t t = 0; t < out.rows; ++t) {
    product(view(sums.data(), 1, 4 * hidden), view(static_cast<const float*>(h), 1, hidden), w_hh,
            nullptr, 1, gates.slice(t, 1));
    kernels_.lstm_cells(out.row(t), h, c, sums.data(), hidden, 0, hidden);
  }
}

}  // namespace barkrt
