#include "execution.h"

#include <cstring>

#include "races.h"
#include "report.h"
#include "tracing.h"

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

class Grid;

namespace {

constexpr int kWarpSize = 32;
constexpr size_t kStaticSharedBytes = 48 << 10;

// Thrown through a kernel to end its threads.
struct Stop {};

uint32_t time_now = kHostTime;

thread_local Thread* current_thread = nullptr;
thread_local Grid* current_grid = nullptr;

// Stacks are kept for the next launch, and never taken down: one launch runs at a time.
std::vector<std::unique_ptr<Thread>>& idle_threads() {
  static auto* threads = new std::vector<std::unique_ptr<Thread>>;
  return *threads;
}

std::string text_of(const uint3& v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
std::string text_of(const Site& site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}
std::string name_of(const Thread& t) {
  return "block " + text_of(t.block_index) + " thread " + text_of(t.index);
}
std::string state_of(const Thread& t) {
  if (t.wait == Wait::Ended) return name_of(t) + " has ended";
  return name_of(t) + " waits in " + t.what + " at " + text_of(t.site);
}
bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool same_place(const Thread& a, const Thread& b) {
  return a.wait == b.wait && a.site.line == b.site.line && same_text(a.what, b.what) &&
         same_text(a.site.file, b.site.file);
}

Warp& warp_of(const Thread& t) { return t.block->warps[static_cast<size_t>(t.number / kWarpSize)]; }

uint3 unfold(unsigned i, const dim3& size) {
  return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}

// NaNs of every width; no whole number that would do as a count.
void fill_undefined(SharedObject& object) { std::memset(object.data.get(), 0xff, object.bytes); }

SharedObject make_shared_object(const void* key, size_t bytes, size_t align) {
  SharedObject object;
  object.key = key;
  object.bytes = bytes;
  // Of its exact size, so that AddressSanitizer sees the end; where accesses are traced, which does
  // not stop them, with room for a store beyond it.
  const size_t room = bytes + (traced() ? 64 : 0);
  void* data = nullptr;
  if (posix_memalign(&data, align < 16 ? 16 : align, room) != 0) throw std::bad_alloc();
  object.data.reset(static_cast<std::byte*>(data));
  fill_undefined(object);
  if (traced()) object.history.reset(new Cell[bytes]);
  return object;
}

}  // namespace

// A launch under way.
class Grid {
 public:
  Grid(const Call& call, const LaunchShape& shape, const DeviceLimits& limits)
      : call_(call),
        shape_(shape),
        limits_(limits),
        body_([this] { run_thread(); }),
        begin_time_(later()) {}

  cudaError_t run() {
    const unsigned n_blocks = shape_.grid.x * shape_.grid.y * shape_.grid.z;
    current_grid = this;
    blockDim = {shape_.block.x, shape_.block.y, shape_.block.z};
    gridDim = {shape_.grid.x, shape_.grid.y, shape_.grid.z};
    if (shape_.cooperative) {
      std::vector<Block> blocks(n_blocks);
      for (unsigned b = 0; b < n_blocks; ++b) enter(blocks[b], b);
      while (run_to_grid_barrier(blocks)) {
      }
      for (Block& block : blocks) leave(block);
    } else {
      Block block;
      for (unsigned b = 0; b < n_blocks && error_ == cudaSuccess; ++b) {
        enter(block, b);
        if (!run_block(block)) stuck({&block, 1});
        leave(block);
      }
    }
    current_grid = nullptr;
    return error_;
  }

  // From a kernel: waits for the others.
  void wait(Wait wait, const char* what, const Site& site) {
    Thread& t = *current_thread;
    t.wait = wait;
    t.what = what;
    t.site = site;
    t.fiber.yield();
    if (error_ != cudaSuccess) throw Stop{};
  }

  void fail(cudaError_t error, const std::string& text) {
    report(text);
    if (error_ == cudaSuccess) error_ = error;
  }

  struct Blocks {
    Block* first;
    size_t count;
    Block* begin() const { return first; }
    Block* end() const { return first + count; }
  };

 private:
  void run_thread() {
    Thread& t = *current_thread;
    try {
      if (error_ == cudaSuccess) call_.run();
    } catch (const Stop&) {
    }
    const InEmulation here;
    bool pending = false;
    for (const auto& group : t.groups) pending = pending || !group.empty();
    if (pending && error_ == cudaSuccess)
      fail(cudaErrorLaunchFailure, name_of(t) + " ends with copies that it has not waited for");
    t.groups.clear();
    t.wait = Wait::Ended;
  }

