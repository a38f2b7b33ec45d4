// rounding.cuh: activations as the 16-bit numbers that tensor cores multiply; the same bits on the
// way into a tile and on the way to cuBLASLt.
#pragma once

#include "cuda/common.cuh"

namespace barkrt::cuda {

template <typename T>
struct Rounded;

template <>
struct Rounded<__half> {
  // Numbers that f16 has not become its largest; what is no finite number stays so.
  __device__ static __half of(float x) {
    constexpr float kLargest = 65504.0f;
    return __float2half_rn(x - x == 0.0f ? fminf(fmaxf(x, -kLargest), kLargest) : x);
  }
};
template <>
struct Rounded<__nv_bfloat16> {
  __device__ static __nv_bfloat16 of(float x) { return __float2bfloat16_rn(x); }
};

// Neighbours that are loaded and stored at once.
template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T at[4];
};
template <typename T>
struct alignas(8 * sizeof(T)) Octet {
  T at[8];
};

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace barkrt::cuda
