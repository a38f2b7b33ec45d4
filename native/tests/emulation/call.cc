// call.cc: what every call of the runtime goes through, and the switches of emulation.h.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "report.h"
#include "runtime.h"
#include "tracing.h"

namespace emulation {
namespace {

std::recursive_mutex& mutex() {
  static std::recursive_mutex m;
  return m;
}
std::vector<std::string>& reports() {
  static std::vector<std::string> r;
  return r;
}
thread_local cudaError_t last_error = cudaSuccess;

void start(Runtime& r, const std::vector<DeviceConfig>& configs) {
  for (size_t i = 0; i < configs.size(); ++i) {
    auto device = std::make_unique<Device>();
    device->config = configs[i];
    device->default_pool = std::make_unique<CUmemPoolHandle_st>();
    device->default_pool->device = static_cast<int>(i);
    device->default_stream = std::make_shared<CUstream_st>();
    device->default_stream->device = static_cast<int>(i);
    open_arena(*device);
    r.pools.insert(device->default_pool.get());
    r.devices.push_back(std::move(device));
  }
}

[[noreturn]] void refuse(const char* name, const char* text, const char* form) {
  std::fprintf(stderr, "%s=%s: want %s\n", name, text, form);
  std::abort();
}

std::vector<DeviceConfig> from_environment() {
  DeviceConfig config;
  int count = 2;
  if (const char* text = std::getenv("BARKRT_EMULATED_DEVICES")) {
    size_t mib = config.bytes >> 20;
    if (std::sscanf(text, "%d:%zu:%d.%d", &count, &mib, &config.major, &config.minor) < 1 ||
        count < 0)
      refuse("BARKRT_EMULATED_DEVICES", text, "COUNT[:MIB[:MAJOR.MINOR]]");
    config.bytes = mib << 20;
  }
  std::vector<DeviceConfig> configs(static_cast<size_t>(count), config);
  if (const char* text = std::getenv("BARKRT_EMULATED_LOSSES")) {
    for (const char* at = text; at != nullptr && *at != 0; at = std::strchr(at, ',')) {
      at += *at == ',';
      int device = -1;
      long long kernel = 0;
      if (std::sscanf(at, "%d:%lld", &device, &kernel) != 2 || device < 0 || device >= count ||
          kernel < 1)
        refuse("BARKRT_EMULATED_LOSSES", text, "DEVICE:KERNEL[,DEVICE:KERNEL]");
      configs[static_cast<size_t>(device)].fatal_kernel = kernel;
    }
  }
  return configs;
}

Runtime& emptied() {
  Runtime& r = runtime();
  for (auto& device : r.devices) close_arena(*device);
  for (const auto& [p, bytes] : r.pinned) std::free(const_cast<std::byte*>(p));
  for (const cudaEvent_t event : r.events) delete event;
  for (auto& device : r.devices) r.pools.erase(device->default_pool.get());
  for (const cudaMemPool_t pool : r.pools) delete pool;
  forget_graphs();
  const uint64_t n_changes = r.n_allocation_changes;
  r = Runtime{};
  r.n_allocation_changes = n_changes + 1;
  reports().clear();
  return r;
}

cudaError_t injected(Runtime& r, const char* name) {
  if (r.calls_to_failure == 0 || (!r.failing_call.empty() && r.failing_call != name))
    return cudaSuccess;
  return --r.calls_to_failure == 0 ? r.failure : cudaSuccess;
}

// Those that only ask what the driver knows of a device make no context.
bool makes_context(const std::string& name) {
  return name != "cudaGetDeviceProperties" && name.rfind("cudaDeviceGet", 0) != 0;
}

cudaError_t before(Runtime& r, const char* name, int device) {
  if (current() != nullptr || in_host_function()) {
    report(std::string(name) + (current() != nullptr ? " in a kernel" : " in a host function"));
    return cudaErrorNotPermitted;
  }
  if (!r.driver) return cudaErrorInsufficientDriver;
  if (r.devices.empty()) return cudaErrorNoDevice;
  if (device >= static_cast<int>(r.devices.size()) || device < kNone) return cudaErrorInvalidDevice;
  if (const cudaError_t error = injected(r, name)) return error;
  const int concerned = device == kCurrent ? current_device() : device;
  if (concerned < 0) return cudaSuccess;
  Device& d = *r.devices[static_cast<size_t>(concerned)];
  d.has_context = d.has_context || makes_context(name);
  return d.lost;
}

}  // namespace

Runtime& runtime() {
  static Runtime* r = [] {
    auto* made = new Runtime;
    start(*made, from_environment());
    return made;
  }();
  return *r;
}

int& current_device() {
  thread_local int device = 0;
  return device;
}
bool& in_host_function() {
  thread_local bool inside = false;
  return inside;
}

cudaError_t call(const char* name, int device, const std::function<cudaError_t()>& body) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  Runtime& r = runtime();
  cudaError_t error = before(r, name, device);
  if (error == cudaSuccess) error = body();
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

void report(const std::string& text) {
  static const bool fatal = std::getenv("BARKRT_EMULATED_ABORT") != nullptr;
  if (fatal) {
    std::fprintf(stderr, "emulation: %s\n", text.c_str());
    std::abort();
  }
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  constexpr size_t kMost = 100;
  if (reports().size() < kMost) reports().push_back(text);
}

std::vector<std::string> take_reports() {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  report_again();
  return std::exchange(reports(), {});
}

void configure(const std::vector<DeviceConfig>& devices) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  start(emptied(), devices);
}
void configure_without_driver() {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  emptied().driver = false;
}

void fail_call(const std::string& name, int n, cudaError_t error) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  Runtime& r = runtime();
  r.failing_call = name;
  r.calls_to_failure = n;
  r.failure = error;
}
void lose_device(int device, cudaError_t error) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  runtime().devices.at(static_cast<size_t>(device))->lost = error;
}

bool has_context(int device) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  return runtime().devices.at(static_cast<size_t>(device))->has_context;
}
Counters counters(int device) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  Counters c = runtime().devices.at(static_cast<size_t>(device))->counters;
  for (const auto& [p, bytes] : runtime().pinned) c.pinned_bytes += static_cast<int64_t>(bytes);
  return c;
}
void reset_counters() {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  for (auto& device : runtime().devices) {
    const int64_t live = device->counters.allocations;
    device->counters = {};
    device->counters.allocations = live;
  }
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  const auto& devices = runtime().devices;
  const auto at = static_cast<size_t>(current_device());
  if (at < devices.size() && devices[at]->lost != cudaSuccess) return devices[at]->lost;
  return last_error;
}
