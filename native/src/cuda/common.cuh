// common.cuh: what every kernel file needs: checked calls, launches, shared memory, typed loads,
// warp reductions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "error.h"
#include "tensor.h"

// Shared memory of a block. `type` is a name. The tests' emulation has its own two.
#ifndef BARKRT_SHARED
#define BARKRT_SHARED(type, name) __shared__ type name
#define BARKRT_DYNAMIC_SHARED(type, name)                  \
  extern __shared__ __align__(16) unsigned char name##_[]; \
  type* const name = reinterpret_cast<type*>(name##_)
#endif

namespace barkrt::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Throws OutOfMemory or Device for anything but success; a sticky error marks the current device
// lost (device.h). what: "cuda:0: cudaMemcpyAsync", or what was tried.
void check(cudaError_t status, const char* what);

template <typename T>
constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

// kernel(args...) on `grid` blocks of `block` threads with `shared_bytes` of dynamic shared memory.
template <typename... Params, typename... Args>
void launch(cudaStream_t stream, dim3 grid, dim3 block, int64_t shared_bytes,
            void (*kernel)(Params...), Args&&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...),
        "kernel launch");
}

// The same with all blocks running at once, so that the kernel may wait for the grid.
template <typename... Params, typename... Args>
void launch_cooperative(cudaStream_t stream, dim3 grid, dim3 block, int64_t shared_bytes,
                        void (*kernel)(Params...), Args&&... args) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...),
        "cooperative kernel launch");
}

// Stored numbers as floats. Half and bfloat16 are the device types of F16 and BF16.
__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(int8_t x) { return static_cast<float>(x); }

// The four int8 of a word. q + 128 put behind the exponent of 2^23 is 2^23 + 128 + q. A conversion
// instruction would be slower than the memory of an H100.
__device__ inline void widen_bytes(unsigned word, float* to) {
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned bits = __byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7440u + i);
    to[i] = __uint_as_float(bits) - 8388736.0f;
  }
}

__device__ inline float warp_sum(float x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}
__device__ inline int warp_max(int x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x = max(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// x/2 (1 + erf(x / sqrt 2)).
__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// f(type{}) with the C++ type of stored weights.
template <typename F>
void with_type(DType type, const F& f) {
  switch (type) {
    case DType::F32:
      return f(float{});
    case DType::F16:
      return f(__half{});
    case DType::BF16:
      return f(__nv_bfloat16{});
    case DType::I8:
      return f(int8_t{});
    case DType::I4:
    case DType::I8Tiles:
    case DType::I32:
      break;
  }
  fail(Status::Internal, "weights of type %s", dtype_name(type));
}

}  // namespace barkrt::cuda