  void enter(Block& block, unsigned index) {
    const auto n = static_cast<int>(shape_.block.x * shape_.block.y * shape_.block.z);
    block.limits = &limits_;
    block.number = index;
    block.call = &call_;
    block.begin_time = block.barrier_time = later();
    block.grid_time = begin_time_;
    block.warps.resize(static_cast<size_t>((n + kWarpSize - 1) / kWarpSize));
    if (block.shared.empty() && shape_.dynamic_bytes > 0)
      block.shared.push_back(make_shared_object(nullptr, shape_.dynamic_bytes, 16));
    block.shared_bytes = 0;
    for (SharedObject& object : block.shared) {
      fill_undefined(object);
      block.shared_bytes += object.bytes;
    }
    for (int i = 0; i < n; ++i) {
      auto& idle = idle_threads();
      if (idle.empty()) idle.push_back(std::make_unique<Thread>());
      block.threads.push_back(std::move(idle.back()));
      idle.pop_back();
      Thread& t = *block.threads.back();
      t.index = unfold(static_cast<unsigned>(i), shape_.block);
      t.block_index = unfold(index, shape_.grid);
      t.lane = i % kWarpSize;
      t.number = i;
      t.block = &block;
      t.wait = Wait::Nothing;
      t.fiber.start(body_);
      Warp& warp = warp_of(t);
      if (t.lane == 0) warp = Warp{}, warp.first = i;
      ++warp.count;
    }
  }

  void leave(Block& block) {
    for (auto& t : block.threads) {
      while (!t->fiber.done()) resume(*t);  // of a failed launch: they end
      idle_threads().push_back(std::move(t));
    }
    block.threads.clear();
  }

  void resume(Thread& t) {
    current_thread = &t;
    threadIdx = t.index;
    blockIdx = t.block_index;
    t.fiber.resume();
    current_thread = nullptr;
  }

  // Every thread runs as far as it can without another warp. False: none could run.
  bool run_warp(Block& block, Warp& warp) {
    bool any = false;
    for (bool moved = true; moved && error_ == cudaSuccess;) {
      moved = false;
      for (int i = warp.first; i < warp.first + warp.count && error_ == cudaSuccess; ++i) {
        Thread& t = *block.threads[static_cast<size_t>(i)];
        if (t.wait != Wait::Nothing) continue;
        resume(t);
        moved = any = true;
      }
    }
    return any;
  }

  bool all_at_one_place(const Block& block) const {
    for (const auto& t : block.threads)
      if (!same_place(*t, *block.threads[0])) return false;
    return true;
  }

  // Until all threads have ended or wait for the grid; false when they wait for what cannot come.
  bool run_block(Block& block) {
    for (;;) {
      for (Warp& warp : block.warps) run_warp(block, warp);
      if (error_ != cudaSuccess) return true;
      bool ended = true;
      for (const auto& t : block.threads) ended = ended && t->wait == Wait::Ended;
      if (ended) return true;
      if (!all_at_one_place(block)) return false;
      if (block.threads[0]->wait == Wait::Grid) return shape_.cooperative;
      if (block.threads[0]->wait != Wait::Block) return false;
      block.barrier_time = later();
      note_barrier(block);
      for (const auto& t : block.threads) t->wait = Wait::Nothing;
    }
  }

  // False at the end of the launch.
  bool run_to_grid_barrier(std::vector<Block>& blocks) {
    const Blocks all = {blocks.data(), blocks.size()};
    for (Block& block : blocks)
      if (!run_block(block)) stuck({&block, 1});
    if (error_ != cudaSuccess) return false;
    const Thread& first = *blocks[0].threads[0];
    bool ended = true, together = true;
    for (const Block& block : blocks)
      for (const auto& t : block.threads) {
        ended = ended && t->wait == Wait::Ended;
        together = together && same_place(*t, first);
      }
    if (ended) return false;
    if (!together) {
      stuck(all);
      return false;
    }
    const uint32_t time = later();
    for (Block& block : blocks) {
      block.grid_time = block.barrier_time = time;
      for (const auto& t : block.threads) t->wait = Wait::Nothing;
    }
    return true;
  }

  // The threads wait for different things: says for which.
  void stuck(Blocks blocks) {
    const Thread* waiting = nullptr;
    for (const Block& block : blocks)
      for (const auto& t : block.threads)
        if (waiting == nullptr && t->wait != Wait::Ended) waiting = t.get();
    const Thread* other = nullptr;
    for (const Block& block : blocks)
      for (const auto& t : block.threads)
        if (other == nullptr && !same_place(*t, *waiting)) other = t.get();
    const Warp& warp = warp_of(*waiting);
    std::string why = other != nullptr ? state_of(*other) : "";
    if (other == nullptr && waiting->wait == Wait::Grid)
      why = "the launch is not cooperative";
    else if (other == nullptr)
      why = "its warp has " + std::to_string(warp.count) + " lanes";
    fail(cudaErrorLaunchFailure, "divergence: " + state_of(*waiting) + ", but " + why);
  }

