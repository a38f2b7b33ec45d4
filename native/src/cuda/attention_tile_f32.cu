// attention_tile_f32.cu: as attention_tile.cu, in f32 arithmetic: for f32 caches, and for bf16 ones
// where tensor cores do not have bf16.
//
// One block: 32 rows of one head, 16 x 16 threads. Thread (y, x) has rows 2y, 2y+1 and of a tile
// the keys x, x+16, ...; of the result it has the channels 4x .. 4x+3 (and those 64 after them).
#include "cuda/attention.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;
constexpr int kRows = 2 * kSide;
constexpr int kTileFloats = 4096;

template <int D>
struct Shared {
  float4 queries[kRows * D / 4];
  float4 tile[kTileFloats / 4];           // (keys, D), keys or values
  float weights[kRows][kTileFloats / D];  // (rows, keys)
};

// Where channels 4c .. 4c+3 of a row lie in a tile: eight rows' in different banks.
template <int D>
__device__ int place(int row, int c) {
  return row * (D / 4) + (c ^ (row & 7));
}

__device__ float4 load_four(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ float4 load_four(const __nv_bfloat16* from) {
  const uint2 words = *reinterpret_cast<const uint2*>(from);
  const float2 low = unpack<__nv_bfloat16>(words.x), high = unpack<__nv_bfloat16>(words.y);
  return {low.x, low.y, high.x, high.y};
}

// Rows first .. of keys or values as floats; zeros from n_keys on.
template <typename T, int D>
__device__ void load_tile(float4* tile, const T* rows, int first, int n_keys) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileFloats / 4; i += kThreads) {
    const int row = i / (D / 4), c = i % (D / 4);
    tile[place<D>(row, c)] = first + row < n_keys
                                 ? load_four(rows + static_cast<int64_t>(first + row) * D + c * 4)
                                 : float4{};
  }
}

__device__ float dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
__device__ void add_scaled(float4& sum, float w, float4 x) {
  sum = {fmaf(w, x.x, sum.x), fmaf(w, x.y, sum.y), fmaf(w, x.z, sum.z), fmaf(w, x.w, sum.w)};
}

// Block (tile of rows, head); later rows, which have more keys, first.
template <typename T, int D>
__global__ void __launch_bounds__(kThreads) tile_rows_f32(TileArgs a) {
  constexpr int kKeys = kTileFloats / D;
  using SharedOfD = Shared<D>;
  BARKRT_SHARED(SharedOfD, s);
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  const int block_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int n_keys = a.keys_of(min(block_row + kRows, a.n_rows) - 1);

  const KvLayer layer = *a.kv;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * D;
  const T* const keys = static_cast<const T*>(layer.k) + column * layer.n_ctx;
  const T* const values = static_cast<const T*>(layer.v) + column * layer.n_ctx;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * D / 4; i += kThreads) {
    const int row = block_row + i / (D / 4);
    float4 q = {};
    if (row < a.n_rows) q = load_four(a.qkv + row * a.qkv_stride + column + i % (D / 4) * 4);
    s.queries[i] = {q.x * a.scale, q.y * a.scale, q.z * a.scale, q.w * a.scale};
  }

  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  float4 sum[2][D / 64] = {};
  for (int first = 0; first < n_keys; first += kKeys) {
    __syncthreads();  // nobody reads the values before any more
    load_tile<T, D>(s.tile, keys, first, n_keys);
    __syncthreads();
    float score[2][kKeys / kSide] = {};
    for (int c = 0; c < D / 4; ++c) {
      const float4 q[2] = {s.queries[2 * y * (D / 4) + c], s.queries[(2 * y + 1) * (D / 4) + c]};
#pragma unroll
      for (int j = 0; j < kKeys / kSide; ++j) {
        const float4 key = s.tile[place<D>(x + j * kSide, c)];
        for (int r = 0; r < 2; ++r) score[r][j] = dot(q[r], key, score[r][j]);
      }
    }
    for (int r = 0; r < 2; ++r) {
      const int seen = a.keys_of(block_row + 2 * y + r);
      float high = top[r];
      for (int j = 0; j < kKeys / kSide; ++j) {
        if (first + x + j * kSide >= seen) score[r][j] = -INFINITY;
        high = fmaxf(high, score[r][j]);
      }
      for (int offset = kSide / 2; offset > 0; offset /= 2)
        high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, offset));
      const float kept = exp2f(top[r] - high);
      top[r] = high, total[r] *= kept;
      for (float4& part : sum[r])
        part = {part.x * kept, part.y * kept, part.z * kept, part.w * kept};
      for (int j = 0; j < kKeys / kSide; ++j) {
        const float weight = exp2f(score[r][j] - high);
        total[r] += weight;
        s.weights[2 * y + r][x + j * kSide] = weight;
      }
    }
    __syncthreads();  // nobody reads the keys any more, and the weights are there
    load_tile<T, D>(s.tile, values, first, n_keys);
    __syncthreads();
    for (int j = 0; j < kKeys; ++j)
      for (int i = 0; i < D / 64; ++i) {
        const float4 value = s.tile[place<D>(j, x + i * kSide)];
        for (int r = 0; r < 2; ++r) add_scaled(sum[r][i], s.weights[2 * y + r][j], value);
      }
  }

  for (int r = 0; r < 2; ++r) {
    for (int offset = kSide / 2; offset > 0; offset /= 2)
      total[r] += __shfl_xor_sync(kAllLanes, total[r], offset);
    const int row = block_row + 2 * y + r;
    if (row >= a.n_rows) continue;
    float* const out = a.out + row * a.out_stride + column + x * 4;
    for (int i = 0; i < D / 64; ++i) {
      const float4 v = sum[r][i];
      *reinterpret_cast<float4*>(out + i * 64) = {v.x / total[r], v.y / total[r], v.z / total[r],
                                                  v.w / total[r]};
    }
  }
}

}  // namespace

void attention_tile_f32(Stream& stream, View out, ConstView qkv, const DeviceRows& rows,
                        int64_t n_head, bool causal) {
  const int64_t head_dim = out.cols / n_head;
  const TileArgs args = tile_args(out, qkv, rows, n_head, causal);
  const bool full = rows.type == DType::F32;
  const auto kernel = head_dim == 64
                          ? (full ? tile_rows_f32<float, 64> : tile_rows_f32<__nv_bfloat16, 64>)
                          : (full ? tile_rows_f32<float, 128> : tile_rows_f32<__nv_bfloat16, 128>);
  const dim3 grid(static_cast<unsigned>(divide_up<int64_t>(rows.count, kRows)),
                  static_cast<unsigned>(n_head));
  launch(stream.handle(), grid, dim3(kThreads), 0, kernel, args);
}

}  // namespace barkrt::cuda
