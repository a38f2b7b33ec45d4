// host_views.h: a backend for the op tests, whose views are of host memory, over one whose views
// are not: before an op it copies to the device what the op may read or write, with the same
// strides, gaps, overlaps and history, and afterwards copies it back.
#pragma once

#include <memory>

#include "backend.h"

namespace barkrt {

// Alignment of addresses is kept up to 16 bytes; each stretch of memory ends where its block ends.
std::unique_ptr<Backend> make_host_views(std::unique_ptr<Backend> device);

}  // namespace barkrt
