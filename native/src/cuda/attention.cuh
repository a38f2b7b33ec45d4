// attention.cuh: what the kernels of attention share. Keys and values of a layer lie as backend.h
// says, those of BF16 layers as F16's.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda/common.cuh"
#include "cuda/ops.h"

namespace barkrt::cuda {

// To nearest even; what is too large becomes infinite, as on the CPU.
template <typename T>
__device__ inline T round_to(float x);
template <>
__device__ inline float round_to(float x) {
  return x;
}
template <>
__device__ inline __half round_to(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 round_to(float x) {
  return __float2bfloat16_rn(x);
}

// How the numbers of one head and position become 8 bits: the same ones as on the CPU.
struct Scale8 {
  float scale;    // NaN where a number is infinite or not one
  float inverse;  // 0 where it would be infinite

  // top: the largest magnitude() of the numbers.
  __device__ static Scale8 of(int top) {
    const float most = __int_as_float(top);
    return {most / 127.0f + (most - most), most >= 0x1p-120f ? 127.0f / most : 0.0f};
  }
  // In the order of |x|, and NaN at its end.
  __device__ static int magnitude(float x) { return __float_as_int(x) & 0x7fffffff; }
  // The last byte of a sum with 1.5 * 2^23 is the rounded number.
  __device__ static int8_t round(float x, float inverse) {
    return static_cast<int8_t>(__float_as_int(x * inverse + 0x1.8p23f));
  }
};

// Keys or values of one head.
template <typename T>
struct HeadCache {
  T* numbers;     // (n_ctx, head_dim)
  float* scales;  // (n_ctx) of int8_t
};

__host__ __device__ constexpr int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static_assert(whole_lines(3 * 5) + whole_lines(3 * 4) == kv_head_bytes(DType::I8, 3, 5));

template <typename T>
__device__ inline HeadCache<T> head_cache(void* half, int64_t n_ctx, int64_t head,
                                          int64_t head_dim) {
  if constexpr (sizeof(T) == 1) {
    const int64_t bytes = whole_lines(n_ctx * head_dim);
    T* const numbers = static_cast<T*>(half) + head * (bytes + whole_lines(n_ctx * 4));
    return {numbers, reinterpret_cast<float*>(numbers + bytes)};
  } else {
    return {static_cast<T*>(half) + head * n_ctx * head_dim, nullptr};
  }
}

// Two 16-bit numbers in a register, the first in the lower half.
template <typename T>
__device__ inline uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}
template <>
__device__ inline uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}
template <typename T>
__device__ inline float2 unpack(uint32_t word);
template <>
__device__ inline float2 unpack<__half>(uint32_t word) {
  __half2 pair;
  memcpy(&pair, &word, sizeof word);
  return __half22float2(pair);
}
template <>
__device__ inline float2 unpack<__nv_bfloat16>(uint32_t word) {
  __nv_bfloat162 pair;
  memcpy(&pair, &word, sizeof word);
  return __bfloat1622float2(pair);
}

// Scores are taken to the base 2: exp(x) = exp2(x log2 e).
inline float score_scale(int64_t head_dim) {
  return 1.4426950408889634f / sqrtf(static_cast<float>(head_dim));
}

// Whether rows of the view may be read or written as vectors of `bytes`.
inline bool aligned(ConstView view, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(bytes) == 0 &&
         view.stride * static_cast<int64_t>(sizeof(float)) % bytes == 0;
}

// Any rows and head_dim. A row's bits depend on its own keys alone. append: the rows' keys and
// values are written as well, else they lie in the caches already; causal calls of at most kFewRows
// rows only.
void attention_step(Stream& stream, View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
                    bool causal, bool append);

// Rows that follow each other in one cache, which holds their keys and values already; head_dim 64
// or 128, views aligned to 16 bytes. A row's bits depend on its own keys alone.
// On tensor cores. 16-bit caches: queries and weights are rounded to the cache's type; of 8 bits:
// keys and values as well, to f16.
void attention_tile(Stream& stream, View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
                    bool causal);
// F32 and BF16 caches, in f32.
void attention_tile_f32(Stream& stream, View out, ConstView qkv, const DeviceRows& rows,
                        int64_t n_head, bool causal);

// What both tell their kernels.
struct TileArgs {
  float* out;  // (n_rows, n_head head_dim)
  int64_t out_stride;
  const float* qkv;  // (n_rows, 3 n_head head_dim)
  int64_t qkv_stride;
  const KvLayer* kv;
  int n_rows;
  int first_pos;
  float scale;
  bool causal;

  // Keys that row `row` sees.
  __device__ int keys_of(int row) const { return causal ? first_pos + row + 1 : n_rows; }
};

inline TileArgs tile_args(View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
                          bool causal) {
  TileArgs a = {};
  a.out = out.data, a.out_stride = out.stride;
  a.qkv = qkv.data, a.qkv_stride = qkv.stride;
  a.kv = rows.kv;
  a.n_rows = static_cast<int>(rows.count), a.first_pos = static_cast<int>(rows.first_pos);
  a.scale = score_scale(out.cols / n_head), a.causal = causal;
  return a;
}

}  // namespace barkrt::cuda
