// emulation.h: how tests steer the emulated CUDA devices and read what they saw.
//
// Differences from a device, all on the strict side: a stream does nothing until something waits
// for it (a synchronize, a blocking copy, the third query); freed memory is never used again at
// once; new device memory and shared memory hold NaNs; one kernel runs at a time. A kernel's fault
// (barrier or collective that not all threads reach, a trap, ...) is a report and loses the device,
// as a sticky error of CUDA does. Every call may come from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "driver_types.h"

namespace emulation {

struct DeviceConfig {
  size_t bytes = size_t{1} << 30;
  int major = 8, minor = 9;  // compute capability; decides shared memory and threads
  int n_multiprocessors = 4;
  int64_t fatal_kernel = 0;  // the n-th kernel fails and loses the device; 0: none does
};
// Forgets all devices, with their memory, streams and reports, and starts with these. None: as on a
// machine with a driver and no GPU. Before the first configure(): two of DeviceConfig, or what
// BARKRT_EMULATED_DEVICES says: "COUNT[:MIB[:MAJOR.MINOR]]", with the fatal kernels that
// BARKRT_EMULATED_LOSSES says: "DEVICE:KERNEL[,DEVICE:KERNEL]".
void configure(const std::vector<DeviceConfig>& devices);
// As on a machine without a driver.
void configure_without_driver();

// The n-th (1 is the next) call named `call` fails with `error` and does nothing; "" counts every
// call. Stands until it has struck; a second one replaces it.
void fail_call(const std::string& call, int n, cudaError_t error);
// Every later call that concerns the device returns `error`.
void lose_device(int device, cudaError_t error);

// Whether the device has a context: since its first call that is more than a question about it.
bool has_context(int device);

struct Counters {
  int64_t launches = 0;  // kernels that ran, those of graphs included
  int64_t graph_launches = 0;
  int64_t host_to_device = 0, device_to_host = 0;  // copies that ran
  int64_t host_to_device_bytes = 0, device_to_host_bytes = 0;
  int64_t allocations = 0;   // that live, on the device
  int64_t pinned_bytes = 0;  // of the host, that live
};
Counters counters(int device);
void reset_counters();

// What the detectors found since the last call, in words; a test that ends with some fails
// (fail_on_reports.cc). In a program that takes none, BARKRT_EMULATED_ABORT ends the process at the
// first one.
std::vector<std::string> take_reports();

}  // namespace emulation
