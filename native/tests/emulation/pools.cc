// pools.cc: allocation: cudaMalloc, stream-ordered pools, pinned host memory. A pool takes memory
// from its device in steps of 2 MiB and keeps what is freed until a synchronization, as CUDA's do.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "report.h"
#include "runtime.h"

namespace emulation {
namespace {

constexpr size_t kStep = 2 << 20;

size_t whole_steps(size_t bytes) { return (bytes + kStep - 1) / kStep * kStep; }

size_t charge(size_t bytes) { return (bytes + 255) / 256 * 256; }

void shrink_to(Device& device, CUmemPoolHandle_st& pool, size_t keep) {
  const size_t reserved = std::max(whole_steps(pool.used), std::min(pool.reserved, keep));
  device.used -= pool.reserved - reserved;
  pool.reserved = reserved;
}

bool grow(Device& device, CUmemPoolHandle_st& pool, size_t bytes) {
  const size_t need = whole_steps(pool.used + bytes);
  if (need <= pool.reserved) return true;
  if (device.used + need - pool.reserved > device.config.bytes) return false;
  device.used += need - pool.reserved;
  pool.reserved = need;
  pool.reserved_high = std::max(pool.reserved_high, need);
  return true;
}

cudaError_t take_from_pool(void** p, size_t bytes, cudaMemPool_t pool, cudaStream_t handle) {
  if (p == nullptr || runtime().pools.count(pool) == 0) return cudaErrorInvalidValue;
  const auto stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr) {
    report("allocation in a stream that is being captured");
    return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
  }
  *p = nullptr;
  if (bytes == 0) return cudaErrorInvalidValue;
  Device& device = *runtime().devices[static_cast<size_t>(pool->device)];
  const size_t charged = charge(bytes);
  if (!grow(device, *pool, charged)) {
    run_all(pool->device);  // what is freed in stream order may do
    if (!grow(device, *pool, charged)) return cudaErrorMemoryAllocation;
  }
  pool->used += charged;
  pool->used_high = std::max(pool->used_high, pool->used);
  *p = place(device, bytes, pool);
  return cudaSuccess;
}

cudaError_t allocate(void** p, size_t bytes) {
  if (p == nullptr) return cudaErrorInvalidValue;
  *p = nullptr;
  if (any_capture(cudaStreamCaptureModeGlobal)) return cudaErrorStreamCaptureUnsupported;
  if (bytes == 0) return cudaSuccess;
  Device& device = *runtime().devices[static_cast<size_t>(current_device())];
  if (device.used + charge(bytes) > device.config.bytes) return cudaErrorMemoryAllocation;
  device.used += charge(bytes);
  *p = place(device, bytes, nullptr);
  return cudaSuccess;
}

void give_back(Device& device, void* p) {
  const Allocation allocation = device.live.at(static_cast<std::byte*>(p));
  if (allocation.pool == nullptr)
    device.used -= charge(allocation.bytes);
  else
    allocation.pool->used -= charge(allocation.bytes);
  displace(device, p);
}

// Live, the beginning of an allocation, not freed already.
Allocation* to_free(void* p) {
  Device* device = device_of(p);
  if (device == nullptr) return nullptr;
  const auto found = device->live.find(static_cast<std::byte*>(p));
  return found == device->live.end() || found->second.freeing ? nullptr : &found->second;
}

cudaError_t free_now(void* p) {
  if (p == nullptr) return cudaSuccess;
  if (any_capture(cudaStreamCaptureModeGlobal)) return cudaErrorStreamCaptureUnsupported;
  if (to_free(p) == nullptr) {
    report("cudaFree of what is not allocated");
    return cudaErrorInvalidValue;
  }
  Device& device = *device_of(p);
  for (size_t i = 0; i < runtime().devices.size(); ++i)
    if (runtime().devices[i].get() == &device) run_all(static_cast<int>(i));
  give_back(device, p);
  return cudaSuccess;
}

cudaError_t free_in_order(void* p, cudaStream_t handle) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  Allocation* allocation = to_free(p);
  if (allocation == nullptr) {
    report("cudaFreeAsync of what is not allocated");
    return cudaErrorInvalidValue;
  }
  if (stream->capture != nullptr)
    return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
  allocation->freeing = true;
  Device* device = device_of(p);
  return enqueue(stream, {Work::Kind::Free, nullptr, [device, p] { give_back(*device, p); }});
}

}  // namespace

