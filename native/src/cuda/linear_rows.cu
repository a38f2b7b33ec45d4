// linear_rows.cu: out[t][n] = sum_k x[t][k] w[n][k] for at most kFewRows rows (+ norm before; bias,
// add, GELU after): the products of decoding, bound by reading the weights.
//
// A block makes kOutputs outputs of up to eight rows. Each of its kSlices warps sums a slice of K:
// warp s the chunks s, s + kSlices, … of 256 numbers, a lane eight neighbours of each chunk, loaded
// as 16 bytes of 16-bit weights. A weight meets all of the block's rows in registers; x comes
// through the first-level cache, which a multiprocessor's blocks share. The order of a sum is
// therefore lane, butterfly over lanes, slice: it depends on K alone. More than eight rows are two
// blocks side by side, of which the second finds the weights in the second-level cache: 16 rows in
// one block would leave 8 warps with all their registers taken.
//
// Occupancy: a multiprocessor of an H100 needs some 18 KB under way to use its share of the memory
// bandwidth. A warp has kOutputs x 512 bytes of 16-bit weights under way. One row takes at most 80
// registers: 24 warps, 24 KB. 8 rows take 168: 12 warps, 24 KB, and 32 sums per lane to hide
// arithmetic's latency.
#include "cuda/common.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/norm.cuh"
#include "cuda/ops.h"
#include "cuda/rounding.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kSlices = 4;
constexpr int kEight = 8;
constexpr int kChunk = kWarp * kEight;
// Up to so many rows every block normalises for itself; above, a launch of its own does it once.
constexpr int kNormedRows = 4;
constexpr int kMostRows = 8;  // of a block

struct Product {
  const float* x;  // (rows, k)
  int64_t x_stride;
  int rows;
  const void* w;  // (n, k)
  int64_t n;
  int k;
  const float* gamma;  // (k) or NULL
  const float* beta;   // (k) or NULL
  Epilogue epilogue;
};

// Eight neighbouring weights of a row as they lie in memory. `k` is a multiple of 8 below `end`.
template <typename W, bool aligned>
struct Eight {  // of rows that begin anywhere and end before a multiple of 8
  float values[kEight];
  __device__ void load(const W* row, int k, int end) {
#pragma unroll
    for (int i = 0; i < kEight; ++i) values[i] = k + i < end ? to_float(row[k + i]) : 0.0f;
  }
  __device__ void widen(float (&to)[kEight]) const {
#pragma unroll
    for (int i = 0; i < kEight; ++i) to[i] = values[i];
  }
};

template <>
struct Eight<float, true> {
  float4 low, high;
  __device__ void load(const float* row, int k, int) {
    const auto* p = reinterpret_cast<const float4*>(row + k);
    low = __ldg(p), high = __ldg(p + 1);
  }
  __device__ void widen(float (&to)[kEight]) const {
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
  }
};

__device__ inline float2 widen_pair(unsigned word, __half) {
  __half2 pair;
  memcpy(&pair, &word, sizeof pair);
  return __half22float2(pair);
}
__device__ inline float2 widen_pair(unsigned word, __nv_bfloat16) {
  __nv_bfloat162 pair;
  memcpy(&pair, &word, sizeof pair);
  return __bfloat1622float2(pair);
}

template <typename W>
struct Eight<W, true> {  // 16-bit
  uint4 words;
  __device__ void load(const W* row, int k, int) {
    words = __ldg(reinterpret_cast<const uint4*>(row + k));
  }
  __device__ void widen(float (&to)[kEight]) const {
    const unsigned all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = widen_pair(all[i], W{});
      to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
    }
  }
};

template <>
struct Eight<int8_t, true> {
  uint2 words;
  __device__ void load(const int8_t* row, int k, int) {
    words = __ldg(reinterpret_cast<const uint2*>(row + k));
  }
  __device__ void widen(float (&to)[kEight]) const {
    widen_bytes(words.x, to);
    widen_bytes(words.y, to + 4);
  }
};

template <bool aligned>
__device__ void load_floats(float (&to)[kEight], const float* from, int k, int end) {
  Eight<float, aligned> eight;
  eight.load(from, k, end);
  eight.widen(to);
}

