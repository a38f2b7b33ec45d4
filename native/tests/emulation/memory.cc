// memory.cc: device memory: addresses of an arena per device, handed out in turn, so that what is
// freed is not used again for long; between allocations lies memory that nobody may touch.
#include <sys/mman.h>

#include <cstring>
#include <new>

#include "runtime.h"
#include "tracing.h"

#if defined(BARKRT_WITH_ASAN)
#include <sanitizer/asan_interface.h>
#else
namespace {
void __asan_poison_memory_region(const volatile void*, size_t) {}
void __asan_unpoison_memory_region(const volatile void*, size_t) {}
}  // namespace
#endif

namespace emulation {
namespace {

constexpr size_t kAlign = 256, kGap = 256, kPage = 4096;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Where `bytes` fit at or after the cursor, between what lives.
size_t find_gap(const Device& device, size_t bytes) {
  const size_t need = round_up(bytes, kAlign) + kGap;
  size_t at = device.cursor;
  for (int turn = 0; turn < 2; ++turn, at = 0) {
    for (auto next = device.live.lower_bound(device.arena + at);; ++next) {
      const size_t end =
          next == device.live.end() ? kArenaBytes : static_cast<size_t>(next->first - device.arena);
      if (at + need <= end) return at;
      if (next == device.live.end()) break;
      at = round_up(end + next->second.bytes, kAlign) + kGap;
    }
  }
  throw std::bad_alloc();
}

}  // namespace

void open_arena(Device& device) {
  void* p = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  device.arena = static_cast<std::byte*>(p);
  open_history(device);
}

void close_arena(Device& device) {
  for (const auto& [p, allocation] : device.live)
    __asan_unpoison_memory_region(p, round_up(allocation.bytes, kAlign) + kGap);
  munmap(device.arena, kArenaBytes);
  close_history(device);
}

Device* device_of(const void* p) {
  for (auto& device : runtime().devices)
    if (p >= device->arena && p < device->arena + kArenaBytes) return device.get();
  return nullptr;
}

const Allocation* allocation_of(const void* p, size_t bytes) {
  const Device* device = device_of(p);
  if (device == nullptr) return nullptr;
  const auto* at = static_cast<const std::byte*>(p);
  auto next = device->live.upper_bound(at);
  if (next == device->live.begin()) return nullptr;
  const auto& [begin, allocation] = *std::prev(next);
  return at + bytes <= begin + allocation.bytes ? &allocation : nullptr;
}

void* place(Device& device, size_t bytes, cudaMemPool_t pool) {
  const size_t at = find_gap(device, bytes);
  std::byte* p = device.arena + at;
  const size_t whole = round_up(bytes, kAlign) + kGap;
  device.cursor = at + whole;
  __asan_unpoison_memory_region(p, bytes);
  std::memset(p, 0xff, bytes);
  __asan_poison_memory_region(p + bytes, whole - bytes);
  forget(p, bytes);
  ++runtime().n_allocation_changes;
  device.live[p] = {bytes, pool, false};
  ++device.counters.allocations;
  return p;
}

void displace(Device& device, void* p) {
  auto* begin = static_cast<std::byte*>(p);
  const auto found = device.live.find(begin);
  const size_t bytes = found->second.bytes;
  __asan_unpoison_memory_region(begin, bytes);
  std::memset(begin, 0xff, bytes < kPage ? bytes : kPage);
  const auto first = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<size_t>(begin), kPage));
  if (begin + bytes > first + kPage)
    madvise(first, static_cast<size_t>(begin + bytes - first) / kPage * kPage, MADV_DONTNEED);
  __asan_poison_memory_region(begin, bytes);
  ++runtime().n_allocation_changes;
  device.live.erase(found);
  --device.counters.allocations;
}

}  // namespace emulation
