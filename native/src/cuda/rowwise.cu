// rowwise.cu: embeddings, layer norm, activations and sums: what reads each number once and
// is bound by memory, or by the launch.
#include <algorithm>

#include "error.h"
#include "common.cuh"
#include "norm.cuh"
#include "ops.h"

namespace barkrt::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostGridRows = 65535;  // gridDim.y

template <typename T, int kWidth>
struct alignas(kWidth * sizeof(T)) Numbers {
  T at[kWidth];
};

bool aligned(const void* p, int64_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }
// Whether rows can be read and written as vectors of `width` floats.
bool aligned_rows(ConstView v, int64_t width) {
  return v.cols % width == 0 && (v.rows <= 1 || v.stride % width == 0) &&
         aligned(v.data, width * 4);
}

// --- embed: out[t] = sum_e entries[e].table[entries[e].ids[t]] ---

struct Entry {
  const void* data;
  const float* scale;  // of 8-bit rows
  const int32_t* ids;
  DType type;
};
constexpr int kEntries = 8;  // of one launch
struct Entries {
  Entry at[kEntries];
  int count;
};

template <typename T, int kWidth>
__device__ void add_entry(float (&sum)[kWidth], const T* numbers, float scale, bool first) {
  const auto loaded = *reinterpret_cast<const Numbers<T, kWidth>*>(numbers);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const float value = to_float(loaded.at[i]) * scale;
    sum[i] = first ? value : sum[i] + value;
  }
}

// A block per row, kWidth columns per thread. continued: out holds the sum of earlier entries.
template <int kWidth>
__global__ void embed_rows(float* out, int64_t stride, int64_t cols, Entries entries,
                           bool continued) {
  using Floats = Numbers<float, kWidth>;
  const int64_t t = blockIdx.x;
  for (int64_t c = threadIdx.x * kWidth; c < cols; c += kThreads * kWidth) {
    Floats* const to = reinterpret_cast<Floats*>(out + t * stride + c);
    Floats sum = {};
    if (continued) sum = *to;
    bool first = !continued;
    for (int e = 0; e < entries.count; ++e) {
      const Entry& entry = entries.at[e];
      const int64_t id = entry.ids[t];
      if (id < 0) continue;
      const int64_t place = id * cols + c;
      switch (entry.type) {
        case DType::F32:
          add_entry(sum.at, static_cast<const float*>(entry.data) + place, 1.0f, first);
          break;
        case DType::F16:
          add_entry(sum.at, static_cast<const __half*>(entry.data) + place, 1.0f, first);
          break;
        case DType::BF16:
          add_entry(sum.at, static_cast<const __nv_bfloat16*>(entry.data) + place, 1.0f, first);
          break;
        default:
          add_entry(sum.at, static_cast<const int8_t*>(entry.data) + place, entry.scale[id], first);
      }
      first = false;
    }
    *to = sum;
  }
}

// --- layer norm: a warp per row, whatever the number of rows ---

__global__ void layernorm_rows(float* out, int64_t out_stride, const float* x, int64_t x_stride,
                               int64_t rows, int64_t cols, const float* gamma, const float* beta) {
  const int64_t t = blockIdx.x * int64_t{kThreads / kWarp} + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (t >= rows) return;  // a whole warp, and no barrier of the block follows
  const float* const from = x + t * x_stride;
  float* const to = out + t * out_stride;
  const RowNorm norm = row_norm(from, cols, lane);
#pragma unroll 4
  for (int64_t c = lane; c < cols; c += kWarp)
    to[c] = norm.apply(from[c], gamma[c], beta ? beta[c] : 0.0f);
}

// --- out = f(x, out), number by number ---

struct Gelu {
  static constexpr bool kReadsOut = false;
  __device__ float operator()(float x, float) const { return cuda::gelu(x); }
};
struct Elu {
  static constexpr bool kReadsOut = false;
  __device__ float operator()(float x, float) const { return x > 0.0f ? x : expm1f(x); }
};
struct Add {
  static constexpr bool kReadsOut = true;
  __device__ float operator()(float x, float out) const { return out + x; }
};

