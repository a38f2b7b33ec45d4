// copies.cc: copies and fills. Directions and bounds are checked at the call and again when the
// stream comes to it.
#include <cstring>

#include "report.h"
#include "runtime.h"
#include "tracing.h"

namespace emulation {
namespace {

// Of the device's memory all of it must be allocated; of the host's none of it may be the device's.
bool on_device(const void* p, size_t bytes, const char* what) {
  if (allocation_of(p, bytes) != nullptr) return true;
  report(std::string(what) + ": " + std::to_string(bytes) +
         (device_of(p) != nullptr ? " bytes outside of an allocation of the device"
                                  : " bytes of host memory where device memory belongs"));
  return false;
}
bool on_host(const void* p, const char* what) {
  if (device_of(p) == nullptr) return true;
  report(std::string(what) + ": device memory where host memory belongs");
  return false;
}

cudaMemcpyKind direction(const void* to, const void* from, cudaMemcpyKind kind) {
  if (kind != cudaMemcpyDefault) return kind;
  const int code = (device_of(to) != nullptr ? 1 : 0) + (device_of(from) != nullptr ? 2 : 0);
  return static_cast<cudaMemcpyKind>(code);
}

bool sound(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return (to_device ? on_device(to, bytes, "copy to") : on_host(to, "copy to")) &&
         (from_device ? on_device(from, bytes, "copy from") : on_host(from, "copy from"));
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                 const std::shared_ptr<CUstream_st>& stream) {
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return cudaSuccess;
  kind = direction(to, from, kind);
  if (!sound(to, from, bytes, kind)) return cudaErrorInvalidValue;
  Device& device = *runtime().devices[static_cast<size_t>(stream->device)];
  return enqueue(stream, {Work::Kind::Copy, nullptr, [=, &device] {
                            if (!sound(to, from, bytes, kind)) {
                              device.lost = cudaErrorIllegalAddress;
                              return;
                            }
                            const auto n = static_cast<int64_t>(bytes);
                            Counters& c = device.counters;
                            if (kind == cudaMemcpyHostToDevice)
                              ++c.host_to_device, c.host_to_device_bytes += n;
                            if (kind == cudaMemcpyDeviceToHost)
                              ++c.device_to_host, c.device_to_host_bytes += n;
                            const auto *f = static_cast<const std::byte*>(from), *l = f + bytes;
                            const auto* t = static_cast<std::byte*>(to);
                            if (t < l && f < t + n) report("copy between places that overlap");
                            std::memmove(to, from, bytes);
                            define_as(to, from, bytes);
                          }});
}

cudaError_t fill(void* to, int value, size_t bytes, const std::shared_ptr<CUstream_st>& stream) {
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return cudaSuccess;
  if (!on_device(to, bytes, "fill")) return cudaErrorInvalidValue;
  Device& device = *runtime().devices[static_cast<size_t>(stream->device)];
  return enqueue(stream, {Work::Kind::Set, nullptr, [=, &device] {
                            if (!on_device(to, bytes, "fill")) {
                              device.lost = cudaErrorIllegalAddress;
                              return;
                            }
                            std::memset(to, value, bytes);
                            define(to, bytes);
                          }});
}

}  // namespace
}  // namespace emulation

using namespace emulation;

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call("cudaMemcpyAsync", kCurrent,
              [&] { return copy(to, from, bytes, kind, stream_of(stream)); });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call("cudaMemcpy", kCurrent, [&] {
    const cudaError_t error = copy(to, from, bytes, kind, stream_of(nullptr));
    const cudaError_t lost = runtime().devices[static_cast<size_t>(current_device())]->lost;
    return error != cudaSuccess ? error : lost;
  });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device,
                                size_t bytes, cudaStream_t stream) {
  return call("cudaMemcpyPeerAsync", kCurrent, [&] {
    const auto n = static_cast<int>(runtime().devices.size());
    for (const int device : {to_device, from_device})
      if (device < 0 || device >= n) return cudaErrorInvalidDevice;
    if (device_of(to) != runtime().devices[static_cast<size_t>(to_device)].get() ||
        device_of(from) != runtime().devices[static_cast<size_t>(from_device)].get())
      return cudaErrorInvalidValue;
    return copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(stream));
  });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return call("cudaMemset", kCurrent, [&] { return fill(to, value, bytes, stream_of(nullptr)); });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call("cudaMemsetAsync", kCurrent,
              [&] { return fill(to, value, bytes, stream_of(stream)); });
}