// v[i] summed over the lanes for kCount, a power of two, numbers at once: at each step a lane gives
// half of them away, so that it ends with v[0 .. kCount / 32) (at least one) of those that begin at
// the returned index. The same bits as kCount butterflies.
template <int kCount, int kOffset = kWarp / 2>
__device__ int sum_over_lanes(float* v, int lane) {
  if constexpr (kOffset == 0) {
    return 0;
  } else if constexpr (kCount == 1) {
    v[0] += __shfl_xor_sync(kAllLanes, v[0], kOffset);
    return sum_over_lanes<1, kOffset / 2>(v, lane);
  } else {
    constexpr int kHalf = kCount / 2;
    const bool upper = (lane & kOffset) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float given = upper ? v[i] : v[i + kHalf];
      const float kept = upper ? v[i + kHalf] : v[i];
      v[i] = kept + __shfl_xor_sync(kAllLanes, given, kOffset);
    }
    return (upper ? kHalf : 0) + sum_over_lanes<kHalf, kOffset / 2>(v, lane);
  }
}

// What a block multiplies. Rows that are not there are the last one again.
template <typename W>
struct Part {
  const W* w;  // of the first output
  int last_output;
  const float* x;  // of the first row
  int rows;
  int k;
  __device__ const W* output(int r) const { return w + int64_t{min(r, last_output)} * k; }
};

// A warp's slice of the sums: v[t * kOutputs + r] of the part's row t and output r.
template <typename W, int kRows, int kOutputs, bool aligned>
__device__ void sum_slice(float (&v)[kRows * kOutputs], const Product& p, const Part<W>& part,
                          int k, Eight<W, aligned> (&next)[kOutputs], const RowNorm* norms) {
  for (; k < part.k; k += kSlices * kChunk) {
    float weights[kOutputs][kEight];
#pragma unroll
    for (int r = 0; r < kOutputs; ++r) next[r].widen(weights[r]);
    if (const int ahead = k + kSlices * kChunk; ahead < part.k) {
#pragma unroll
      for (int r = 0; r < kOutputs; ++r) next[r].load(part.output(r), ahead, part.k);
    }
    float gamma[kEight], beta[kEight];
    if (kRows <= kNormedRows && p.gamma) {
      load_floats<aligned>(gamma, p.gamma, k, p.k);
      if (p.beta) load_floats<aligned>(beta, p.beta, k, p.k);
    }
    const float* row = part.x;
#pragma unroll
    for (int t = 0; t < kRows; ++t) {
      float x[kEight];
      load_floats<aligned>(x, row, k, p.k);
      if (t + 1 < part.rows) row += p.x_stride;
      if (kRows <= kNormedRows && p.gamma) {
#pragma unroll
        for (int i = 0; i < kEight; ++i)
          x[i] = norms[min(t, part.rows - 1)].apply(x[i], gamma[i], p.beta ? beta[i] : 0.0f);
      }
#pragma unroll
      for (int r = 0; r < kOutputs; ++r) {
#pragma unroll
        for (int i = 0; i < kEight; ++i)
          v[t * kOutputs + r] = fmaf(x[i], weights[r][i], v[t * kOutputs + r]);
      }
    }
  }
}

// Blocks that a multiprocessor must have registers for.
template <int kRows>
constexpr int least_blocks() {
  return kRows == 1 ? 6 : kRows == 2 ? 4 : 3;
}

