// intrinsics.h: the device functions that the kernels use, in plain C++.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulation/thread.h"

inline void __syncthreads(const emulation::Site& site = {}) { emulation::block_barrier(site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, const emulation::Site& site = {}) {
  emulation::warp_barrier(mask, site);
}
inline void __threadfence() { emulation::fence(); }
inline void __threadfence_block() {}
[[noreturn]] inline void __trap(const emulation::Site& site = {}) { emulation::trap(site); }

// --- votes ---
inline unsigned __ballot_sync(unsigned mask, int predicate, const emulation::Site& site = {}) {
  const int* lanes = emulation::exchange(predicate, "__ballot_sync", site, mask);
  unsigned ballot = 0;
  for (unsigned l = 0; l < 32; ++l)
    if ((mask >> l & 1) != 0 && lanes[l] != 0) ballot |= 1u << l;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate, const emulation::Site& site = {}) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, const emulation::Site& site = {}) {
  return __ballot_sync(mask, predicate, site) == mask;
}

// --- shuffles: the value of another lane of the same `width` neighbours, the own one where there
// is none ---
namespace emulation {

template <typename T>
T shuffle(T value, int from, bool inside, const char* what, unsigned mask, const Site& site) {
  const T* lanes = exchange(value, what, site, mask);
  return inside ? lanes[from] : value;
}

}  // namespace emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, const emulation::Site& site = {}) {
  const int first = emulation::lane() & ~(width - 1);
  return emulation::shuffle(value, first | (from & (width - 1)), true, "__shfl_sync", mask, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  const emulation::Site& site = {}) {
  const int lane = emulation::lane(), from = lane ^ bits;
  const bool inside = from <= (lane | (width - 1)) && from < 32;
  return emulation::shuffle(value, from, inside, "__shfl_xor_sync", mask, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   const emulation::Site& site = {}) {
  const int lane = emulation::lane(), from = lane + static_cast<int>(by);
  const bool inside = from <= (lane | (width - 1));
  return emulation::shuffle(value, from, inside, "__shfl_down_sync", mask, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 const emulation::Site& site = {}) {
  const int lane = emulation::lane(), from = lane - static_cast<int>(by);
  const bool inside = from >= (lane & ~(width - 1));
  return emulation::shuffle(value, from, inside, "__shfl_up_sync", mask, site);
}

// --- atomics: one thread runs at a time, so plain operations do ---
namespace emulation {

template <typename T, typename F>
__attribute__((no_sanitize("thread"))) T atomic(T* p, const F& f) {
  atomic_access(p, sizeof(T));
  const T old = *p;
  *p = f(old);
  return old;
}

}  // namespace emulation

template <typename T>
T atomicAdd(T* p, T value) {
  return emulation::atomic(p, [value](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicSub(T* p, T value) {
  return emulation::atomic(p, [value](T old) { return static_cast<T>(old - value); });
}
template <typename T>
T atomicMax(T* p, T value) {
  return emulation::atomic(p, [value](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicMin(T* p, T value) {
  return emulation::atomic(p, [value](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicExch(T* p, T value) {
  return emulation::atomic(p, [value](T) { return value; });
}
template <typename T>
T atomicOr(T* p, T value) {
  return emulation::atomic(p, [value](T old) { return old | value; });
}
template <typename T>
T atomicAnd(T* p, T value) {
  return emulation::atomic(p, [value](T old) { return old & value; });
}
template <typename T>
T atomicCAS(T* p, T compare, T value) {
  return emulation::atomic(p, [=](T old) { return old == compare ? value : old; });
}

// --- loads and numbers ---
template <typename T>
T __ldg(const T* p, const emulation::Site& site = {}) {
  emulation::check_global(p, sizeof(T), alignof(T), "__ldg", site);
  return *p;
}
template <typename T>
T __ldcs(const T* p, const emulation::Site& site = {}) {
  emulation::check_global(p, sizeof(T), alignof(T), "__ldcs", site);
  return *p;
}
template <typename T>
T __ldcg(const T* p, const emulation::Site& site = {}) {
  emulation::check_global(p, sizeof(T), alignof(T), "__ldcg", site);
  return *p;
}

namespace emulation {

template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace emulation

inline int __float_as_int(float x) { return emulation::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return emulation::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return emulation::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return emulation::bits_as<float>(x); }

inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i)
    c += static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i);
  return c;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1) << (31 - i);
  return y;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __saturatef(float x) { return x > 0.0f ? std::fmin(x, 1.0f) : 0.0f; }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }

// CUDA declares these in the global namespace for device code.
// Byte i of the result is the one of low (0 .. 3) and high (4 .. 7) that digit i of `which` names.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(bytes >> (which >> 4 * i & 7) * 8 & 255) << 8 * i;
  return result;
}

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long long min(long long a, long long b) { return b < a ? b : a; }
inline long long max(long long a, long long b) { return a < b ? b : a; }
inline long min(long a, long b) { return b < a ? b : a; }
inline long max(long a, long b) { return a < b ? b : a; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
