// linear.cc: cuts a matrix product into tiles for the threads.
#include "cpu/cpu_backend.h"

#include <algorithm>

#include "error.h"

namespace barkrt {
namespace {

constexpr int64_t kRowsPerTile = 96;     // of x: they stay in the second-level cache
constexpr int64_t kOutputsPerTile = 64;  // a multiple of the kernels' four weight rows
// Below so many multiply-adds a tile costs less than handing it to another thread.
constexpr int64_t kLeastWork = 1 << 16;

}  // namespace

void CpuBackend::linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add) {
  product(out, x, w, bias, w.rows, add);
}

void CpuBackend::product(View out, ConstView x, const Matrix& w, const float* bias,
                         int64_t bias_period, ConstView add) {
  BARKRT_CHECK(x.cols == w.cols && out.cols == w.rows && out.rows == x.rows);
  BARKRT_CHECK(w.type == DType::F32 || w.type == DType::F16 || w.type == DType::BF16 ||
               (w.type == DType::I8 && w.scale != nullptr));
  BARKRT_CHECK(add.data == nullptr || (add.rows == out.rows && add.cols == out.cols));
  const int64_t row_tiles = (x.rows + kRowsPerTile - 1) / kRowsPerTile;
  const int64_t tile_rows = std::min(x.rows, kRowsPerTile);
  // Few rows: enough outputs per tile to be worth a wake-up, at most a few tiles per thread.
  const int64_t least = kLeastWork / std::max<int64_t>(tile_rows * w.cols, 1) + 1;
  const int64_t outputs = (std::max(least, kOutputsPerTile) + 3) / 4 * 4;
  const int64_t output_tiles = (w.rows + outputs - 1) / outputs;
  pool_.parallel_for(row_tiles * output_tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      LinearTile tile = {};
      tile.out = out.data, tile.out_stride = out.stride;
      tile.x = x.data, tile.x_stride = x.stride;
      tile.w = w.data, tile.type = static_cast<int32_t>(w.type), tile.k = w.cols;
      tile.scale = w.type == DType::I8 ? w.scale : nullptr;
      tile.bias = bias, tile.bias_period = bias_period;
      tile.add = add.data, tile.add_stride = add.stride;
      tile.t0 = i / output_tiles * kRowsPerTile;
      tile.t1 = std::min(tile.t0 + kRowsPerTile, x.rows);
      tile.n0 = i % output_tiles * outputs;
      tile.n1 = std::min(tile.n0 + outputs, w.rows);
      kernels_.linear(tile);
    }
  });
}

}  // namespace barkrt
