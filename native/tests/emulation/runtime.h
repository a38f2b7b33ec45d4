// runtime.h: the state behind the runtime's calls: devices with their memory, pools, streams and
// events. Everything here is guarded by one mutex, held during every call (call.h); kernels run
// inside the call that waits for them.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"
#include "emulation.h"
#include "execution.h"

struct CUmemPoolHandle_st {
  int device = 0;
  size_t reserved = 0, reserved_high = 0, used = 0, used_high = 0, release_threshold = 0;
};

namespace emulation {

struct Capture;

// One thing that a stream or a graph does.
struct Work {
  enum class Kind { Kernel, Copy, Set, HostFunction, Free, Record, Graph, Wait };
  Kind kind;
  const void* kernel = nullptr;
  std::function<void()> run;
};

}  // namespace emulation

struct CUstream_st {
  int device = 0;
  bool blocking = false;  // waits for the legacy default stream, and that for it
  std::deque<emulation::Work> queue;
  uint64_t n_done = 0;
  int n_queries = 0;  // since the last progress
  std::shared_ptr<emulation::Capture> capture;
  std::vector<size_t> last_nodes;  // in the capture: what the next node depends on
  uint64_t end() const { return n_done + queue.size(); }
};

struct CUevent_st {
  int device = 0;
  bool timed = true;
  // Where it was recorded: done when that stream has done `position` works. No stream: never.
  std::shared_ptr<CUstream_st> stream;
  uint64_t position = 0;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
  std::shared_ptr<emulation::Capture> capture;  // recorded in a capture
  std::vector<size_t> nodes;
  int n_queries = 0;
};

namespace emulation {

struct Capture {
  struct Node {
    Work work;
    std::vector<size_t> after;
  };
  std::vector<Node> nodes;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  const CUstream_st* origin = nullptr;
  std::vector<std::shared_ptr<CUstream_st>> streams;
  cudaError_t invalid = cudaSuccess;
};

struct Allocation {
  size_t bytes = 0;
  cudaMemPool_t pool = nullptr;  // nullptr: cudaMalloc
  bool freeing = false;          // cudaFreeAsync has been called
};

struct Device {
  DeviceConfig config;
  size_t used = 0;  // cudaMalloc and what pools have reserved
  std::byte* arena = nullptr;
  void* history = nullptr;  // of its accesses, where they are traced
  size_t cursor = 0;
  std::map<const std::byte*, Allocation> live;
  cudaError_t lost = cudaSuccess;
  int64_t n_kernels = 0;  // so far
  bool has_context = false;
  std::unique_ptr<CUmemPoolHandle_st> default_pool;
  std::shared_ptr<CUstream_st> default_stream;
  std::map<const void*, int> max_dynamic_shared;  // by kernel, where it was set
  Counters counters;

  size_t shared_per_block() const;  // by opt-in
  size_t shared_per_multiprocessor() const;
  int threads_per_multiprocessor() const;
};

struct Runtime {
  bool driver = true;
  std::vector<std::unique_ptr<Device>> devices;
  std::map<cudaStream_t, std::shared_ptr<CUstream_st>> streams;
  std::set<cudaEvent_t> events;
  std::set<cudaMemPool_t> pools;
  std::map<const std::byte*, size_t> pinned;
  uint64_t n_allocation_changes = 1;  // of device memory
  // fail_call
  std::string failing_call;
  int calls_to_failure = 0;
  cudaError_t failure = cudaSuccess;
};
Runtime& runtime();

// --- memory.cc ---
constexpr size_t kArenaBytes = size_t{16} << 30;
void open_arena(Device& device);
void close_arena(Device& device);
// The device whose memory p is in, or might be; nullptr for the host's.
Device* device_of(const void* p);
// The live allocation that has all of p .. p+bytes; nullptr: none.
const Allocation* allocation_of(const void* p, size_t bytes);
// A live allocation of the device, filled with NaNs; charges nothing.
void* place(Device& device, size_t bytes, cudaMemPool_t pool);
void displace(Device& device, void* p);
// Gives pools' unused memory above their thresholds back, as a synchronization does.
void release_unused(Device& device);

// --- streams.cc ---
std::shared_ptr<CUstream_st> stream_of(cudaStream_t handle);  // nullptr: not a stream
// Appends the work to the stream, or to what it captures. The legacy default stream works at once.
cudaError_t enqueue(const std::shared_ptr<CUstream_st>& stream, Work work);
void run_to(CUstream_st& stream, uint64_t position);
void run_all(int device);
cudaError_t invalidate(Capture& capture, cudaError_t error);
bool any_capture(cudaStreamCaptureMode mode);
void forget_graphs();

// --- call.cc ---
// Runs `body` as the call `name` of the runtime: with the mutex, with injected failures, and with
// the thread's last error. `device`: whose loss it reports; -1 the current one, -2 none's.
constexpr int kCurrent = -1, kNone = -2;
cudaError_t call(const char* name, int device, const std::function<cudaError_t()>& body);
int& current_device();  // of the calling thread
bool& in_host_function();

}  // namespace emulation
