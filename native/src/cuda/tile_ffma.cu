// tile_ffma.cu: out[t][n] = sum_k x[t][k] w[n][k] in f32: a block makes a tile of kRows x kOutputs,
// a thread kMine x kOurs of it in registers; slices of kDepth of K go through shared memory, the
// next one is loaded while one is multiplied.
#include "cuda/tile.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kDepth = 16;
constexpr int kQuads = kDepth / 4;

template <int rows, int outputs, int mine, int ours>
struct Shape {
  static constexpr int kRows = rows, kOutputs = outputs;  // of a tile
  static constexpr int kMine = mine, kOurs = ours;        // of a thread: rows, outputs
  static constexpr int kAcross = outputs / ours;
  static constexpr int kThreads = rows / mine * kAcross;
  // Four numbers of K per load.
  static constexpr int kLoadsX = rows * kQuads / kThreads;
  static constexpr int kLoadsW = (outputs * kQuads + kThreads - 1) / kThreads;
};
using Large = Shape<128, 128, 8, 8>;
using Small = Shape<64, 64, 8, 4>;
using Narrow = Shape<128, 32, 8, 4>;  // for few outputs: the codec's last layers

// Rows of a tile lie transposed, [k][row]; the padding keeps 16-byte alignment and spreads banks.
template <int n>
using Slice = float[kDepth][n + 4];
template <typename S>
struct alignas(16) Slices {
  Slice<S::kRows> x;
  Slice<S::kOutputs> w;
};

template <int n>
__device__ void put(Slice<n>& slice, int row, int quad, float4 v) {
  slice[4 * quad][row] = v.x;
  slice[4 * quad + 1][row] = v.y;
  slice[4 * quad + 2][row] = v.z;
  slice[4 * quad + 3][row] = v.w;
}

// w[n][at .. at + 3]; zeros outside.
template <typename W, bool aligned>
__device__ float4 load_w(const TileProduct& p, int64_t n, int at, int end) {
  if (n >= p.n || at >= end) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const W* const row = static_cast<const W*>(p.w) + n * p.k + at;
  Quad<W> q = {};
  if constexpr (aligned) {
    q = *reinterpret_cast<const Quad<W>*>(row);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (at + i < end) q.at[i] = row[i];
  }
  return make_float4(to_float(q.at[0]), to_float(q.at[1]), to_float(q.at[2]), to_float(q.at[3]));
}

// What a thread has loaded of the next slices.
template <typename W, typename S, bool aligned>
struct Ahead {
  float4 x[S::kLoadsX], w[S::kLoadsW];

  __device__ void load(const TileProduct& p, int64_t t0, int64_t n0, int k, int end) {
#pragma unroll
    for (int i = 0; i < S::kLoadsX; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      x[i] = p.load_x<aligned>(t0 + at / kQuads, k + at % kQuads * 4, end);
    }
#pragma unroll
    for (int i = 0; i < S::kLoadsW; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      w[i] = load_w<W, aligned>(p, n0 + at / kQuads, k + at % kQuads * 4, end);
    }
  }
  __device__ void put_into(Slices<S>& slices) const {
#pragma unroll
    for (int i = 0; i < S::kLoadsX; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      put<S::kRows>(slices.x, at / kQuads, at % kQuads, x[i]);
    }
#pragma unroll
    for (int i = 0; i < S::kLoadsW; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      if (at < S::kOutputs * kQuads) put<S::kOutputs>(slices.w, at / kQuads, at % kQuads, w[i]);
    }
  }
};

// Number i of `count` that a thread has of n: quads of neighbours, n / (count / 4) apart.
template <int n, int count>
__device__ int place(int thread, int i) {
  return i / 4 * (n / (count / 4)) + thread * 4 + i % 4;
}

template <int n, int count>
__device__ void take(float (&to)[count], const float* from, int thread) {
#pragma unroll
  for (int i = 0; i < count; i += 4) {
    const float4 v = *reinterpret_cast<const float4*>(from + place<n, count>(thread, i));
    to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
  }
}

template <typename S>
__device__ void multiply(float (&sum)[S::kMine][S::kOurs], const Slices<S>& slices, int down,
                         int across) {
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    float x[S::kMine], w[S::kOurs];
    take<S::kRows>(x, slices.x[k], down);
    take<S::kOutputs>(w, slices.w[k], across);
#pragma unroll
    for (int i = 0; i < S::kMine; ++i) {
#pragma unroll
      for (int j = 0; j < S::kOurs; ++j) sum[i][j] = fmaf(x[i], w[j], sum[i][j]);
    }
  }
}

template <typename W, typename S, bool aligned>
__global__ void __launch_bounds__(S::kThreads, 1) ffma_tile(TileProduct p) {
  using Pair = Slices<S>[2];
  BARKRT_SHARED(Pair, slices);
  const int64_t t0 = int64_t{blockIdx.x} * S::kRows, n0 = int64_t{blockIdx.y} * S::kOutputs;
  const int begin = static_cast<int>(blockIdx.z) * p.segment, end = min(begin + p.segment, p.k);
  const int across = static_cast<int>(threadIdx.x) % S::kAcross;
  const int down = static_cast<int>(threadIdx.x) / S::kAcross;
  Ahead<W, S, aligned> ahead;
  ahead.load(p, t0, n0, begin, end);
  ahead.put_into(slices[0]);
  __syncthreads();
  float sum[S::kMine][S::kOurs] = {};
  int now = 0;
  for (int k = begin; k < end; k += kDepth) {
    const bool more = k + kDepth < end;
    if (more) ahead.load(p, t0, n0, k + kDepth, end);
    multiply<S>(sum, slices[now], down, across);
    now ^= 1;
    if (more) ahead.put_into(slices[now]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < S::kMine; ++i) {
#pragma unroll
    for (int j = 0; j < S::kOurs; ++j)
      p.store(sum[i][j], t0 + place<S::kRows, S::kMine>(down, i),
              n0 + place<S::kOutputs, S::kOurs>(across, j));
  }
}

template <typename W, typename S>
void launch_shape(cudaStream_t stream, const TileProduct& p) {
  const dim3 grid(static_cast<unsigned>(divide_up<int64_t>(p.rows, S::kRows)),
                  static_cast<unsigned>(divide_up<int64_t>(p.n, S::kOutputs)),
                  static_cast<unsigned>(p.segments()));
  launch(stream, grid, dim3(S::kThreads), 0,
         p.aligned() ? ffma_tile<W, S, true> : ffma_tile<W, S, false>, p);
}

}  // namespace

void launch_ffma(cudaStream_t stream, const TileProduct& p, bool wide) {
  with_type(p.type, [&](auto type) {
    using W = decltype(type);
    if constexpr (sizeof(W) == 4) {  // the others are rare here: convolutions, old devices
      if (p.n <= Narrow::kOutputs) return launch_shape<W, Narrow>(stream, p);
      if (wide) return launch_shape<W, Large>(stream, p);
    }
    launch_shape<W, Small>(stream, p);
  });
}

}  // namespace barkrt::cuda
