// devices.cc: what devices say of themselves.
#include <cstdio>
#include <cstring>

#include "runtime.h"

namespace emulation {
namespace {

cudaError_t attribute_of(int* value, cudaDeviceAttr attribute, int index) {
  const Device& d = *runtime().devices[static_cast<size_t>(index)];
  if (value == nullptr) return cudaErrorInvalidValue;
  const auto answer = [&](size_t v) {
    *value = static_cast<int>(v);
    return cudaSuccess;
  };
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return answer(1024);
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return answer(48 << 10);
    case cudaDevAttrWarpSize:
      return answer(32);
    case cudaDevAttrMaxRegistersPerBlock:
      return answer(65536);
    case cudaDevAttrClockRate:
      return answer(1500000);
    case cudaDevAttrMultiProcessorCount:
      return answer(static_cast<size_t>(d.config.n_multiprocessors));
    case cudaDevAttrIntegrated:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrPciDeviceId:
      return answer(0);
    case cudaDevAttrPciBusId:
      return answer(static_cast<size_t>(index) + 1);
    case cudaDevAttrMemoryClockRate:
      return answer(5000000);
    case cudaDevAttrGlobalMemoryBusWidth:
      return answer(256);
    case cudaDevAttrL2CacheSize:
      return answer(4 << 20);
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return answer(static_cast<size_t>(d.threads_per_multiprocessor()));
    case cudaDevAttrComputeCapabilityMajor:
      return answer(static_cast<size_t>(d.config.major));
    case cudaDevAttrComputeCapabilityMinor:
      return answer(static_cast<size_t>(d.config.minor));
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return answer(d.shared_per_multiprocessor());
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return answer(d.shared_per_block());
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported:
      return answer(1);
  }
  return cudaErrorInvalidValue;
}

cudaError_t properties_of(cudaDeviceProp* p, int index) {
  const Device& d = *runtime().devices[static_cast<size_t>(index)];
  if (p == nullptr) return cudaErrorInvalidValue;
  *p = {};
  std::snprintf(p->name, sizeof(p->name), "Emulated device %d", index);
  std::snprintf(p->uuid.bytes, sizeof(p->uuid.bytes), "emulated-%d", index);
  p->totalGlobalMem = d.config.bytes;
  p->sharedMemPerBlock = 48 << 10;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  const int threads[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
  std::memcpy(p->maxThreadsDim, threads, sizeof(threads));
  std::memcpy(p->maxGridSize, grid, sizeof(grid));
  p->totalConstMem = 64 << 10;
  p->major = d.config.major;
  p->minor = d.config.minor;
  p->multiProcessorCount = d.config.n_multiprocessors;
  p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = 1;
  p->pciBusID = index + 1;
  p->asyncEngineCount = 2;
  p->memoryBusWidth = 256;
  p->l2CacheSize = 4 << 20;
  p->maxThreadsPerMultiProcessor = d.threads_per_multiprocessor();
  p->sharedMemPerMultiprocessor = d.shared_per_multiprocessor();
  p->sharedMemPerBlockOptin = d.shared_per_block();
  p->cooperativeLaunch = p->memoryPoolsSupported = 1;
  return cudaSuccess;
}

}  // namespace
}  // namespace emulation

using namespace emulation;

cudaError_t cudaGetDeviceCount(int* count) {
  if (count == nullptr) return cudaErrorInvalidValue;
  *count = 0;
  return call("cudaGetDeviceCount", kNone, [&] {
    *count = static_cast<int>(runtime().devices.size());
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0) return cudaErrorInvalidDevice;
  return call("cudaSetDevice", device, [&] {
    current_device() = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDevice(int* device) {
  return call("cudaGetDevice", kNone, [&] {
    *device = current_device();
    return cudaSuccess;
  });
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
  if (device < 0) return cudaErrorInvalidDevice;
  return call("cudaInitDevice", device, [] { return cudaSuccess; });
}
cudaError_t cudaSetDeviceFlags(unsigned) {
  return call("cudaSetDeviceFlags", kCurrent, [] { return cudaSuccess; });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0) return cudaErrorInvalidDevice;
  return call("cudaGetDeviceProperties", device, [&] { return properties_of(properties, device); });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0) return cudaErrorInvalidDevice;
  return call("cudaDeviceGetAttribute", device,
              [&] { return attribute_of(value, attribute, device); });
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
  if (device < 0) return cudaErrorInvalidDevice;
  return call("cudaDeviceGetPCIBusId", device, [&] {
    const int n = std::snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
    return n < length ? cudaSuccess : cudaErrorInvalidValue;
  });
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call("cudaMemGetInfo", kCurrent, [&] {
    const Device& device = *runtime().devices[static_cast<size_t>(current_device())];
    *free = device.config.bytes - device.used;
    *total = device.config.bytes;
    return cudaSuccess;
  });
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = runtime().driver ? 13000 : 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
