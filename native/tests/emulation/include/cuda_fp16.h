// cuda_fp16.h: half precision for the emulation: storage and conversions to nearest even. The
// kernels calculate in f32: half arithmetic does not compile.
#pragma once

#include <cstdint>

#include "emulation/intrinsics.h"

struct __half_raw {
  unsigned short x;
};

struct alignas(2) __half {
  __half() = default;
  __half(float x) : bits_(emulation::float_to_f16(x)) {}
  __half(__half_raw raw) : bits_(raw.x) {}
  operator float() const { return emulation::f16_to_float(bits_); }
  operator __half_raw() const { return {bits_}; }

 private:
  uint16_t bits_;
};
using half = __half;
__half operator+(__half, __half) = delete;
__half operator-(__half, __half) = delete;
__half operator*(__half, __half) = delete;
__half operator/(__half, __half) = delete;

struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float2half2_rn(float x) { return {x, x}; }
inline __half2 __float22half2_rn(float2 x) { return {x.x, x.y}; }
inline float2 __half22float2(__half2 x) { return {x.x, x.y}; }
inline float __low2float(__half2 x) { return x.x; }
inline float __high2float(__half2 x) { return x.y; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 make_half2(__half x, __half y) { return {x, y}; }
inline unsigned short __half_as_ushort(__half x) { return static_cast<__half_raw>(x).x; }
inline __half __ushort_as_half(unsigned short x) { return __half_raw{x}; }
