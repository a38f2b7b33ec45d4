// pool.cu: one cudaMemPool_t of our own per device.
#include "cuda/pool.h"

#include <algorithm>
#include <limits>

#include "cuda/common.cuh"
#include "cuda/device.h"
#include "error.h"

namespace barkrt::cuda {
namespace {

size_t allocated(int64_t bytes) { return static_cast<size_t>(std::max<int64_t>(bytes, 1)); }

}  // namespace

void Pool::open() {
  device_.enter();
  std::call_once(opened_, [&] {
    if (!stream_)
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    if (!device_.facts().has_pools || pool_) return;
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device_.facts().properties.index;
    cudaMemPool_t pool = nullptr;
    check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
    uint64_t keep = std::numeric_limits<uint64_t>::max();
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
          "cudaMemPoolSetAttribute");
    pool_ = pool;
    is_open_.store(true, std::memory_order_release);
  });
}

// NULL when there is no memory.
void* Pool::try_allocate(cudaStream_t stream, int64_t bytes) {
  void* p = nullptr;
  const cudaError_t status = pool_ ? cudaMallocFromPoolAsync(&p, allocated(bytes), pool_, stream)
                                   : cudaMalloc(&p, allocated(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "allocation");
  return p;
}

void* Pool::allocate_after_trim(cudaStream_t stream, int64_t bytes) {
  void* p = try_allocate(stream, bytes);
  if (p == nullptr) {
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    trim();
    p = try_allocate(stream, bytes);
  }
  if (p == nullptr) {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    fail(Status::OutOfMemory,
         "%s: cannot allocate %lld bytes: %zu of %zu are free; free memory, then try again",
         device_.id().c_str(), static_cast<long long>(bytes), free, total);
  }
  live_.fetch_add(bytes, std::memory_order_relaxed);
  return p;
}

void* Pool::allocate(int64_t bytes) {
  open();
  void* const p = allocate_after_trim(stream_, bytes);
  // The memory's last users are ordered before this stream, so now they are done.
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  return p;
}

void* Pool::allocate_on(cudaStream_t stream, int64_t bytes) {
  open();
  return allocate_after_trim(stream, bytes);
}

void Pool::release(cudaStream_t stream, void* p) {
  if (pool_) return check(cudaFreeAsync(p, stream), "cudaFreeAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  check(cudaFree(p), "cudaFree");
}

template <typename F>
void Pool::release_counted(int64_t bytes, const F& give_back) noexcept {
  live_.fetch_sub(bytes, std::memory_order_relaxed);
  if (device_.is_lost()) return;
  try {
    give_back();
  } catch (const std::exception& e) {
    log_line(kLogWarn, "%s: %lld bytes were not freed: %s", device_.id().c_str(),
             static_cast<long long>(bytes), e.what());
  }
}

void Pool::free(void* p, int64_t bytes) noexcept {
  release_counted(bytes, [&] {
    device_.enter();
    device_.order_after_all(stream_);
    release(stream_, p);
  });
}

void Pool::free_on(cudaStream_t stream, void* p, int64_t bytes) noexcept {
  release_counted(bytes, [&] { release(stream, p); });
}

int64_t Pool::reserved_bytes() {
  uint64_t bytes = 0;
  check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &bytes),
        "cudaMemPoolGetAttribute");
  return static_cast<int64_t>(bytes);
}

int64_t Pool::trim() {
  if (!is_open_.load(std::memory_order_acquire)) return 0;  // nothing is in it
  open();
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  const int64_t before = reserved_bytes();
  check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
  return std::max<int64_t>(before - reserved_bytes(), 0);
}

}  // namespace barkrt::cuda
