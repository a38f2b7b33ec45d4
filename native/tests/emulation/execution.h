// execution.h: runs a kernel on fibers, one per device thread: warps one after another, blocks one
// after another; all blocks alive at once in a cooperative launch. One launch runs at a time.
#pragma once

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "emulation/launch.h"
#include "emulation/thread.h"
#include "fiber.h"

namespace emulation {

struct Block;
struct Cell;
// The time before which a block's accesses were handed over, by its number (races.h).
using Handed = std::map<uint32_t, uint32_t>;

enum class Wait { Nothing, Warp, Block, Grid, Ended };

struct Thread {
  uint3 index, block_index;
  int lane = 0;
  int number = 0;  // in the block
  Block* block = nullptr;
  Wait wait = Wait::Ended;
  Site site;
  const char* what = "";                  // the barrier or collective it waits in
  std::vector<std::vector<Copy>> groups;  // of copies, the last one open
  bool in_emulation = false;              // not in the kernel's own code
  // Of its last __threadfence(); what its atomics found handed over, since it and before (races.h).
  uint32_t fence_time = 0;
  Handed offered, taken;
  Fiber fiber;
};

struct Warp {
  int first = 0, count = 0;   // threads
  int n_waiting = 0;          // in a collective
  int phase = 0;              // which of the two buffers the next exchange fills
  uint32_t barrier_time = 0;  // of its last __syncwarp (races.h)
  alignas(16) std::byte values[2][32 * kLaneBytes];
};

// One declaration of shared memory.
struct SharedObject {
  const void* key = nullptr;
  std::unique_ptr<std::byte, void (*)(void*)> data{nullptr, std::free};
  size_t bytes = 0;
  std::shared_ptr<Cell[]> history;  // one per byte, where accesses are traced
};

struct LaunchShape {
  dim3 grid, block;
  size_t dynamic_bytes = 0;
  bool cooperative = false;
};

struct DeviceLimits {
  int index = 0, major = 0, minor = 0;
  size_t shared_bytes = 0;  // that a block of this kernel may have, static and dynamic together
};

struct Block {
  const DeviceLimits* limits = nullptr;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  std::vector<SharedObject> shared;  // the dynamic one has the key nullptr
  size_t shared_bytes = 0;
  uint32_t number = 0;  // in the grid
  const Call* call = nullptr;
  // When it began, of its last barrier, of the grid's last one (races.h).
  uint32_t begin_time = 0, barrier_time = 0, grid_time = 0;
  Handed taken;  // by threads of it, before its last barrier
};

// The time of races.h, and what makes it later.
uint32_t now();
uint32_t later();

// The thread that runs now on this thread of the host; nullptr outside of kernels.
Thread* current();

// Where a kernel calls the emulation: what that touches is not the kernel's doing. (The linker may
// give it the traced copies of the standard library's functions.)
class InEmulation {
 public:
  InEmulation() : thread_(*current()), before_(thread_.in_emulation) {
    thread_.in_emulation = true;
  }
  InEmulation(const InEmulation&) = delete;
  ~InEmulation() { thread_.in_emulation = before_; }

 private:
  Thread& thread_;
  const bool before_;
};

// Runs the whole launch. Returns what the device would end with: cudaSuccess, or the error of the
// first fault that ends a kernel (it is in the reports too).
cudaError_t run_launch(const Call& call, const LaunchShape& shape, const DeviceLimits& limits);

// ", block (0,0,0) thread (3,0,0)": the running thread; "" outside of kernels.
std::string where();

// Reports a fault of the running thread, which ends the launch with `error`; does not return.
[[noreturn]] void fault(cudaError_t error, const std::string& text, const Site& site);

}  // namespace emulation
