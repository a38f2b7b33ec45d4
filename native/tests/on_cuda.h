// on_cuda.h: the launchers of native/src/cuda by themselves, on an emulated device of any compute
// capability and size, with arrays brought there and back.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/ops.h"
#include "emulation.h"
#include "reference.h"

namespace barkrt::cuda {

void check(cudaError_t status, const char* what);

class OnCuda {
 public:
  OnCuda(int major, int minor, int n_multiprocessors) {
    emulation::configure({{size_t{1} << 30, major, minor, n_multiprocessors}});
    std::string why;
    device_ = std::make_unique<Device>(find_devices(&why).at(0));
    device_->enter();
  }

  template <typename T>
  T* put(const T* values, int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    void* const p = device_->pool().allocate(bytes);
    check(cudaMemcpy(p, values, static_cast<size_t>(bytes), cudaMemcpyHostToDevice), "put");
    return static_cast<T*>(p);
  }
  const float* put(const reference::Floats& values) {
    return put(values.data(), static_cast<int64_t>(values.size()));
  }
  Matrix put(Matrix m) {
    m.data = put(static_cast<const std::byte*>(m.data), m.rows * m.cols * dtype_bytes(m.type));
    if (m.scale) m.scale = put(m.scale, m.rows);
    return m;
  }
  float* room(int64_t floats) {
    return static_cast<float*>(device_->pool().allocate(floats * int64_t{sizeof(float)}));
  }
  reference::Floats get(const float* p, int64_t count) {
    LaneUse(*device_)->wait();
    reference::Floats values(static_cast<size_t>(count));
    check(cudaMemcpy(values.data(), p, values.size() * sizeof(float), cudaMemcpyDeviceToHost),
          "get");
    return values;
  }
  // f(stream) in the calling thread's lane; what is left of its scratch goes.
  template <typename F>
  void run(F f) {
    device_->enter();
    LaneUse lane(*device_);
    f(static_cast<Stream&>(*lane));
  }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace barkrt::cuda