// One block: kOutputs outputs of kRows rows. One warp: a slice of K of each.
template <typename W, int kRows, int kOutputs, bool aligned>
__global__ void __launch_bounds__(kSlices* kWarp, least_blocks<kRows>()) rows_product(Product p) {
  constexpr int kSums = kRows * kOutputs;
  using Norms = RowNorm[kNormedRows];
  using Sums = float[kSlices][kSums];
  BARKRT_SHARED(Norms, norms);
  BARKRT_SHARED(Sums, sums);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int slice = static_cast<int>(threadIdx.x) / kWarp;
  constexpr bool kOneGroup = aligned && kRows < kMostRows;
  const int groups = kOneGroup ? 1 : (p.rows + kRows - 1) / kRows;
  const int block = static_cast<int>(blockIdx.x), t0 = block % groups * kRows;
  const int64_t n0 = int64_t{block / groups} * kOutputs;
  const Part<W> part = {static_cast<const W*>(p.w) + n0 * p.k,
                        static_cast<int>(min(p.n - n0, int64_t{kOutputs})) - 1,
                        p.x + t0 * p.x_stride, min(p.rows - t0, kRows), p.k};
  const int k = slice * kChunk + lane * kEight;

  // The first weights are under way while the rows' norms are computed.
  Eight<W, aligned> next[kOutputs];
  if (k < p.k) {
#pragma unroll
    for (int r = 0; r < kOutputs; ++r) next[r].load(part.output(r), k, p.k);
  }
  if (kRows <= kNormedRows && p.gamma) {
    for (int t = slice; t < part.rows; t += kSlices) {
      const RowNorm norm = row_norm(part.x + t * p.x_stride, p.k, lane);
      if (lane == 0) norms[t] = norm;
    }
    __syncthreads();
  }

  float v[kSums] = {};
  sum_slice<W, kRows, kOutputs, aligned>(v, p, part, k, next, norms);
  const int first = sum_over_lanes<kSums>(v, lane);
  constexpr int kSameLanes = kSums < kWarp ? kWarp / kSums : 1;  // neighbours with the same sums
  if (lane % kSameLanes == 0) {
#pragma unroll
    for (int i = 0; i < (kSums + kWarp - 1) / kWarp; ++i) sums[slice][first + i] = v[i];
  }
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x);
  if (i >= kSums || i / kOutputs >= part.rows || i % kOutputs > part.last_output) return;
  float sum = sums[0][i];
  for (int s = 1; s < kSlices; ++s) sum += sums[s][i];
  p.epilogue.store(sum, t0 + i / kOutputs, n0 + i % kOutputs);
}

template <typename W, int kRows, bool aligned>
void launch_rows(cudaStream_t stream, const Product& p) {
  // Few bytes of weights under way per lane need more of them.
  constexpr int kOutputs = kRows <= 2 && sizeof(W) > 1 ? 2 : 4;
  const int64_t blocks = divide_up<int64_t>(p.n, kOutputs) * divide_up(p.rows, kRows);
  launch(stream, dim3(static_cast<unsigned>(blocks)), dim3(kSlices * kWarp), 0,
         rows_product<W, kRows, kOutputs, aligned>, p);
}

template <typename W>
void launch_for(cudaStream_t stream, const Product& p, bool aligned) {
  if (!aligned) return launch_rows<W, 4, false>(stream, p);
  if (p.rows == 1) return launch_rows<W, 1, true>(stream, p);
  if (p.rows == 2) return launch_rows<W, 2, true>(stream, p);
  if (p.rows <= 4) return launch_rows<W, 4, true>(stream, p);
  launch_rows<W, kMostRows, true>(stream, p);
}

}  // namespace

void linear_rows(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                 int64_t bias_period, ConstView add, const Fused& fused) {
  BARKRT_CHECK(x.rows <= kFewRows && w.cols <= INT32_MAX - kSlices * kChunk);
  if (x.rows == 0 || w.rows == 0) return;
  ScratchScope scratch(stream);
  bool normed = fused.gamma != nullptr;
  if (normed && x.rows > kNormedRows) {
    const View rows = view(scratch.take<float>(x.rows * x.cols), x.rows, x.cols);
    layernorm(stream, rows, x, fused.gamma, fused.beta);
    x = rows, normed = false;
  }
  const Product p = {x.data,
                     x.stride,
                     static_cast<int>(x.rows),
                     w.data,
                     w.rows,
                     static_cast<int>(w.cols),
                     normed ? fused.gamma : nullptr,
                     normed ? fused.beta : nullptr,
                     Epilogue(out, w, bias, bias_period, add, fused.gelu)};
  // Eight neighbours of x, the norm and every row of w lie 16-byte aligned (8-bit weights: 8).
  const bool aligned = w.cols % kEight == 0 && aligned16(w.data) && aligned16(x.data) &&
                       x.stride % 4 == 0 && aligned16(p.gamma) && aligned16(p.beta);
  with_type(w.type, [&](auto type) { launch_for<decltype(type)>(stream.handle(), p, aligned); });
}

}  // namespace barkrt::cuda
