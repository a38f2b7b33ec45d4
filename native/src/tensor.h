// tensor.h: shapes without ownership: activation views (rows of f32) and weight matrices (typed,
// read-only).
#pragma once

#include <cstddef>
#include <cstdint>

namespace barkrt {

// Storage types of weights and of the key-value cache. Activations are always F32.
enum class DType : int32_t { F32, F16, BF16, I8, I32, I4, I8Tiles };

// Bytes of one number. Not of I4, some of whose bytes are scales.
constexpr int64_t dtype_bytes(DType t) {
  return t == DType::F32 || t == DType::I32 ? 4 : t == DType::I8 || t == DType::I8Tiles ? 1 : 2;
}
const char* dtype_name(DType t);

// Tiles of I4 and I8Tiles: see Matrix.
constexpr int64_t kTileRows = 16, kTileCols = 64;
constexpr int64_t tile_bytes(DType t) { return t == DType::I4 ? 576 : 1024; }
constexpr bool has_tiles(DType t) { return t == DType::I4 || t == DType::I8Tiles; }
constexpr bool fits_tiles(int64_t rows, int64_t cols) {
  return rows % kTileRows == 0 && cols % kTileCols == 0;
}
// Of whole tiles: the last rows of a slice may share theirs with others.
constexpr int64_t matrix_bytes(DType t, int64_t rows, int64_t cols) {
  return has_tiles(t) ? (rows + kTileRows - 1) / kTileRows * (cols / kTileCols) * tile_bytes(t)
                      : rows * cols * dtype_bytes(t);
}

// rows x cols floats in device memory; row r starts at data + r * stride. stride may be less than
// cols: overlapping rows are how a causal convolution is one matrix product (DESIGN.md, codec).
// Never written through when it is.
struct ConstView {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  const float* row(int64_t r) const { return data + r * stride; }
  ConstView slice(int64_t first, int64_t count) const {
    return {data + first * stride, count, cols, stride};
  }
};

struct View {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* row(int64_t r) const { return data + r * stride; }
  View slice(int64_t first, int64_t count) const {
    return {data + first * stride, count, cols, stride};
  }
  operator ConstView() const { return {data, rows, cols, stride}; }
};

inline View view(float* data, int64_t rows, int64_t cols) { return {data, rows, cols, cols}; }
inline ConstView view(const float* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols};
}

// A weight: (rows, cols) row-major, [out, in] for linear maps, [entry, width] for tables; borrowed,
// device memory. I8 carries one F32 scale per row: w[r][c] = scale[r] * data[r][c].
//
// I8Tiles and I4 are tiles of 16 rows by 64 columns, row-major among themselves, so that what a
// product reads of 16 outputs is one stretch. Of the numbers of I8, byte 64 v + 4 r + i of a tile
// is that of row r, column 4 v + i. A tile of I4 is 512 bytes of q, then 32 halves of scales:
// w[r][c] = (q[r][c] - 8) * scale[c / 32][r].
// Byte 64 v + 4 r + i holds q[r][4 v + i] in its low half and q[r][32 + 4 v + i] in its high one.
struct Matrix {
  const void* data = nullptr;
  DType type = DType::F32;
  int64_t rows = 0;
  int64_t cols = 0;
  const float* scale = nullptr;  // (rows), only when type is I8 or I8Tiles

  explicit operator bool() const { return data != nullptr; }
  // Rows first .. first+count-1: the legal part of an output head. Of tiles, whole ones, but that
  // the end of an I8Tiles slice may lie in one.
  Matrix slice(int64_t first, int64_t count) const {
    return {static_cast<const std::byte*>(data) + matrix_bytes(type, first, cols), type, count,
            cols, scale ? scale + first : nullptr};
  }
};

}  // namespace barkrt
