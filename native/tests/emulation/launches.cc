// launches.cc: what a launch must satisfy, by the device's compute capability.
#include <algorithm>

#include "report.h"
#include "runtime.h"

namespace emulation {
namespace {

constexpr size_t kSharedByDefault = 48 << 10;
constexpr int kBlocksPerMultiprocessor = 16;  // the least of any architecture

bool shape_allowed(const LaunchShape& s) {
  const auto inside = [](const dim3& d, uint64_t x, uint64_t y, uint64_t z) {
    return d.x >= 1 && d.y >= 1 && d.z >= 1 && d.x <= x && d.y <= y && d.z <= z;
  };
  return inside(s.block, 1024, 1024, 64) && uint64_t{s.block.x} * s.block.y * s.block.z <= 1024 &&
         inside(s.grid, 0x7fffffff, 65535, 65535);
}

size_t dynamic_allowed(const Device& device, const void* kernel) {
  const auto set = device.max_dynamic_shared.find(kernel);
  return set == device.max_dynamic_shared.end() ? kSharedByDefault
                                                : static_cast<size_t>(set->second);
}

int blocks_per_multiprocessor(const Device& device, int block_size, size_t shared_bytes) {
  const int threads = (block_size + 31) / 32 * 32;
  const int by_threads = device.threads_per_multiprocessor() / threads;
  // A block takes 1 KiB for the system.
  const auto by_shared =
      static_cast<int>(device.shared_per_multiprocessor() / (shared_bytes + 1024));
  return std::min({by_threads, by_shared, kBlocksPerMultiprocessor});
}

bool is_cooperative(const cudaLaunchConfig_t& config) {
  for (unsigned i = 0; i < config.numAttrs; ++i)
    if (config.attrs[i].id == cudaLaunchAttributeCooperative)
      return config.attrs[i].val.cooperative != 0;
  return false;
}

cudaError_t put(const cudaLaunchConfig_t& config, const std::shared_ptr<const Call>& call) {
  const auto stream = stream_of(config.stream);
  if (stream == nullptr || stream->device != current_device())
    return cudaErrorInvalidResourceHandle;
  Device& device = *runtime().devices[static_cast<size_t>(stream->device)];
  const void* kernel = call->kernel();
  if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
  const LaunchShape shape = {config.gridDim, config.blockDim, config.dynamicSmemBytes,
                             is_cooperative(config)};
  if (!shape_allowed(shape)) return cudaErrorInvalidConfiguration;
  if (shape.dynamic_bytes > dynamic_allowed(device, kernel)) return cudaErrorInvalidValue;
  const auto n_threads = static_cast<int>(shape.block.x * shape.block.y * shape.block.z);
  const uint64_t n_blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  const int fit = blocks_per_multiprocessor(device, n_threads, shape.dynamic_bytes);
  if (shape.cooperative && n_blocks > static_cast<uint64_t>(fit) *
                                          static_cast<uint64_t>(device.config.n_multiprocessors))
    return cudaErrorCooperativeLaunchTooLarge;
  const DeviceLimits limits = {stream->device, device.config.major, device.config.minor,
                               std::max(kSharedByDefault, dynamic_allowed(device, kernel))};
  return enqueue(stream, {Work::Kind::Kernel, kernel, [=, &device] {
                            ++device.counters.launches;
                            device.lost = ++device.n_kernels == device.config.fatal_kernel
                                              ? cudaErrorLaunchFailure
                                              : run_launch(*call, shape, limits);
                          }});
}

}  // namespace

size_t Device::shared_per_block() const {
  return shared_per_multiprocessor() - (config.major == 7 ? 0 : 1024);
}
size_t Device::shared_per_multiprocessor() const {
  const int version = config.major * 10 + config.minor;
  const size_t kib = version < 80                     ? 64
                     : version == 80 || version == 87 ? 164
                     : version < 90 || version >= 120 ? 100
                                                      : 228;
  return kib << 10;
}
int Device::threads_per_multiprocessor() const {
  const int version = config.major * 10 + config.minor;
  return version < 80 ? 1024 : version == 80 || (version >= 90 && version < 120) ? 2048 : 1536;
}

cudaError_t launch(const cudaLaunchConfig_t& config, std::unique_ptr<Call> kernel) {
  const std::shared_ptr<const Call> shared = std::move(kernel);
  return call("cudaLaunchKernelEx", kCurrent, [&] { return put(config, shared); });
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call("cudaFuncSetAttribute", kCurrent, [&] {
    Device& device = *runtime().devices[static_cast<size_t>(current_device())];
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (value < 0 || static_cast<size_t>(value) > device.shared_per_block())
      return cudaErrorInvalidValue;
    device.max_dynamic_shared[kernel] = value;
    return cudaSuccess;
  });
}

cudaError_t occupancy(int* n_blocks, const void* kernel, int block_size, size_t shared_bytes) {
  return call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", kCurrent, [&] {
    const Device& device = *runtime().devices[static_cast<size_t>(current_device())];
    if (n_blocks == nullptr || block_size <= 0) return cudaErrorInvalidValue;
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    *n_blocks = block_size > 1024 || shared_bytes > dynamic_allowed(device, kernel)
                    ? 0
                    : blocks_per_multiprocessor(device, block_size, shared_bytes);
    return cudaSuccess;
  });
}

}  // namespace emulation
