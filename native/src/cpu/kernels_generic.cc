// kernels_generic.cc: four lanes, for any processor (SSE2 on x86-64, NEON on ARM64).
#include "cpu/kernels.h"

#include <string.h>
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace barkrt {
namespace {

constexpr int kLanes = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef uint32_t VecBits __attribute__((vector_size(16)));
typedef VecBits Words;

inline void keep(Vec&) {}
inline Vec splat(float s) { return Vec{s, s, s, s}; }
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;  // two roundings: x86-64 without AVX has no fused form
#endif
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
// To nearest even, below 2^22.
inline Vec nearest(Vec v) {
  const Vec rounder = splat(0x1.8p23f);
  return (v + rounder) - rounder;
}

inline Vec to_vec(VecBits bits) {
  Vec out;
  memcpy(&out, &bits, sizeof out);
  return out;
}

// Half precision by integer arithmetic: exponent and fraction move into place, 2^112 corrects the
// bias and normalises subnormals, and the top exponent becomes that of inf and NaN.
inline Vec load_f16(const uint16_t* p) {
  const VecBits h = {p[0], p[1], p[2], p[3]};
  const VecBits magnitude = (h & 0x7fffu) << 13;
  const VecBits value = (VecBits)(to_vec(magnitude) * 0x1p112f);
  const VecBits special = (VecBits)(magnitude >= 0x0f800000u) & 0x7f800000u;
  return to_vec(value | special | (h & 0x8000u) << 16);
}
inline Vec load_bf16(const uint16_t* p) {
  const VecBits h = {p[0], p[1], p[2], p[3]};
  return to_vec(h << 16);
}
inline Vec load_i8(const int8_t* p) {
  return Vec{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
             static_cast<float>(p[3])};
}

inline VecBits load_u8(const uint8_t* p) { return VecBits{p[0], p[1], p[2], p[3]}; }
// Four floats again and again, and each of kLanes / 4 floats four times.
inline Vec repeat4(const float* p) { return Vec{p[0], p[1], p[2], p[3]}; }
inline Vec each4(const float* p) { return splat(*p); }

inline uint16_t f16_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  const uint32_t sign = u >> 16 & 0x8000;
  uint32_t a = u & 0x7fffffff;
  if (a > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (a >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above round to inf
  if (a < 0x38800000) {  // subnormal: beside 0.5 the last place of a float is 2^-24
    float m;
    memcpy(&m, &a, 4);
    m += 0.5f;
    memcpy(&a, &m, 4);
    return static_cast<uint16_t>(sign | (a - 0x3f000000));
  }
  a += 0xfff + (a >> 13 & 1);  // half of the last place, ties to even
  return static_cast<uint16_t>(sign | ((a - 0x38000000) >> 13));
}
inline void store_f16(uint16_t* p, Vec v) {
  for (int i = 0; i < kLanes; ++i) p[i] = f16_bits(v[i]);
}

inline float sum_lanes(Vec v) { return (v[0] + v[1]) + (v[2] + v[3]); }
inline float max_lanes(Vec v) {
  const float a = v[0] > v[1] ? v[0] : v[1];
  const float b = v[2] > v[3] ? v[2] : v[3];
  return a > b ? a : b;
}
// out[i] = sum_lanes(v_i), by a transposition.
inline void sum_lanes4(float* out, Vec v0, Vec v1, Vec v2, Vec v3) {
  const Vec a = {v0[0], v1[0], v2[0], v3[0]}, b = {v0[1], v1[1], v2[1], v3[1]};
  const Vec c = {v0[2], v1[2], v2[2], v3[2]}, d = {v0[3], v1[3], v2[3], v3[3]};
  const Vec sum = (a + b) + (c + d);
  memcpy(out, &sum, sizeof sum);
}

// v[i] word j becomes v[j] word i.
inline void turn(Words* v) {
  const Words a = v[0], b = v[1], c = v[2], d = v[3];
  for (int j = 0; j < 4; ++j) v[j] = Words{a[j], b[j], c[j], d[j]};
}

#include "cpu/kernels_math.inc"
#include "cpu/kernels_linear_tiles.inc"
#include "cpu/kernels_linear.inc"
#include "cpu/kernels_attention.inc"
#include "cpu/kernels_rowwise.inc"

int64_t packed_row_bytes(int32_t, int64_t) { return 0; }

}  // namespace

const Kernels kKernelsGeneric = {"generic", kLanes,    linear,  packed_row_bytes, nullptr, nullptr,
                                 nullptr,   attention, nullptr, nullptr,          0,       to_f16,
                                 to_bf16,   to_i8,     add_row, layernorm,        elu,     add,
                                 lstm_cells};

}  // namespace barkrt
