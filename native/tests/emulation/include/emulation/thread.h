// thread.h: what the running device thread asks of the emulation: who it is, barriers, values from
// the other lanes of its warp, shared memory, copies under way. Only kernels may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "emulation/vector_types.h"

namespace emulation {

// Where in the source a call stands: threads at different places do not meet.
struct Site {
  const char* file;
  int line;
  Site(const char* f = __builtin_FILE(), int l = __builtin_LINE()) : file(f), line(l) {}
};

int lane();  // of its warp

// Waits for all threads of the block; of the grid, in a cooperative launch.
void block_barrier(const Site& site);
void grid_barrier(const Site& site);
// Waits for the lanes of mask, which must be all that call it; orders memory among them.
void warp_barrier(uint32_t mask, const Site& site);

// Gives `bytes` (up to kLaneBytes) and returns what all lanes of the mask gave, lane l's at
// l * stride; good until the next but one exchange. Does not order memory.
constexpr int kLaneBytes = 32;
const void* exchange_bytes(const void* mine, size_t bytes, size_t stride, uint32_t mask,
                           const char* what, const Site& site);

template <typename T>
const T* exchange(const T& mine, const char* what, const Site& site, uint32_t mask = 0xffffffffu) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= kLaneBytes,
                "a lane gives up to kLaneBytes");
  return static_cast<const T*>(exchange_bytes(&mine, sizeof(T), sizeof(T), mask, what, site));
}

// The block's one object of `bytes` for the declaration `key`; filled with NaNs at its start.
void* block_shared(const void* key, size_t bytes, size_t align);
void* block_dynamic_shared();

// Complain unless p is in shared memory, in memory of this device, aligned to `align`.
void check_shared(const void* p, size_t bytes, size_t align, const char* what, const Site& site);
void check_global(const void* p, size_t bytes, size_t align, const char* what, const Site& site);
void require_capability(int major, int minor, const char* what, const Site& site);
// Tell the race detector.
void atomic_access(const void* p, size_t bytes);
void fence();

// Copies that the thread started. global is nullptr for zeros.
struct Copy {
  void* shared;
  const void* global;
  size_t bytes;
};
void push_copy(void* shared, const void* global, size_t bytes);
void commit_copies();
// Takes the oldest copy that is not of the `keep` latest groups; false when there is none.
bool next_copy(int keep, Copy* copy);

[[noreturn]] void trap(const Site& site);

float f16_to_float(uint16_t bits);
float bf16_to_float(uint16_t bits);
uint16_t float_to_f16(float x);   // to nearest even
uint16_t float_to_bf16(float x);  // to nearest even

}  // namespace emulation

// Of the thread that runs.
extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

#define BARKRT_SHARED(type, name)   \
  static const char name##_key = 0; \
  type& name =                      \
      *static_cast<type*>(::emulation::block_shared(&name##_key, sizeof(type), alignof(type)))
#define BARKRT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::emulation::block_dynamic_shared())
