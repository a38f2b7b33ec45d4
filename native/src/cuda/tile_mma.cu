// tile_mma.cu: out[t][n] = sum_k x[t][k] w[n][k] by tensor cores: a block makes a square tile,
// a warp a part of it in m16n8k16 products with f32 sums. Slices of kDepth of K go through shared
// memory, two of them: the next one is under way while one is multiplied. Weights that lie there as
// they are needed are copied asynchronously; x, 8-bit weights and unaligned rows go through
// registers, where they become 16-bit.
//
// Rows of a slice lie kPitch apart: a multiple of 16 bytes that puts the eight rows of an ldmatrix
// into different banks.
#include <ptx.cuh>

#include "cuda/rounding.cuh"
#include "cuda/tile.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kDepth = 32;
constexpr int kPitch = kDepth + 8;
constexpr int kEight = 8;

// kSide rows by kSide outputs; each warp makes kWarpRows x 32 of it.
template <int side, int warps_down, int warps_across>
struct Shape {
  static constexpr int kSide = side;
  static constexpr int kAcross = warps_across;
  static constexpr int kThreads = warps_down * warps_across * kWarp;
  static constexpr int kBlocks = side == 128 ? 1 : 3;  // that share a multiprocessor
  static constexpr int kWarpRows = side / warps_down;
  static constexpr int kWarpOutputs = side / warps_across;
  static constexpr int kRowTiles = kWarpRows / 16;
  static constexpr int kOutputTiles = kWarpOutputs / 8;
  static constexpr int kLoadsX = side * kDepth / 4 / kThreads;       // four numbers each
  static constexpr int kLoadsW = side * kDepth / kEight / kThreads;  // eight
};
using Wide = Shape<128, 2, 4>;
using Small = Shape<64, 2, 2>;

template <typename T, typename S>
struct alignas(16) Slices {
  T x[S::kSide][kPitch];
  T w[S::kSide][kPitch];
};

__device__ inline void mma(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
  mma_f16(d, a, b);
}
__device__ inline void mma(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
  mma_bf16(d, a, b);
}

// Eight weights from row[at] as 16-bit numbers; zeros from `end` on.
template <typename T, typename W, bool aligned>
__device__ Octet<T> load_eight(const W* row, int at, int end) {
  Octet<W> raw = {};
  if constexpr (aligned) {
    raw = *reinterpret_cast<const Octet<W>*>(row + at);
  } else {
#pragma unroll
    for (int i = 0; i < kEight; ++i)
      if (at + i < end) raw.at[i] = row[at + i];
  }
  if constexpr (sizeof(W) == sizeof(T)) {
    return raw;
  } else {
    Octet<T> wide;  // exact
#pragma unroll
    for (int i = 0; i < kEight; ++i) wide.at[i] = __float2half_rn(static_cast<float>(raw.at[i]));
    return wide;
  }
}

// Brings the slices that begin at k from device memory to shared memory: begin() starts it, end()
// puts what came through registers. The caller's barrier makes it visible.
template <typename T, typename W, typename S, bool aligned>
struct Loader {
  static constexpr bool kAsync = aligned && sizeof(W) == sizeof(T);
  float4 x[S::kLoadsX];
  Octet<T> w[S::kLoadsW];

  __device__ void begin(const TileProduct& p, int64_t t0, int64_t n0, int k, int last,
                        Slices<T, S>& to) {
    constexpr int kEights = kDepth / kEight, kQuads = kDepth / 4;
#pragma unroll
    for (int i = 0; i < S::kLoadsW; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      const int row = at / kEights, column = at % kEights * kEight;
      const bool inside = n0 + row < p.n && k + column < last;
      const W* const from = static_cast<const W*>(p.w) + (inside ? n0 + row : 0) * p.k;
      if constexpr (kAsync) {
        copy_async_16(&to.w[row][column], from + (inside ? k + column : 0), inside);
      } else {
        w[i] = inside ? load_eight<T, W, aligned>(from, k + column, last) : Octet<T>{};
      }
    }
    if constexpr (kAsync) copy_async_commit();
#pragma unroll
    for (int i = 0; i < S::kLoadsX; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      x[i] = p.load_x<aligned>(t0 + at / kQuads, k + at % kQuads * 4, last);
    }
  }

