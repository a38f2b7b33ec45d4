// lstm.cc: the recurrent half of an LSTM layer: one matrix-vector product per step.
#include "cpu/cpu_backend.h"

#include "error.h"

namespace barkrt {
namespace {

constexpr int64_t kCells = 128;  // at least, for one thread
constexpr int64_t kLoops = 64;   // two for each step

}  // namespace

void CpuBackend::lstm(View out, ConstView gates, const Matrix& w_hh, float* h, float* c) {
  const int64_t hidden = out.cols;
  BARKRT_CHECK(gates.rows == out.rows && gates.cols == 4 * hidden);
  BARKRT_CHECK(w_hh.rows == 4 * hidden && w_hh.cols == hidden);
  Op op(*this, kLoops);
  float* const sums = reinterpret_cast<float*>(op->area(0, 4 * hidden * int64_t{sizeof(float)}));
  for (int64_t t = 0; t < out.rows; ++t) {
    product(op, view(sums, 1, 4 * hidden), view(static_cast<const float*>(h), 1, hidden), w_hh,
            nullptr, 1, gates.slice(t, 1));
    op->chain.for_stretches(hidden, kCells, [=](int64_t begin, int64_t end) {
      kernels_.lstm_cells(out.row(t), h, c, sums, hidden, begin, end);
    });
  }
  op.finish();
}

}  // namespace barkrt
