// launch_test.h: what the emulation's tests share: a stream, device copies of arrays, launches.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "emulation.h"

namespace emulation {

using Floats = std::vector<float>;

inline void expect(cudaError_t error) { EXPECT_EQ(error, cudaSuccess) << cudaGetErrorName(error); }

class OnDevice : public testing::Test {
 protected:
  OnDevice() {
    configure({DeviceConfig{}, DeviceConfig{}});
    expect(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }

  template <typename T>
  T* device(const std::vector<T>& values) {
    T* p = nullptr;
    expect(cudaMalloc(&p, values.size() * sizeof(T)));
    expect(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return p;
  }
  template <typename T>
  std::vector<T> host(const T* p, size_t count) {
    std::vector<T> values(count);
    expect(cudaStreamSynchronize(stream));
    expect(cudaMemcpy(values.data(), p, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  template <typename... Params, typename... Args>
  cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Params...),
                     Args... args) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  }
  template <typename... Params, typename... Args>
  cudaError_t launch_cooperative(dim3 grid, dim3 block, void (*kernel)(Params...), Args... args) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  }

  cudaStream_t stream = nullptr;
};

}  // namespace emulation
