// staging.h: host memory on its way to a device: copied into a ring of pinned memory piece by
// piece, each while the one before is on the bus.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace barkrt::cuda {

class Device;

// Page-locked host memory that is never given back: copies from and to it overlap with all else.
std::byte* pin(int64_t bytes);

// Any thread. The ring is made at the first use.
class Staging {
 public:
  static constexpr int64_t kPieceBytes = 4 << 20;
  static constexpr int kPieces = 4;

  explicit Staging(Device& device) : device_(device) {}
  Staging(const Staging&) = delete;

  // Copies to the device in the stream's order. `host` may be reused on return. The caller has
  // entered the device.
  void upload(cudaStream_t stream, void* dst, const void* host, int64_t bytes);
  // The same in a stream of its own, for memory that nothing uses yet.
  void upload(void* dst, const void* host, int64_t bytes);
  // For all uploads of the second kind so far: waits; has another stream wait.
  void wait();
  void order_before(cudaStream_t stream);

 private:
  struct Piece {
    std::mutex mutex;  // guards the bytes, and the order of event and copy
    std::byte* pinned = nullptr;
    cudaEvent_t copied = nullptr;  // recorded behind the last copy from here
  };

  void open();

  Device& device_;
  std::once_flag opened_;
  std::atomic<bool> is_open_{false};
  cudaStream_t stream_ = nullptr;
  Piece pieces_[kPieces];
  std::atomic<unsigned> next_{0};
  std::mutex order_mutex_;  // guards ordered_
  cudaEvent_t ordered_ = nullptr;
};

}  // namespace barkrt::cuda
