// cuda_backend.h: the CUDA devices as device.cc sees them, without CUDA's headers.
#pragma once

#include <cstdint>
#include <memory>

#include "backend.h"

namespace barkrt::cuda {

// Devices of compute capability 7.5 and up that the runtime offers (CUDA_VISIBLE_DEVICES and MIG
// have had their say). Without a driver, or with one that is too old, there are none, and the first
// call logs why. The others take an index below it.
int device_count();
// Works for a lost device too, and tells so.
DeviceDescription describe_device(int index);
// The first call for a device makes its context, some hundred megabytes. Device when it is lost.
void device_memory(int index, int64_t* free_bytes, int64_t* total_bytes);
int64_t trim_device(int index);
std::unique_ptr<Backend> make_backend(int index);

}  // namespace barkrt::cuda
