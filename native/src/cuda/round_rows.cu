// round_rows.cu: rows in 16 bits for cuBLASLt, normalised on the way.
#include "cuda/common.cuh"
#include "cuda/cublaslt.h"
#include "cuda/norm.cuh"
#include "cuda/rounding.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarp;

// A warp: a row.
template <typename T>
__global__ void round_normed(T* to, ConstView x, const float* gamma, const float* beta) {
  const int64_t t = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (t >= x.rows) return;  // a whole warp; no barrier follows
  const float* const row = x.data + t * x.stride;
  const RowNorm norm = row_norm(row, x.cols, lane);
#pragma unroll 4
  for (int64_t k = lane; k < x.cols; k += kWarp)
    to[t * x.cols + k] = Rounded<T>::of(norm.apply(row[k], gamma[k], beta ? beta[k] : 0.0f));
}

// A thread: four neighbours of a row, or one where rows are not aligned.
template <typename T, int kWidth>
__global__ void round_plain(T* to, ConstView x) {
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (i >= x.rows * x.cols) return;
  const float* const from = x.data + i / x.cols * x.stride + i % x.cols;
  if constexpr (kWidth == 4) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    *reinterpret_cast<Quad<T>*>(to + i) = {Rounded<T>::of(v.x), Rounded<T>::of(v.y),
                                           Rounded<T>::of(v.z), Rounded<T>::of(v.w)};
  } else {
    to[i] = Rounded<T>::of(*from);
  }
}

template <typename T>
void round_to(Stream& stream, T* to, ConstView x, const Fused& fused) {
  const cudaStream_t handle = stream.handle();
  const auto blocks = [](int64_t n, int64_t of) {
    return dim3(static_cast<unsigned>(divide_up(n, of)));
  };
  if (fused.gamma) {
    launch(handle, blocks(x.rows, kRowsPerBlock), dim3(kThreads), 0, round_normed<T>, to, x,
           fused.gamma, fused.beta);
  } else if (aligned16(x.data) && x.stride % 4 == 0 && x.cols % 4 == 0) {
    launch(handle, blocks(x.rows * x.cols, kThreads * 4), dim3(kThreads), 0, round_plain<T, 4>, to,
           x);
  } else {
    launch(handle, blocks(x.rows * x.cols, kThreads), dim3(kThreads), 0, round_plain<T, 1>, to, x);
  }
}

}  // namespace

void round_rows(Stream& stream, void* rounded, DType type, ConstView x, const Fused& fused) {
  if (x.rows == 0) return;
  if (type == DType::F16) return round_to(stream, static_cast<__half*>(rounded), x, fused);
  BARKRT_CHECK(type == DType::BF16);
  round_to(stream, static_cast<__nv_bfloat16*>(rounded), x, fused);
}

}  // namespace barkrt::cuda
