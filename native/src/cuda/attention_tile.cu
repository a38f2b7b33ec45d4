// attention_tile.cu: out[t] = softmax(q k^T / sqrt(head_dim)) v for many rows of one sequence whose
// keys and values are in a cache of 16 or 8 bits, on tensor cores, without a matrix of rows x keys.
//
// One block: 64 rows of one head; one warp: 16 of them. Tiles of keys and values, 8 KiB each, pass
// through shared memory, the next one on its way while one is used. A row keeps its largest score,
// the sum of its weights and its weighted sum of values, all f32, and rescales both sums when a
// tile has a larger score. Tiles begin at multiples of their size, so where the rows begin changes
// no bits. Products are mma's 16 x 8 x 16: the scores of two 8-key pieces are, rounded, one operand
// of the product with the values (ptx.cuh has the layouts).
#include <ptx.cuh>

#include "cuda/attention.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRows = 16 * kWarps;
constexpr int kPieces = 512;  // of 16 bytes, in a tile
constexpr int kPiece = 8;     // numbers in one

__device__ void mma(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
  mma_f16(d, a, b);
}
__device__ void mma(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
  mma_bf16(d, a, b);
}

// The largest half instead of infinity; bfloat16 has f32's range.
__device__ float in_range(float x, __half) {
  return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}
__device__ float in_range(float x, __nv_bfloat16) { return x; }

// Where piece c of a row lies in a tile: eight rows' pieces c in different banks.
template <int D>
__device__ int place(int row, int c) {
  return row * (D / kPiece) + (c ^ (row & 7));
}

// A tile of keys and one of values, both of keys first .. first + kKeys - 1, and the next ones on
// their way; zeros from n_keys on.
template <typename T, int D>
struct Tiles {
  using Operand = T;
  static constexpr int kKeys = kPieces * kPiece / D;
  uint4 keys[2][kPieces];
  uint4 values[2][kPieces];

  // Starts the copy of both.
  __device__ void fetch(const HeadCache<T>& k, const HeadCache<T>& v, int first, int n_keys) {
    fetch(keys[turn(first)], k, first, n_keys);
    fetch(values[turn(first)], v, first, n_keys);
    copy_async_commit();
  }
  // After it, for the whole block.
  __device__ void settle() {}
  __device__ static int turn(int first) { return first / kKeys % 2; }

 private:
  __device__ static void fetch(uint4* tile, const HeadCache<T>& from, int first, int n_keys) {
    constexpr int kRowPieces = D / kPiece;
    for (int i = static_cast<int>(threadIdx.x); i < kPieces; i += kThreads) {
      const int row = i / kRowPieces, c = i % kRowPieces;
      const bool valid = first + row < n_keys;
      const int64_t at = valid ? static_cast<int64_t>(first + row) * D + c * kPiece : 0;
      copy_async_16(tile + place<D>(row, c), from.numbers + at, valid);
    }
  }
};

// Of 8 bits: the next ones come as they lie in the cache, and are widened to f16 when their turn
// comes.
template <int D>
struct Tiles<int8_t, D> {
  using Operand = __half;
  static constexpr int kKeys = kPieces * kPiece / D;
  uint4 keys[1][kPieces];
  uint4 values[1][kPieces];

  __device__ void fetch(const HeadCache<int8_t>& k, const HeadCache<int8_t>& v, int first,
                        int n_keys) {
    next_keys_.fetch(k, first, n_keys);
    next_values_.fetch(v, first, n_keys);
    copy_async_commit();
  }
  __device__ void settle() {
    next_keys_.widen(keys[0]);
    next_values_.widen(values[0]);
    __syncthreads();
  }
  __device__ static int turn(int) { return 0; }

 private:
  struct Narrow {
    uint4 bytes[kPieces / 2];
    float scales[kKeys];

    __device__ void fetch(const HeadCache<int8_t>& from, int first, int n_keys) {
      constexpr int kBytes = sizeof(uint4), kRowPieces = D / kBytes;
      for (int i = static_cast<int>(threadIdx.x); i < kPieces / 2; i += kThreads) {
        const bool valid = first + i / kRowPieces < n_keys;
        copy_async_16(bytes + i,
                      from.numbers + (valid ? static_cast<int64_t>(first) * D + i * kBytes : 0),
                      valid);
      }
      for (int i = static_cast<int>(threadIdx.x); i < kKeys; i += kThreads) {
        const bool valid = first + i < n_keys;
        copy_async_4(scales + i, from.scales + (valid ? first + i : 0), valid);
      }
    }
    __device__ void widen(uint4* tile) const {
      constexpr int kRowPieces = D / kPiece;
      constexpr float kLargest = 65504.0f / 127;  // scale of numbers that f16 has
      for (int i = static_cast<int>(threadIdx.x); i < kPieces; i += kThreads) {
        const int row = i / kRowPieces;
        const float scale = scales[row] > kLargest ? kLargest : scales[row];
        const uint2 words = reinterpret_cast<const uint2*>(bytes)[i];
        float x[kPiece];
        widen_bytes(words.x, x), widen_bytes(words.y, x + 4);
        for (float& number : x) number *= scale;
        tile[place<D>(row, i % kRowPieces)] = {pack<__half>(x[0], x[1]), pack<__half>(x[2], x[3]),
                                               pack<__half>(x[4], x[5]), pack<__half>(x[6], x[7])};
      }
    }
  };
  Narrow next_keys_, next_values_;
};

