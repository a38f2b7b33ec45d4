// linear.cc: cuts a matrix product into tiles for the threads.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace barkrt {
namespace {

static_assert(kTileOutputs == kTileRows && kTileColumns == kTileCols &&
              kTileBytesI8 == tile_bytes(DType::I8Tiles) && kTileBytesI4 == tile_bytes(DType::I4));

// Of x: they stay in the second-level cache, which is larger where tiles are.
constexpr int64_t kRowsPerTile = 96, kGroupedRowsPerTile = 256;
constexpr int64_t kOutputsPerTile = 64;  // a multiple of the kernels' weight rows
// Below so many multiply-adds a tile costs less than handing it to another thread.
constexpr int64_t kLeastWork = 1 << 16;
constexpr int64_t kLeastPrepared = 1 << 14;  // numbers of x
// Below, arithmetic takes less long than reading the weights, which is fastest in one stretch per
// thread; with packed rows, and without.
constexpr int64_t kManyPackedRows = 24;
constexpr int64_t kManyRows = 4;

// Of packed rows each thread keeps its own through all ops of a pass when it has so many: they then
// stay in its caches, and turning weights for each thread costs little.
constexpr int64_t kRowsThatStay = 96;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void check_product(View out, ConstView x, const Matrix& w, ConstView add) {
  BARKRT_CHECK(x.cols == w.cols && out.cols == w.rows && out.rows == x.rows);
  BARKRT_CHECK(w.type == DType::F32 || w.type == DType::F16 || w.type == DType::BF16 ||
               (w.type == DType::I8 && w.scale != nullptr) ||
               (w.type == DType::I8Tiles && w.scale != nullptr && w.cols % kTileCols == 0) ||
               (w.type == DType::I4 && fits_tiles(w.rows, w.cols)));
  BARKRT_CHECK(add.data == nullptr || (add.rows == out.rows && add.cols == out.cols));
}

// All rows and outputs.
LinearTile whole_tile(View out, ConstView x, const Matrix& w, const float* bias,
                      int64_t bias_period, ConstView add) {
  LinearTile tile = {};
  tile.out = out.data, tile.out_stride = out.stride;
  tile.x = x.data, tile.x_stride = x.stride;
  tile.w = w.data, tile.type = static_cast<int32_t>(w.type), tile.k = w.cols;
  tile.scale = w.scale;
  tile.bias = bias, tile.bias_period = bias_period;
  tile.add = add.data, tile.add_stride = add.stride;
  tile.t1 = x.rows, tile.n1 = w.rows;
  return tile;
}

bool few_rows(int64_t rows, bool packed) { return rows < (packed ? kManyPackedRows : kManyRows); }

bool rows_stay(int64_t rows, int64_t threads) { return rows >= threads * kRowsThatStay; }

// A thread's stretch of weights is a multiple of so many rows.
int64_t stretch_rows(const Matrix& w, int64_t rows, bool packed) {
  const int64_t multiple = packed ? kPanelOutputs : has_tiles(w.type) ? kTileRows : 8;
  return round_up(kLeastWork / std::max<int64_t>(rows * w.cols, 1) + 1, multiple);
}

// Rows of x as the product reads them: normalised, packed, or both.
struct Preparation {
  Preparation(const Kernels& of, ConstView rows, const Matrix& w, const Fused& fused)
      : kernels(of),
        x(rows),
        type(static_cast<int32_t>(w.type)),
        gamma(fused.gamma),
        beta(fused.beta),
        packed_bytes(of.packed_row_bytes(type, w.cols)),
        unit(packed_bytes > 0 && of.wants_groups && of.wants_groups(type, rows.rows) ? kGroupRows
                                                                                     : 1),
        row_bytes(packed_bytes > 0 ? packed_bytes
                  : gamma          ? w.cols * int64_t{sizeof(float)}
                                   : 0) {}

