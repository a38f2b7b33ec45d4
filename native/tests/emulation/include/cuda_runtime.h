// cuda_runtime.h: what a .cu file includes: the runtime's calls, the device's functions, and the
// calls that take kernels by their C++ type.
#pragma once

#include "cuda_runtime_api.h"
#include "emulation/intrinsics.h"
#include "emulation/launch.h"
#include "emulation/thread.h"

template <typename T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  return ::cudaMalloc(reinterpret_cast<void**>(p), bytes);
}
template <typename T>
cudaError_t cudaHostAlloc(T** p, size_t bytes, unsigned flags) {
  return ::cudaHostAlloc(reinterpret_cast<void**>(p), bytes, flags);
}
template <typename T>
cudaError_t cudaMallocAsync(T** p, size_t bytes, cudaStream_t stream) {
  return ::cudaMallocAsync(reinterpret_cast<void**>(p), bytes, stream);
}

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  return emulation::launch(
      *config, std::make_unique<emulation::CallOf<Params...>>(kernel, std::forward<Args>(args)...));
}

template <typename... Params>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Params...), cudaFuncAttribute attribute,
                                 int value) {
  return emulation::set_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <typename... Params>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n_blocks, void (*kernel)(Params...),
                                                          int block_size, size_t shared_bytes) {
  return emulation::occupancy(n_blocks, reinterpret_cast<const void*>(kernel), block_size,
                              shared_bytes);
}