// A's fragments of 16 rows of queries, from row `first` on; zeros from n_rows on.
template <typename T, int D>
__device__ void load_queries(uint32_t q[D / 16][4], const float* queries, int64_t stride, int first,
                             int n_rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int k = 0; k < D / 16; ++k)
    for (int i = 0; i < 4; ++i) {
      const int row = first + lane / 4 + i % 2 * 8, c = k * 16 + i / 2 * 8 + lane % 4 * 2;
      float2 two = {0, 0};
      if (row < n_rows) two = *reinterpret_cast<const float2*>(queries + row * stride + c);
      q[k][i] = pack<T>(in_range(two.x, T{}), in_range(two.y, T{}));
    }
}

// Block (tile of rows, head); later rows, which have more keys, first.
template <typename T, int D>
__global__ void __launch_bounds__(kThreads) tile_rows(TileArgs a) {
  using Shared = Tiles<T, D>;
  using Operand = typename Shared::Operand;
  constexpr int kKeys = Shared::kKeys;
  BARKRT_SHARED(Shared, tiles);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int block_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int warp_row = block_row + warp * 16;
  const int n_keys = a.keys_of(min(block_row + kRows, a.n_rows) - 1);

  const KvLayer layer = *a.kv;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * D;
  const auto keys = head_cache<T>(layer.k, layer.n_ctx, blockIdx.y, D);
  const auto values = head_cache<T>(layer.v, layer.n_ctx, blockIdx.y, D);
  tiles.fetch(keys, values, 0, n_keys);
  uint32_t q[D / 16][4];
  load_queries<Operand, D>(q, a.qkv + column, a.qkv_stride, warp_row, a.n_rows);

  // [0] is of row warp_row + lane / 4, [1] of the row 8 after it.
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  float sum[D / 8][4] = {};
  for (int first = 0; first < n_keys; first += kKeys) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before it any more
    tiles.settle();
    if (first + kKeys < n_keys) tiles.fetch(keys, values, first + kKeys, n_keys);
    const int turn = Shared::turn(first);

    float score[kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        const int row = n * 16 + lane / 16 * 8 + lane % 8;
        ldmatrix_x4(b, tiles.keys[turn] + place<D>(row, k * 2 + lane / 8 % 2));
        mma(score[2 * n], q[k], b, Operand{});
        mma(score[2 * n + 1], q[k], b + 2, Operand{});
      }

    float high[2] = {top[0], top[1]};
    const bool masks = first + kKeys > a.keys_of(block_row);
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
      for (int i = 0; i < 4; ++i) {
        const int key = first + n * 8 + lane % 4 * 2 + i % 2;
        const bool seen = !masks || key < a.keys_of(warp_row + lane / 4 + i / 2 * 8);
        if (!seen) score[n][i] = -INFINITY;
        high[i / 2] = fmaxf(high[i / 2], score[n][i]);
      }
    for (int r = 0; r < 2; ++r) {
      high[r] = fmaxf(high[r], __shfl_xor_sync(kAllLanes, high[r], 1));
      high[r] = fmaxf(high[r], __shfl_xor_sync(kAllLanes, high[r], 2));
      const float kept = exp2f((top[r] - high[r]) * a.scale);
      top[r] = high[r], total[r] *= kept;
      for (int n = 0; n < D / 8; ++n) sum[n][2 * r] *= kept, sum[n][2 * r + 1] *= kept;
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
      for (int i = 0; i < 4; ++i) {
        score[n][i] = exp2f((score[n][i] - top[i / 2]) * a.scale);
        total[i / 2] += score[n][i];
      }

#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t weights[4];
      for (int i = 0; i < 4; ++i) {
        const float* const pair = score[2 * k + i / 2] + i % 2 * 2;
        weights[i] = pack<Operand>(pair[0], pair[1]);
      }
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        const int row = k * 16 + lane / 8 % 2 * 8 + lane % 8;
        ldmatrix_x4_trans(b, tiles.values[turn] + place<D>(row, n * 2 + lane / 16));
        mma(sum[2 * n], weights, b, Operand{});
        mma(sum[2 * n + 1], weights, b + 2, Operand{});
      }
    }
  }

  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(kAllLanes, total[r], 1);
    total[r] += __shfl_xor_sync(kAllLanes, total[r], 2);
    const int row = warp_row + lane / 4 + r * 8;
    if (row >= a.n_rows) continue;
    float* const out = a.out + row * a.out_stride + column + lane % 4 * 2;
    for (int n = 0; n < D / 8; ++n)
      *reinterpret_cast<float2*>(out + n * 8) = {sum[n][2 * r] / total[r],
                                                 sum[n][2 * r + 1] / total[r]};
  }
}

template <int D>
auto kernel_for(DType type) {
  return type == DType::F16    ? tile_rows<__half, D>
         : type == DType::BF16 ? tile_rows<__nv_bfloat16, D>
                               : tile_rows<int8_t, D>;
}

}  // namespace

void attention_tile(Stream& stream, View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
                    bool causal) {
  const TileArgs args = tile_args(out, qkv, rows, n_head, causal);
  const auto kernel =
      out.cols / n_head == 64 ? kernel_for<64>(rows.type) : kernel_for<128>(rows.type);
  const dim3 grid(static_cast<unsigned>(divide_up<int64_t>(rows.count, kRows)),
                  static_cast<unsigned>(n_head));
  launch(stream.handle(), grid, dim3(kThreads), 0, kernel, args);
}

}  // namespace barkrt::cuda