  bool needed() const { return row_bytes > 0; }
  bool packed() const { return packed_bytes > 0; }
  bool grouped() const { return unit > 1; }
  // Working memory: all rows as prepared, and one row's norm on its way to being packed.
  int64_t norm_bytes() const { return gamma && packed() ? x.cols * int64_t{sizeof(float)} : 0; }
  int64_t bytes() const { return round_up(round_up(x.rows, unit) * row_bytes, 64); }
  int64_t units() const { return round_up(x.rows, unit) / unit; }

  // Units begin .. end-1 into `to`, where row 0 is to lie. norm: norm_bytes().
  void run(void* to, int64_t begin, int64_t end, void* norm) const {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t first = u * unit, there = std::min(first + unit, x.rows);
      run_rows(to, first, there, norm);
      if (!grouped()) continue;
      std::byte* const group = static_cast<std::byte*>(to) + first * row_bytes;
      const int64_t missing = first + unit - there;
      std::memset(group + (unit - missing) * row_bytes, 0,
                  static_cast<size_t>(missing * row_bytes));
      kernels.turn_group(group, row_bytes, type);
    }
  }

  void run_rows(void* to, int64_t begin, int64_t end, void* norm) const {
    for (int64_t r = begin; r < end; ++r) {
      void* row = static_cast<std::byte*>(to) + r * row_bytes;
      const float* source = x.row(r);
      if (gamma) {
        float* normed = static_cast<float*>(packed() ? norm : row);
        kernels.layernorm(normed, source, gamma, beta, x.cols);
        source = normed;
      }
      if (packed()) kernels.pack_row(row, source, x.cols, type);
    }
  }

  void use(LinearTile& tile, const void* rows) const {
    if (packed())
      tile.packed = rows, tile.grouped = grouped();
    else
      tile.x = static_cast<const float*>(rows), tile.x_stride = x.cols;
  }

  const Kernels& kernels;
  ConstView x;
  int32_t type;
  const float* gamma;
  const float* beta;
  int64_t packed_bytes;
  int64_t unit;  // rows that are prepared together
  int64_t row_bytes;
};

}  // namespace

void CpuBackend::linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add,
                        const Fused& fused) {
  check_product(out, x, w, add);
  BARKRT_CHECK(!fused.gelu || add.data == nullptr);
  const Preparation prepare(kernels_, x, w, fused);
  LinearTile whole = whole_tile(out, x, w, bias, w.rows, add);
  whole.gelu = fused.gelu;
  const bool few = few_rows(x.rows, prepare.packed());
  // Few numbers are prepared by each thread for itself.
  const bool by_each = few && prepare.needed() && x.rows * x.cols <= kLeastPrepared;
  const bool by_panels = prepare.packed() && !prepare.grouped();
  const int64_t number_bytes = w.type == DType::I4 ? 1 : dtype_bytes(w.type);  // in a panel
  const int64_t panel = by_panels ? panel_bytes(w.cols * number_bytes) : 0;
  const int64_t each_bytes = by_each ? prepare.bytes() : 0;
  const int64_t own_bytes = round_up(each_bytes + panel + prepare.norm_bytes(), 64);

  // Of few rows all threads' at once: turns at the pool's lock would cost them more than some
  // products take. Larger areas stay near the core that used them when each takes its own.
  Op op(*this);
  std::byte* const all = op->area(0, few ? pool_.n_threads() * own_bytes : 0);
  const bool by_rows = by_panels && rows_stay(x.rows, pool_.n_threads());
  if (prepare.needed() && !by_each) {
    std::byte* const shared = op->area(1, prepare.bytes());
    const auto prepare_rows = [=](int64_t begin, int64_t end) {
      const ScratchPool::Lease norm = scratch_.take(prepare.norm_bytes());
      prepare.run(shared, begin, end, norm.data());
    };
    const int64_t least = kLeastPrepared / std::max<int64_t>(w.cols * prepare.unit, 1) + 1;
    if (by_rows)
      op->chain.for_stretches(x.rows, kRowMultiple, prepare_rows);
    else
      op->chain.parallel_for(prepare.units(), least, prepare_rows);
    prepare.use(whole, shared);
  }
  const Ahead ahead = few && fused.next ? stretches_of(*fused.next, x.rows) : Ahead{};
  const int64_t multiple = stretch_rows(w, x.rows, prepare.packed());
  const int64_t stretch = pool_.stretch(w.rows, multiple);
  const auto outputs = [=](int64_t begin, int64_t end, Taker taker) {
    const ScratchPool::Lease own = scratch_.take(few ? 0 : own_bytes);
    std::byte* const area =
        few ? all + taker.thread * own_bytes : static_cast<std::byte*>(own.data());
    LinearTile tile = whole;
    if (by_each) {
      if (taker.begins) prepare.run(area, 0, prepare.units(), area + each_bytes + panel);
      prepare.use(tile, area);
    }
    tile.panel = area + each_bytes;
    tile.n0 = begin, tile.n1 = end;
    // Behind the front of a stretch comes the rest of it.
    const bool ends = end == whole.n1 || end % stretch == 0;
    tile.next = ends ? ahead.of(begin / stretch) : nullptr;
    kernels_.linear(tile);
  };
  if (few)
    op->chain.for_stretches(w.rows, multiple, outputs, ahead);
  else if (by_rows)
    op->chain.for_stretches(x.rows, kRowMultiple, [=](int64_t begin, int64_t end) {
      const ScratchPool::Lease own = scratch_.take(own_bytes);
      LinearTile tile = whole;
      tile.panel = own.data();
      tile.t0 = begin, tile.t1 = end;
      kernels_.linear(tile);
    });
  else if (by_panels)  // each with all rows: weights are turned once
    op->chain.parallel_for(w.rows, kPanelOutputs, outputs);
  else
    tiles(op, whole);
  op.finish();
}

