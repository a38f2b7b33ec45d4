// rowwise.cc: embeddings, layer norm and activations: rows shared out among the threads.
#include "cpu/cpu_backend.h"

#include <algorithm>

#include "error.h"

namespace barkrt {
namespace {

// Rows per piece such that a piece has some 16 000 numbers: about the cost of waking a thread.
int64_t rows_per_piece(int64_t cols) {
  return std::max<int64_t>(16384 / std::max<int64_t>(cols, 1), 1);
}

const void* table_row(const Matrix& table, int64_t row) {
  return static_cast<const std::byte*>(table.data) + row * table.cols * dtype_bytes(table.type);
}

}  // namespace

void CpuBackend::embed(View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
                       const Matrix* wpe, const int32_t* pos) {
  const int64_t n = out.rows;
  for (int64_t s = 0; s < n_tables; ++s) {
    BARKRT_CHECK(tables[s].cols == out.cols && tables[s].type != DType::I32);
    for (int64_t t = 0; t < n; ++t) BARKRT_CHECK(ids[s * n + t] < tables[s].rows);
  }
  const bool add_position = wpe != nullptr && pos != nullptr;
  if (add_position) {
    BARKRT_CHECK(wpe->cols == out.cols && wpe->type != DType::I32);
    for (int64_t t = 0; t < n; ++t) BARKRT_CHECK(pos[t] >= 0 && pos[t] < wpe->rows);
  }
  Op op(*this);
  op->chain.parallel_for(n, rows_per_piece(out.cols), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      bool first = true;
      const auto add_entry = [&](const Matrix& table, int64_t row) {
        const float scale = table.type == DType::I8 ? table.scale[row] : 1.0f;
        kernels_.add_row(out.row(t), table_row(table, row), static_cast<int32_t>(table.type), scale,
                         out.cols, first);
        first = false;
      };
      for (int64_t s = 0; s < n_tables; ++s)
        if (ids[s * n + t] >= 0) add_entry(tables[s], ids[s * n + t]);
      if (add_position) add_entry(*wpe, pos[t]);
      if (first) std::fill_n(out.row(t), out.cols, 0.0f);
    }
  });
  op.finish();
}

void CpuBackend::layernorm(View out, ConstView x, const float* gamma, const float* beta) {
  BARKRT_CHECK(out.rows == x.rows && out.cols == x.cols);
  Op op(*this);
  op->chain.parallel_for(x.rows, rows_per_piece(x.cols), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      kernels_.layernorm(out.row(t), x.row(t), gamma, beta, x.cols);
  });
  op.finish();
}

void CpuBackend::elu(View out, ConstView x) {
  BARKRT_CHECK(out.rows == x.rows && out.cols == x.cols);
  Op op(*this);
  op->chain.parallel_for(x.rows, rows_per_piece(x.cols), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) kernels_.elu(out.row(t), x.row(t), x.cols);
  });
  op.finish();
}

void CpuBackend::add(View out, ConstView x) {
  BARKRT_CHECK(out.rows == x.rows && out.cols == x.cols);
  Op op(*this);
  op->chain.parallel_for(x.rows, rows_per_piece(x.cols), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) kernels_.add(out.row(t), x.row(t), x.cols);
  });
  op.finish();
}

}  // namespace barkrt
