// linear.cc: cuts a matrix product into tiles for the threads.
#include "cpu/cpu_backend.h"

#include <algorithm>

#include "error.h"

namespace barkrt {
namespace {

constexpr int64_t kRowsPerTile = 96;     // of x: they stay in the second-level cache
constexpr int64_t kOutputsPerTile = 64;  // a multiple of the kernels' weight rows
// Below so many multiply-adds a tile costs less than handing it to another thread.
constexpr int64_t kLeastWork = 1 << 16;
constexpr int64_t kFewRows = 4;            // below, arithmetic takes less long than reading
constexpr int64_t kLeastPacked = 1 << 14;  // numbers of x
constexpr int64_t kManyRows = 24;          // from here on arithmetic takes longer than reading

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void check_product(View out, ConstView x, const Matrix& w, ConstView add) {
  BARKRT_CHECK(x.cols == w.cols && out.cols == w.rows && out.rows == x.rows);
  BARKRT_CHECK(w.type == DType::F32 || w.type == DType::F16 || w.type == DType::BF16 ||
               (w.type == DType::I8 && w.scale != nullptr));
  BARKRT_CHECK(add.data == nullptr || (add.rows == out.rows && add.cols == out.cols));
}

// All rows and outputs.
LinearTile whole_tile(View out, ConstView x, const Matrix& w, const float* bias,
                      int64_t bias_period, ConstView add) {
  LinearTile tile = {};
  tile.out = out.data, tile.out_stride = out.stride;
  tile.x = x.data, tile.x_stride = x.stride;
  tile.w = w.data, tile.type = static_cast<int32_t>(w.type), tile.k = w.cols;
  tile.scale = w.type == DType::I8 ? w.scale : nullptr;
  tile.bias = bias, tile.bias_period = bias_period;
  tile.add = add.data, tile.add_stride = add.stride;
  tile.t1 = x.rows, tile.n1 = w.rows;
  return tile;
}

}  // namespace

void CpuBackend::linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add) {
  const int64_t packed_bytes = kernels_.packed_row_bytes(static_cast<int32_t>(w.type), w.cols);
  if (packed_bytes > 0)
    packed_product(out, x, w, bias, add, packed_bytes);
  else
    product(out, x, w, bias, w.rows, add);
}

// Rows stay near while tiles of outputs go by.
void CpuBackend::product(View out, ConstView x, const Matrix& w, const float* bias,
                         int64_t bias_period, ConstView add) {
  check_product(out, x, w, add);
  const LinearTile whole = whole_tile(out, x, w, bias, bias_period, add);
  const int64_t row_tiles = (x.rows + kRowsPerTile - 1) / kRowsPerTile;
  const int64_t tile_rows = std::min(x.rows, kRowsPerTile);
  // Few rows: one stretch of weights per thread, as below.
  const int64_t least = x.rows < kFewRows ? w.rows / pool_.n_threads() + 1 : kOutputsPerTile;
  const int64_t outputs =
      round_up(std::max(least, kLeastWork / std::max<int64_t>(tile_rows * w.cols, 1) + 1), 8);
  const int64_t output_tiles = (w.rows + outputs - 1) / outputs;
  pool_.parallel_for(row_tiles * output_tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      LinearTile tile = whole;
      tile.t0 = i / output_tiles * kRowsPerTile;
      tile.t1 = std::min(tile.t0 + kRowsPerTile, x.rows);
      tile.n0 = i % output_tiles * outputs;
      tile.n1 = std::min(tile.n0 + outputs, w.rows);
      kernels_.linear(tile);
    }
  });
}

// Rows are packed first, all of them for all threads; then each tile of outputs meets all rows, so
// that weights are turned once.
void CpuBackend::packed_product(View out, ConstView x, const Matrix& w, const float* bias,
                                ConstView add, int64_t packed_bytes) {
  check_product(out, x, w, add);
  const ScratchPool::Lease packed = scratch_.take(x.rows * packed_bytes);
  LinearTile whole = whole_tile(out, x, w, bias, w.rows, add);
  whole.packed = packed.data();
  pool_.parallel_for(
      x.rows, kLeastPacked / std::max<int64_t>(w.cols, 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
          kernels_.pack_row(static_cast<std::byte*>(packed.data()) + r * packed_bytes, x.row(r),
                            w.cols, whole.type);
      });
  // Few rows take as long as reading the weights, which is fastest in one stretch per thread. Many:
  // pieces of a panel, for threads that come late or are held up.
  const int64_t least = x.rows < kManyRows ? w.rows / pool_.n_threads() + 1 : 1;
  pool_.parallel_for(w.rows, round_up(least, kPanelOutputs), [&](int64_t begin, int64_t end) {
    const ScratchPool::Lease panel = scratch_.take(panel_bytes(w.cols * dtype_bytes(w.type)));
    LinearTile tile = whole;
    tile.panel = panel.data();
    tile.n0 = begin, tile.n1 = end;
    kernels_.linear(tile);
  });
}

}  // namespace barkrt
