// launch.h: a kernel with its arguments, kept until the stream comes to it.
#pragma once

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_runtime_api.h"

namespace emulation {

class Call {
 public:
  virtual ~Call() = default;
  virtual void run() const = 0;  // one thread of the kernel
  virtual const void* kernel() const = 0;
  // Where the arguments lie: what CUDA calls parameter memory.
  virtual const void* begin() const = 0;
  virtual size_t size() const = 0;
};

template <typename... Params>
class CallOf : public Call {
 public:
  template <typename... Args>
  explicit CallOf(void (*function)(Params...), Args&&... args)
      : kernel_(function), args_(std::forward<Args>(args)...) {
    static_assert((std::is_trivially_copyable<Params>::value && ...),
                  "arguments of kernels are copied as bytes");
    static_assert(sizeof(std::tuple<Params...>) <= 4096, "CUDA 12.0 passes up to 4 KiB");
  }
  void run() const override { std::apply(kernel_, args_); }
  const void* kernel() const override { return reinterpret_cast<const void*>(kernel_); }
  const void* begin() const override { return this; }
  size_t size() const override { return sizeof(*this); }

 private:
  void (*kernel_)(Params...);
  std::tuple<Params...> args_;
};

// Checks the launch as a device would and puts it into the stream.
cudaError_t launch(const cudaLaunchConfig_t& config, std::unique_ptr<Call> call);
cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t occupancy(int* n_blocks, const void* kernel, int block_size, size_t shared_bytes);

}  // namespace emulation
