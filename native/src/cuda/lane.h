// lane.h: a stream of a device, and what launches on it need beside their arguments: scratch, and
// host arrays brought to the device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "backend.h"
#include "cuda/ops.h"

namespace barkrt::cuda {

class Device;

// Used by one thread at a time, through a LaneUse. Its memory, some 9 MiB, is made at the first op
// and stays.
class Lane final : public Stream {
 public:
  static constexpr int64_t kBlockBytes = 64 << 10;
  static constexpr int kStretches = 4;  // of the ring of host arrays

  Lane(Device& device, int priority) : device_(device), priority_(priority) {}
  Lane(const Lane&) = delete;

  cudaStream_t handle() const override { return stream_; }
  const Properties& properties() const override;
  void* scratch(int64_t bytes) override;
  void release_scratch() noexcept override;
  unsigned* counters() override;

  // Device memory for the running op, 64-byte aligned; put: with a copy of a host array in it.
  void* room(int64_t bytes);
  const void* put(const void* host, int64_t bytes);
  template <typename T>
  const T* put(const T* host, int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    return static_cast<const T*>(put(static_cast<const void*>(host), bytes));
  }
  // Waits for all that was issued; get: and for a copy to the host.
  void wait();
  void get(void* host, const void* device, int64_t bytes);
  // Has another stream wait for all that is issued so far. Locks the lane.
  void order_before(cudaStream_t stream);

  // kBlockBytes on both sides, for get() and for passes that come again.
  std::byte* block();
  std::byte* pinned_block();
  // While a HostBlock is bound, its bytes lie in block() as they do in host memory: put() finds
  // them there. While a pass is recorded, nothing else can be put, and scratch has an end.
  void bind(const HostBlock& block, bool recording);
  void unbind() noexcept;
  // Where a host array is in the bound block, on the device; NULL when it is not of the block.
  void* in_block(const void* host, int64_t bytes) const;

 private:
  friend class LaneUse;
  struct Extra {
    void* p;
    int64_t bytes;
  };

  void open();
  void need_memory();
  void* take_ring(int64_t bytes);
  void end_op(bool failed) noexcept;
  void free_all(std::vector<Extra>* extras) noexcept;

  Device& device_;
  const int priority_;
  std::mutex mutex_;  // guards all that follows
  cudaStream_t stream_ = nullptr;
  cudaEvent_t ordered_ = nullptr;
  bool pending_ = false;                 // something was issued since the last wait
  std::byte* memory_ = nullptr;          // on the device: scratch, counters, ring, block
  std::byte* pinned_ = nullptr;          // on the host: ring, block
  cudaEvent_t copied_[kStretches] = {};  // recorded when a stretch is full
  int stretch_ = 0;                      // the one in use
  int64_t stretch_used_ = 0;             // of its bytes
  int64_t scratch_used_ = 0;
  std::vector<Extra> more_scratch_, more_room_;  // of the running op, from the pool
  HostBlock bound_;
  bool recording_ = false;
};

// The calling thread's lane of a device for a scope, in which ops are issued. Throws Device when
// the device is lost. A scope that is left by an exception waits for what it has issued.
class LaneUse {
 public:
  explicit LaneUse(Device& device);
  LaneUse(Device& device, Lane& lane);
  ~LaneUse();
  LaneUse(const LaneUse&) = delete;
  Lane& operator*() const { return lane_; }
  Lane* operator->() const { return &lane_; }

 private:
  Lane& lane_;
  std::unique_lock<std::mutex> lock_;  // not held inside a BoundLane, whose scope holds it
  const int n_exceptions_;
};

// Within this scope the calling thread's ops go to `lane`, which it uses.
class BoundLane {
 public:
  BoundLane(Lane& lane, const HostBlock& block, bool recording);
  ~BoundLane();
  BoundLane(const BoundLane&) = delete;

 private:
  Lane& lane_;
};

}  // namespace barkrt::cuda