void release_unused(Device& device) {
  for (const cudaMemPool_t pool : runtime().pools)
    if (runtime().devices[static_cast<size_t>(pool->device)].get() == &device)
      shrink_to(device, *pool, pool->release_threshold);
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaMalloc(void** p, size_t bytes) {
  return call("cudaMalloc", kCurrent, [&] { return allocate(p, bytes); });
}
cudaError_t cudaFree(void* p) {
  return call("cudaFree", kCurrent, [&] { return free_now(p); });
}
cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  return call("cudaMallocFromPoolAsync", kCurrent,
              [&] { return take_from_pool(p, bytes, pool, stream); });
}
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t stream) {
  return call("cudaMallocAsync", kCurrent, [&] {
    const auto of = stream_of(stream);
    if (of == nullptr) return cudaErrorInvalidResourceHandle;
    Device& device = *runtime().devices[static_cast<size_t>(of->device)];
    return take_from_pool(p, bytes, device.default_pool.get(), stream);
  });
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  return call("cudaFreeAsync", kCurrent, [&] { return free_in_order(p, stream); });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return call("cudaMemPoolCreate", kNone, [&] {
    if (pool == nullptr || properties == nullptr ||
        properties->allocType != cudaMemAllocationTypePinned ||
        properties->location.type != cudaMemLocationTypeDevice || properties->location.id < 0 ||
        properties->location.id >= static_cast<int>(runtime().devices.size()))
      return cudaErrorInvalidValue;
    *pool = new CUmemPoolHandle_st;
    (*pool)->device = properties->location.id;
    runtime().pools.insert(*pool);
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return call("cudaMemPoolDestroy", kNone, [&] {
    if (runtime().pools.count(pool) == 0) return cudaErrorInvalidValue;
    Device& device = *runtime().devices[static_cast<size_t>(pool->device)];
    if (device.default_pool.get() == pool) return cudaErrorInvalidValue;
    run_all(pool->device);
    for (const auto& [p, allocation] : device.live)
      if (allocation.pool == pool) {
        report("cudaMemPoolDestroy of a pool with live allocations");
        return cudaErrorInvalidValue;
      }
    device.used -= pool->reserved;
    runtime().pools.erase(pool);
    delete pool;
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call("cudaMemPoolSetAttribute", kNone, [&] {
    if (runtime().pools.count(pool) == 0 || value == nullptr) return cudaErrorInvalidValue;
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies:
        return cudaSuccess;  // nothing is reused here
      case cudaMemPoolAttrReleaseThreshold:
        pool->release_threshold = *static_cast<const uint64_t*>(value);
        return cudaSuccess;
      case cudaMemPoolAttrReservedMemHigh:
        if (*static_cast<const uint64_t*>(value) != 0) return cudaErrorInvalidValue;
        pool->reserved_high = pool->reserved;
        return cudaSuccess;
      case cudaMemPoolAttrUsedMemHigh:
        if (*static_cast<const uint64_t*>(value) != 0) return cudaErrorInvalidValue;
        pool->used_high = pool->used;
        return cudaSuccess;
      default:
        return cudaErrorInvalidValue;
    }
  });
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call("cudaMemPoolGetAttribute", kNone, [&] {
    if (runtime().pools.count(pool) == 0 || value == nullptr) return cudaErrorInvalidValue;
    uint64_t& to = *static_cast<uint64_t*>(value);
    switch (attribute) {
      case cudaMemPoolAttrReleaseThreshold:
        to = pool->release_threshold;
        return cudaSuccess;
      case cudaMemPoolAttrReservedMemCurrent:
        to = pool->reserved;
        return cudaSuccess;
      case cudaMemPoolAttrReservedMemHigh:
        to = pool->reserved_high;
        return cudaSuccess;
      case cudaMemPoolAttrUsedMemCurrent:
        to = pool->used;
        return cudaSuccess;
      case cudaMemPoolAttrUsedMemHigh:
        to = pool->used_high;
        return cudaSuccess;
      default:
        return cudaErrorInvalidValue;
    }
  });
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes_to_keep) {
  return call("cudaMemPoolTrimTo", kNone, [&] {
    if (runtime().pools.count(pool) == 0) return cudaErrorInvalidValue;
    shrink_to(*runtime().devices[static_cast<size_t>(pool->device)], *pool, bytes_to_keep);
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return call("cudaDeviceGetDefaultMemPool", device, [&] {
    if (pool == nullptr) return cudaErrorInvalidValue;
    *pool = runtime().devices[static_cast<size_t>(device)]->default_pool.get();
    return cudaSuccess;
  });
}

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  return call("cudaHostAlloc", kCurrent, [&] {
    if (p == nullptr) return cudaErrorInvalidValue;
    *p = nullptr;
    if (any_capture(cudaStreamCaptureModeGlobal)) return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0) return cudaSuccess;
    if (posix_memalign(p, 64, bytes) != 0) return cudaErrorMemoryAllocation;
    std::memset(*p, 0xff, bytes);
    runtime().pinned[static_cast<std::byte*>(*p)] = bytes;
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaHostAlloc(p, bytes, 0); }
cudaError_t cudaFreeHost(void* p) {
  return call("cudaFreeHost", kCurrent, [&] {
    if (p == nullptr) return cudaSuccess;
    if (runtime().pinned.erase(static_cast<std::byte*>(p)) == 0) {
      report("cudaFreeHost of what is not allocated");
      return cudaErrorInvalidValue;
    }
    std::free(p);
    return cudaSuccess;
  });
}