  const Call& call_;
  const LaunchShape shape_;
  const DeviceLimits limits_;
  const std::function<void()> body_;
  const uint32_t begin_time_;
  cudaError_t error_ = cudaSuccess;
};

uint32_t now() { return time_now; }
uint32_t later() { return ++time_now; }

Thread* current() { return current_thread; }

cudaError_t run_launch(const Call& call, const LaunchShape& shape, const DeviceLimits& limits) {
  return Grid(call, shape, limits).run();
}

std::string where() { return current_thread != nullptr ? ", " + name_of(*current_thread) : ""; }

void fault(cudaError_t error, const std::string& text, const Site& site) {
  current_grid->fail(error, name_of(*current_thread) + " at " + text_of(site) + ": " + text);
  throw Stop{};
}

// --- thread.h ---

int lane() { return current_thread->lane; }

void block_barrier(const Site& site) {
  const InEmulation here;
  current_grid->wait(Wait::Block, "__syncthreads", site);
}
void grid_barrier(const Site& site) {
  const InEmulation here;
  current_grid->wait(Wait::Grid, "grid.sync", site);
}

const void* exchange_bytes(const void* mine, size_t bytes, size_t stride, uint32_t mask,
                           const char* what, const Site& site) {
  const InEmulation here;
  Thread& t = *current_thread;
  Warp& warp = warp_of(t);
  if (mask != 0xffffffffu)
    fault(cudaErrorLaunchFailure, std::string(what) + " with a mask that is not all lanes", site);
  std::byte* const values = warp.values[warp.phase];
  std::memcpy(values + static_cast<size_t>(t.lane) * stride, mine, bytes);
  if (++warp.n_waiting < kWarpSize) {
    current_grid->wait(Wait::Warp, what, site);
    return values;
  }
  // The last one: releases the others and goes on.
  t.wait = Wait::Warp;
  t.what = what;
  t.site = site;
  for (int i = warp.first; i < warp.first + warp.count; ++i) {
    const Thread& other = *t.block->threads[static_cast<size_t>(i)];
    if (!same_place(t, other))
      fault(cudaErrorLaunchFailure,
            "divergence: calls " + std::string(what) + ", but " + state_of(other), site);
  }
  for (int i = warp.first; i < warp.first + warp.count; ++i)
    t.block->threads[static_cast<size_t>(i)]->wait = Wait::Nothing;
  warp.n_waiting = 0;
  warp.phase ^= 1;
  if (std::strcmp(what, "__syncwarp") == 0) warp.barrier_time = later();
  return values;
}

void warp_barrier(uint32_t mask, const Site& site) {
  const char nothing = 0;
  exchange_bytes(&nothing, 1, 1, mask, "__syncwarp", site);
}

void* block_shared(const void* key, size_t bytes, size_t align) {
  const InEmulation here;
  Block& block = *current_thread->block;
  for (const SharedObject& object : block.shared)
    if (object.key == key) return object.data.get();
  block.shared.push_back(make_shared_object(key, bytes, align));
  block.shared_bytes += bytes;
  size_t static_bytes = 0;
  for (const SharedObject& object : block.shared)
    if (object.key != nullptr) static_bytes += object.bytes;
  if (static_bytes > kStaticSharedBytes)
    fault(cudaErrorInvalidValue, std::to_string(static_bytes) + " bytes of static shared memory",
          {});
  if (block.shared_bytes > block.limits->shared_bytes)
    fault(cudaErrorInvalidValue,
          std::to_string(block.shared_bytes) + " bytes of shared memory, " +
              std::to_string(block.limits->shared_bytes) + " allowed",
          {});
  return block.shared.back().data.get();
}

void* block_dynamic_shared() {
  const InEmulation here;
  for (const SharedObject& object : current_thread->block->shared)
    if (object.key == nullptr) return object.data.get();
  fault(cudaErrorLaunchFailure, "dynamic shared memory in a launch without any", {});
}

void require_capability(int major, int minor, const char* what, const Site& site) {
  const InEmulation here;
  const DeviceLimits& has = *current_thread->block->limits;
  if (has.major > major || (has.major == major && has.minor >= minor)) return;
  fault(cudaErrorIllegalInstruction,
        std::string(what) + " on compute capability " + std::to_string(has.major) + "." +
            std::to_string(has.minor),
        site);
}

void trap(const Site& site) {
  const InEmulation here;
  fault(cudaErrorLaunchFailure, "__trap", site);
}

void push_copy(void* shared, const void* global, size_t bytes) {
  const InEmulation here;
  auto& groups = current_thread->groups;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({shared, global, bytes});
}

void commit_copies() {
  const InEmulation here;
  auto& groups = current_thread->groups;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}

bool next_copy(int keep, Copy* copy) {
  const InEmulation here;
  auto& groups = current_thread->groups;
  // The last group is open: not one of those that are waited for.
  while (groups.size() > static_cast<size_t>(keep) + 1) {
    if (!groups.front().empty()) {
      *copy = groups.front().front();
      groups.front().erase(groups.front().begin());
      return true;
    }
    groups.erase(groups.begin());
  }
  return false;
}

}  // namespace emulation
