// device.cu: enumeration, the lost device, and what an error of the runtime means.
#include "cuda/device.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "cuda/common.cuh"
#include "error.h"

namespace barkrt::cuda {
namespace {

thread_local Device* current = nullptr;  // of the calling thread's last enter()

// After these every call fails until the process ends.
bool is_sticky(cudaError_t status) {
  switch (status) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorDevicesUnavailable:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

// The runtime numbers instances of a partitioned device (MIG) as devices; their names say so.
std::string uuid_text(const cudaDeviceProp& device) {
  char text[48];
  const auto byte = [&](int i) { return static_cast<unsigned>(device.uuid.bytes[i]) & 0xff; };
  int n = std::snprintf(text, sizeof text, "%s", std::strstr(device.name, " MIG ") ? "MIG" : "GPU");
  for (int i = 0; i < 16; ++i) {
    const bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
    n += std::snprintf(text + n, sizeof text - static_cast<size_t>(n), "%s%02x", dash ? "-" : "",
                       byte(i));
  }
  return text;
}

std::string why_none(cudaError_t status) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  cudaGetLastError();
  if (driver == 0) return "no NVIDIA driver is installed, or this process cannot see it";
  if (status == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is for CUDA " + version_text(driver) + ", and this build needs " +
           version_text(runtime);
  if (status == cudaErrorNoDevice || status == cudaSuccess)
    return "the NVIDIA driver has no device for this process (CUDA_VISIBLE_DEVICES?)";
  return std::string("the NVIDIA driver does not start: ") + cudaGetErrorString(status) + " (" +
         cudaGetErrorName(status) + ")";
}

// Never destroyed: other statics may still free memory of a device, and in the end the driver takes
// back what it gave.
const std::vector<std::unique_ptr<Device>>& devices() {
  using Devices = std::vector<std::unique_ptr<Device>>;
  static const Devices* const all = [] {
    auto found = std::make_unique<Devices>();
    std::string why;
    for (DeviceFacts& facts : find_devices(&why))
      found->push_back(std::make_unique<Device>(std::move(facts)));
    if (found->empty()) log_line(kLogInfo, "no CUDA device: %s", why.c_str());
    return found.release();
  }();
  return *all;
}

}  // namespace

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::vector<DeviceFacts> find_devices(std::string* why) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    *why = why_none(status);
    return {};
  }
  std::vector<DeviceFacts> found;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp device = {};
    int has_pools = 0;
    check(cudaGetDeviceProperties(&device, i), "cudaGetDeviceProperties");
    check(cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, i),
          "cudaDeviceGetAttribute");
    DeviceFacts facts;
    facts.properties = {i, device.major, device.minor, device.multiProcessorCount,
                        static_cast<int64_t>(device.sharedMemPerBlockOptin)};
    facts.name = device.name;
    facts.uuid = uuid_text(device);
    facts.memory_bytes = static_cast<int64_t>(device.totalGlobalMem);
    facts.has_pools = has_pools != 0;
    if (facts.properties.at_least(7, 5))
      found.push_back(std::move(facts));
    else
      *why = facts.name + " has compute capability " + std::to_string(device.major) + "." +
             std::to_string(device.minor) + ", and 7.5 is needed";
  }
  return found;
}

Device::Device(DeviceFacts facts)
    : facts_(std::move(facts)),
      id_("cuda:" + std::to_string(facts_.properties.index)),
      pool_(*this),
      staging_(*this) {
  constexpr int kOrdinary = 0, kHighest = -100;  // the runtime takes the nearest it has
  for (int i = 0; i < kThreadLanes; ++i) lanes_.emplace_back(*this, kOrdinary);
  for (int i = 0; i < kStepLanes; ++i) lanes_.emplace_back(*this, kHighest);
}

int Device::count() { return static_cast<int>(devices().size()); }

Device& Device::at(int index) {
  BARKRT_CHECK(index >= 0 && index < count());
  return *devices()[static_cast<size_t>(index)];
}

void Device::enter() {
  if (is_lost()) fail(Status::Device, "%s", lost_text().c_str());
  current = this;
  check(cudaSetDevice(facts_.properties.index), "cudaSetDevice");
}

void Device::lose(const std::string& why) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (is_lost()) return;
  try {
    why_lost_ = why;
    log_line(kLogWarn, "%s is lost: %s; other devices go on", id_.c_str(), why.c_str());
  } catch (...) {  // no memory for the text
  }
  lost_.store(true, std::memory_order_release);
}

std::string Device::lost_text() const {
  if (!is_lost()) return "";
  const std::lock_guard<std::mutex> lock(mutex_);
  return id_ + " is lost: " + why_lost_ + "; restart the process to use it again";
}

Lane& Device::lane_of_thread() {
  static std::atomic<unsigned> n_threads{0};
  thread_local const unsigned mine = n_threads.fetch_add(1);
  return lanes_[mine % kThreadLanes];
}

Lane& Device::next_step_lane() {
  return lanes_[kThreadLanes + n_step_lanes_.fetch_add(1) % kStepLanes];
}

void Device::order_after_all(cudaStream_t stream) {
  for (Lane& lane : lanes_) lane.order_before(stream);
  staging_.order_before(stream);
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next call reports it again
  const std::string id = current ? current->id() : "CUDA";
  const std::string why = std::string(what) + " failed: " + cudaGetErrorString(status) + " (" +
                          cudaGetErrorName(status) + ")";
  if (status == cudaErrorMemoryAllocation)
    fail(Status::OutOfMemory, "%s: %s; free memory, then try again", id.c_str(), why.c_str());
  if (!current || !is_sticky(status)) fail(Status::Device, "%s: %s", id.c_str(), why.c_str());
  current->lose(why);
  fail(Status::Device, "%s", current->lost_text().c_str());
}

}  // namespace barkrt::cuda