// kWidth columns per thread; blocks are (columns, rows), the grid's rows repeat.
template <typename F, int kWidth>
__global__ void map_rows(float* out, int64_t out_stride, const float* x, int64_t x_stride,
                         int64_t rows, int64_t cols) {
  using Floats = Numbers<float, kWidth>;
  const int64_t c = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) * kWidth;
  if (c >= cols) return;
  const int64_t step = int64_t{gridDim.y} * blockDim.y;
  for (int64_t t = blockIdx.y * int64_t{blockDim.y} + threadIdx.y; t < rows; t += step) {
    const Floats from = *reinterpret_cast<const Floats*>(x + t * x_stride + c);
    Floats* const to = reinterpret_cast<Floats*>(out + t * out_stride + c);
    Floats result = {};
    if (F::kReadsOut) result = *to;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) result.at[i] = F()(from.at[i], result.at[i]);
    *to = result;
  }
}

template <typename F>
void map(Stream& stream, View out, ConstView x) {
  if (out.stride == out.cols && x.stride == x.cols) {  // one long row
    out = view(out.data, 1, out.rows * out.cols);
    x = view(x.data, 1, x.rows * x.cols);
  }
  const bool wide = aligned_rows(out, 4) && aligned_rows(x, 4);
  const int64_t columns = out.cols / (wide ? 4 : 1);
  if (columns == 0 || out.rows == 0) return;
  int64_t width = kWarp;
  while (width < columns && width < kThreads) width *= 2;
  const dim3 block(static_cast<unsigned>(width), static_cast<unsigned>(kThreads / width));
  const int64_t row_blocks = divide_up<int64_t>(out.rows, block.y);
  const dim3 grid(static_cast<unsigned>(divide_up(columns, width)),
                  static_cast<unsigned>(std::min(row_blocks, kMostGridRows)));
  launch(stream.handle(), grid, block, 0, wide ? map_rows<F, 4> : map_rows<F, 1>, out.data,
         out.stride, x.data, x.stride, out.rows, out.cols);
}

}  // namespace

void embed(Stream& stream, View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
           const Matrix* wpe, const int32_t* pos) {
  if (out.rows == 0) return;
  const bool add_position = wpe != nullptr && pos != nullptr;
  const int64_t n_entries = n_tables + (add_position ? 1 : 0);
  int64_t first = 0;
  do {  // once without entries, too: the rows become zero
    Entries entries = {};
    bool wide = aligned_rows(out, 4);
    for (int64_t e = first; e < n_entries && entries.count < kEntries; ++e) {
      const Matrix& table = e < n_tables ? tables[e] : *wpe;
      entries.at[entries.count++] = {table.data, table.scale,
                                     e < n_tables ? ids + e * out.rows : pos, table.type};
      wide &= aligned(table.data, 4 * dtype_bytes(table.type));
    }
    launch(stream.handle(), static_cast<unsigned>(out.rows), kThreads, 0,
           wide ? embed_rows<4> : embed_rows<1>, out.data, out.stride, out.cols, entries,
           first > 0);
    first += kEntries;
  } while (first < n_entries);
}

void layernorm(Stream& stream, View out, ConstView x, const float* gamma, const float* beta) {
  if (x.rows == 0) return;
  const int64_t blocks = divide_up<int64_t>(x.rows, kThreads / kWarp);
  launch(stream.handle(), static_cast<unsigned>(blocks), kThreads, 0, layernorm_rows, out.data,
         out.stride, x.data, x.stride, x.rows, x.cols, gamma, beta);
}

void gelu(Stream& stream, View out, ConstView x) { map<Gelu>(stream, out, x); }
void elu(Stream& stream, View out, ConstView x) { map<Elu>(stream, out, x); }
void add(Stream& stream, View out, ConstView x) { map<Add>(stream, out, x); }

}  // namespace barkrt::cuda
