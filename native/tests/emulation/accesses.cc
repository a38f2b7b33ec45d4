// accesses.cc: what kernels may touch, as far as a call says so itself.
#include "report.h"
#include "runtime.h"

namespace emulation {
namespace {

void require_aligned(const void* p, size_t align, const char* what, const Site& site) {
  if (reinterpret_cast<uintptr_t>(p) % align != 0)
    fault(cudaErrorMisalignedAddress,
          std::string(what) + " of an address not aligned to " + std::to_string(align), site);
}

}  // namespace

void check_shared(const void* p, size_t bytes, size_t align, const char* what, const Site& site) {
  const InEmulation here;
  require_aligned(p, align, what, site);
  const auto* at = static_cast<const std::byte*>(p);
  for (const SharedObject& object : current()->block->shared)
    if (at >= object.data.get() && at + bytes <= object.data.get() + object.bytes) return;
  fault(cudaErrorIllegalAddress, std::string(what) + " outside of the block's shared memory", site);
}

void check_global(const void* p, size_t bytes, size_t align, const char* what, const Site& site) {
  const InEmulation here;
  require_aligned(p, align, what, site);
  if (allocation_of(p, bytes) == nullptr)
    fault(cudaErrorIllegalAddress, std::string(what) + " outside of device memory", site);
}

}  // namespace emulation
