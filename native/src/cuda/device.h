// device.h: one object per CUDA device: what it is, whether it still works, and the streams and
// memory that all models on it share.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend.h"
#include "cuda/lane.h"
#include "cuda/ops.h"
#include "cuda/pool.h"
#include "cuda/staging.h"

namespace barkrt::cuda {

struct DeviceFacts {
  Properties properties;
  std::string name, uuid;  // "NVIDIA L4", "GPU-…" or "MIG-…"
  int64_t memory_bytes = 0;
  bool has_pools = false;
};

// "13.0" of CUDA's 13000.
std::string version_text(int version);

// The devices that this build can use, as the runtime enumerates them now. Where there are none,
// *why says what is missing.
std::vector<DeviceFacts> find_devices(std::string* why);

// Any thread. Lives to the end of the process.
class Device {
 public:
  static constexpr int kThreadLanes = 8;  // threads have them in turn
  static constexpr int kStepLanes = 4;    // for repeated passes; models have them in turn

  explicit Device(DeviceFacts facts);
  Device(const Device&) = delete;

  // Those of find_devices(), at the time of the first call.
  static int count();
  static Device& at(int index);

  const DeviceFacts& facts() const { return facts_; }
  const std::string& id() const { return id_; }  // "cuda:0"

  // Makes it the calling thread's device, for CUDA and for check(). Throws Device when it is lost.
  void enter();

  // A failed device: its context is gone, and every call on it would fail until the process ends.
  bool is_lost() const { return lost_.load(std::memory_order_acquire); }
  void lose(const std::string& why) noexcept;
  std::string lost_text() const;  // "" when it is not

  Pool& pool() { return pool_; }
  Staging& staging() { return staging_; }
  Lane& lane_of_thread();
  Lane& next_step_lane();
  // Has the stream wait for all that is issued so far, in any lane.
  void order_after_all(cudaStream_t stream);

 private:
  const DeviceFacts facts_;
  const std::string id_;
  std::atomic<bool> lost_{false};
  mutable std::mutex mutex_;  // guards why_lost_
  std::string why_lost_;
  Pool pool_;
  Staging staging_;
  std::deque<Lane> lanes_;  // those of threads, then those of steps
  std::atomic<unsigned> n_step_lanes_{0};
};

// The device must outlive it.
std::unique_ptr<Backend> make_backend(Device& device);

}  // namespace barkrt::cuda
