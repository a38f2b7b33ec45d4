// tracing.h: every load and store of the kernels, where the .cu files are compiled with
// -fsanitize=thread: the calls that the compiler puts before each come to tracing.cc instead of
// ThreadSanitizer's own runtime.
#pragma once

#include <cstddef>

namespace emulation {

// Whether this program is such a build.
bool traced();
// What was reported once is reported again.
void report_again();

struct Device;
void open_history(Device& device);
void close_history(Device& device);
// The memory p .. p+bytes of the device is as new; is written by the host's order; holds what
// `from`, of a device too, holds.
void forget(const void* p, size_t bytes);
void define(const void* p, size_t bytes);
void define_as(const void* p, const void* from, size_t bytes);

}  // namespace emulation