  __device__ void end(Slices<T, S>& to) const {
    constexpr int kEights = kDepth / kEight, kQuads = kDepth / 4;
#pragma unroll
    for (int i = 0; i < S::kLoadsX; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
      *reinterpret_cast<Quad<T>*>(&to.x[at / kQuads][at % kQuads * 4]) = {
          Rounded<T>::of(x[i].x), Rounded<T>::of(x[i].y), Rounded<T>::of(x[i].z),
          Rounded<T>::of(x[i].w)};
    }
    if constexpr (kAsync) {
      copy_async_wait<0>();
    } else {
#pragma unroll
      for (int i = 0; i < S::kLoadsW; ++i) {
        const int at = static_cast<int>(threadIdx.x) + i * S::kThreads;
        *reinterpret_cast<Octet<T>*>(&to.w[at / kEights][at % kEights * kEight]) = w[i];
      }
    }
  }
};

template <typename S>
using Sums = float[S::kRowTiles][S::kOutputTiles][4];

// A warp's rows from `row` and outputs from `output` on.
template <typename T, typename S>
__device__ void multiply(Sums<S>& sum, const Slices<T, S>& slices, int row, int output, int lane) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    uint32_t a[S::kRowTiles][4], b[S::kOutputTiles / 2][4];
#pragma unroll
    for (int i = 0; i < S::kRowTiles; ++i)
      ldmatrix_x4(a[i], &slices.x[row + i * 16 + lane % 16][k + lane / 16 * 8]);
      // Two neighbouring tiles of outputs at a time: their lower and upper halves of k.
#pragma unroll
    for (int j = 0; j < S::kOutputTiles / 2; ++j)
      ldmatrix_x4(b[j],
                  &slices.w[output + j * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
#pragma unroll
    for (int i = 0; i < S::kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < S::kOutputTiles; ++j) mma(sum[i][j], a[i], b[j / 2] + j % 2 * 2, T{});
    }
  }
}

template <typename T, typename W, typename S, bool aligned>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) mma_tile(TileProduct p) {
  using Pair = Slices<T, S>[2];
  BARKRT_SHARED(Pair, slices);
  const int64_t t0 = int64_t{blockIdx.x} * S::kSide, n0 = int64_t{blockIdx.y} * S::kSide;
  const int begin = static_cast<int>(blockIdx.z) * p.segment, end = min(begin + p.segment, p.k);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = warp / S::kAcross * S::kWarpRows, output = warp % S::kAcross * S::kWarpOutputs;
  Loader<T, W, S, aligned> loader;
  loader.begin(p, t0, n0, begin, end, slices[0]);
  loader.end(slices[0]);
  __syncthreads();
  Sums<S> sum = {};
  int now = 0;
  for (int k = begin; k < end; k += kDepth) {
    const bool more = k + kDepth < end;
    if (more) loader.begin(p, t0, n0, k + kDepth, end, slices[now ^ 1]);
    multiply<T, S>(sum, slices[now], row, output, lane);
    now ^= 1;
    if (more) loader.end(slices[now]);
    __syncthreads();
  }
  const int64_t t = t0 + row + lane / 4, n = n0 + output + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < S::kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < S::kOutputTiles; ++j) {
#pragma unroll
      for (int d = 0; d < 4; ++d) p.store(sum[i][j][d], t + i * 16 + d / 2 * 8, n + j * 8 + d % 2);
    }
  }
}

template <typename T, typename W, typename S>
void launch_shape(cudaStream_t stream, const TileProduct& p) {
  const dim3 grid(static_cast<unsigned>(divide_up<int64_t>(p.rows, S::kSide)),
                  static_cast<unsigned>(divide_up<int64_t>(p.n, S::kSide)),
                  static_cast<unsigned>(p.segments()));
  launch(stream, grid, dim3(S::kThreads), 0,
         p.aligned() ? mma_tile<T, W, S, true> : mma_tile<T, W, S, false>, p);
}

template <typename T, typename W>
void launch_for(cudaStream_t stream, const TileProduct& p, bool wide) {
  if (wide) return launch_shape<T, W, Wide>(stream, p);
  launch_shape<T, W, Small>(stream, p);
}

}  // namespace

void launch_mma(cudaStream_t stream, const TileProduct& p, bool wide) {
  switch (p.type) {
    case DType::F16:
      return launch_for<__half, __half>(stream, p, wide);
    case DType::BF16:
      return launch_for<__nv_bfloat16, __nv_bfloat16>(stream, p, wide);
    case DType::I8:
      return launch_for<__half, int8_t>(stream, p, wide);
    default:
      fail(Status::Internal, "weights of type %s on tensor cores", dtype_name(p.type));
  }
}

}  // namespace barkrt::cuda
