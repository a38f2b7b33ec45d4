// kernels_avx2.cc: eight lanes with AVX2, FMA and F16C (x86-64-v3).
#include "cpu/kernels.h"

#include <immintrin.h>
#include <string.h>

namespace barkrt {
namespace {

constexpr int kLanes = 8;
typedef float Vec __attribute__((vector_size(32)));
typedef uint32_t VecBits __attribute__((vector_size(32)));

inline void keep(Vec&) {}
inline Vec splat(float s) { return _mm256_set1_ps(s); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec load_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec load_bf16(const uint16_t* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
inline Vec load_i8(const int8_t* p) {
  const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}
inline void store_f16(uint16_t* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

// v added up to four lanes: halves.
inline __m128 fold(Vec v) {
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
inline float max_lanes(Vec v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

#include "cpu/kernels_x86.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_linear.inc"
#include "cpu/kernels_attention.inc"
#include "cpu/kernels_rowwise.inc"

int64_t packed_row_bytes(int32_t, int64_t) { return 0; }

}  // namespace

const Kernels kKernelsAvx2 = {
    "avx2",  kLanes, linear,  packed_row_bytes, nullptr, attention, nullptr, nullptr,   to_f16,
    to_bf16, to_i8,  add_row, layernorm,        gelu,    elu,       add,     lstm_cells};

}  // namespace barkrt