Ahead CpuBackend::stretches_of(const Matrix& w, int64_t rows) const {
  const bool packed = kernels_.packed_row_bytes(static_cast<int32_t>(w.type), w.cols) > 0;
  const int64_t stretch = pool_.stretch(w.rows, stretch_rows(w, rows, packed));
  return {w.data, matrix_bytes(w.type, w.rows, w.cols), matrix_bytes(w.type, stretch, w.cols)};
}

// Rows stay near while tiles of outputs go by.
void CpuBackend::tiles(Op& op, const LinearTile& whole) {
  const int64_t rows = whole.grouped ? kGroupedRowsPerTile : kRowsPerTile;
  const int64_t row_tiles = (whole.t1 + rows - 1) / rows;
  const int64_t tile_work = std::min(whole.t1, rows) * whole.k;
  const int64_t outputs = std::max(
      kOutputsPerTile, round_up(kLeastWork / std::max<int64_t>(tile_work, 1) + 1, kTileRows));
  const int64_t output_tiles = (whole.n1 + outputs - 1) / outputs;
  op->chain.parallel_for(row_tiles * output_tiles, 1, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      LinearTile tile = whole;
      tile.t0 = i / output_tiles * rows;
      tile.t1 = std::min(tile.t0 + rows, whole.t1);
      tile.n0 = i % output_tiles * outputs;
      tile.n1 = std::min(tile.n0 + outputs, whole.n1);
      kernels_.linear(tile);
    }
  });
}

void CpuBackend::product(Op& op, View out, ConstView x, const Matrix& w, const float* bias,
                         int64_t bias_period, ConstView add) {
  check_product(out, x, w, add);
  const LinearTile whole = whole_tile(out, x, w, bias, bias_period, add);
  if (!few_rows(x.rows, false)) return tiles(op, whole);
  op->chain.for_stretches(w.rows, stretch_rows(w, x.rows, false), [=](int64_t begin, int64_t end) {
    LinearTile tile = whole;
    tile.n0 = begin, tile.n1 = end;
    kernels_.linear(tile);
  });
}

}  // namespace barkrt
