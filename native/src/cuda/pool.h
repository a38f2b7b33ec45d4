// pool.h: the memory of a device: allocations ordered with the work on it. What is freed stays with
// the process until trim().
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace barkrt::cuda {

class Device;

// Any thread. Where the driver has no pools (some virtual GPUs) each allocation is its own.
class Pool {
 public:
  explicit Pool(Device& device) : device_(device) {}
  Pool(const Pool&) = delete;

  // For any stream, at once; 256-byte aligned. OutOfMemory, after one trim and another try, names
  // device, bytes, free and total.
  void* allocate(int64_t bytes);
  // Any stream may still use it: it is free when all that is issued by now is done. On a lost
  // device only counted.
  void free(void* p, int64_t bytes) noexcept;

  // For one stream, in its order, and without waiting for other streams. The caller has entered the
  // device.
  void* allocate_on(cudaStream_t stream, int64_t bytes);
  void free_on(cudaStream_t stream, void* p, int64_t bytes) noexcept;

  // Gives the driver what is free; returns by how many bytes the process shrank.
  int64_t trim();

  // Bytes that were asked for and are not freed.
  int64_t live_bytes() const { return live_.load(std::memory_order_relaxed); }

 private:
  void open();
  void* allocate_after_trim(cudaStream_t stream, int64_t bytes);
  void* try_allocate(cudaStream_t stream, int64_t bytes);
  void release(cudaStream_t stream, void* p);
  // Counts the bytes as freed; gives them back unless the device is lost.
  template <typename F>
  void release_counted(int64_t bytes, const F& give_back) noexcept;
  int64_t reserved_bytes();

  Device& device_;
  std::once_flag opened_;
  std::atomic<bool> is_open_{false};  // and there is a pool_
  cudaMemPool_t pool_ = nullptr;      // NULL where the driver has none
  cudaStream_t stream_ = nullptr;     // of what belongs to no stream
  std::atomic<int64_t> live_{0};
};

}  // namespace barkrt::cuda
