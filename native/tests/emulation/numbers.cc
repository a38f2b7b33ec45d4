// numbers.cc: 16-bit floating point.
#include <array>
#include <cmath>
#include <cstring>

#include "emulation/thread.h"

namespace emulation {
namespace {

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

float f16_value(uint32_t bits) {
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return float_of((bits & 0x8000) << 16 | 0x7f800000 | fraction << 13);
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
}

// The upper bits of x without its `drop` lowest, to nearest even.
uint32_t shorten(uint32_t x, unsigned drop) {
  const uint32_t half = uint32_t{1} << (drop - 1), rest = x & (2 * half - 1);
  const uint32_t kept = x >> drop;
  return kept + (rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0);
}

}  // namespace

float f16_to_float(uint16_t bits) {
  static const std::array<float, 65536> table = [] {
    std::array<float, 65536> t;
    for (uint32_t i = 0; i < t.size(); ++i) t[i] = f16_value(i);
    return t;
  }();
  return table[bits];
}

uint16_t float_to_f16(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000)
    half = 0x7fff;  // NaN, as the device writes it
  else if (magnitude >= 0x477ff000)
    half = 0x7c00;  // 65520 and more
  else if (magnitude >= 0x38800000)
    half = shorten(magnitude - 0x38000000, 13);  // normal; a carry goes into the exponent
  else if (magnitude >= 0x33000000)
    half = shorten((magnitude & 0x7fffff) | 0x800000, 126 - (magnitude >> 23));
  else
    half = 0;
  return static_cast<uint16_t>((half == 0x7fff ? 0 : sign) | half);
}

float bf16_to_float(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

uint16_t float_to_bf16(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return static_cast<uint16_t>(shorten(bits, 16));
}

}  // namespace emulation
