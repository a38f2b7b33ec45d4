// kernels_avx2.cc: eight lanes with AVX2, FMA and F16C (x86-64-v3). Compiled twice: so, and with
// AVX-VNNI.
#include "cpu/kernels.h"

#include <immintrin.h>
#include <string.h>

namespace barkrt {
namespace {

constexpr int kLanes = 8;
typedef float Vec __attribute__((vector_size(32)));
typedef uint32_t VecBits __attribute__((vector_size(32)));
typedef __m256i Words;

inline void keep(Vec&) {}
inline Vec splat(float s) { return _mm256_set1_ps(s); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // a > b ? a : b
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
// To nearest even.
inline Vec nearest(Vec v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
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
inline VecBits load_u8(const uint8_t* p) {
  return (VecBits)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
// Four floats again and again, and each of kLanes / 4 floats four times.
inline Vec repeat4(const float* p) {
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
}
inline Vec each4(const float* p) {
  return _mm256_set_m128(_mm_broadcast_ss(p + 1), _mm_broadcast_ss(p));
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

// v[i] word j becomes v[j] word i.
inline void turn(Words* v) {
  Words t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) v[i] = t[i];
}

#include "cpu/kernels_x86.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_linear_tiles.inc"
#include "cpu/kernels_linear.inc"
#include "cpu/kernels_attention.inc"
#include "cpu/kernels_rowwise.inc"

#if defined(__AVXVNNI__)
// What panels want to know of vectors.
typedef VecInt Mask;  // of lanes: all bits of one, or none
inline Mask first_lanes(int64_t n) {
  const VecInt lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return lane < static_cast<int32_t>(at_most(n, kLanes));
}
inline Vec load_lanes(Mask lanes, const float* p) { return _mm256_maskload_ps(p, (Words)lanes); }
inline void store_lanes(float* p, Mask lanes, Vec v) { _mm256_maskstore_ps(p, (Words)lanes, v); }
inline Mask finite_lanes(Vec v) { return absolute(v) <= splat(__FLT_MAX__); }
inline bool all_lanes(Mask lanes) { return _mm256_movemask_ps((Vec)lanes) == 0xff; }
// To nearest even; 0 in the other lanes.
inline VecInt rounded(Mask lanes, Vec v) { return (VecInt)_mm256_cvtps_epi32(v) & lanes; }
inline void store_i8(char* p, VecInt v) {
  const Words words = _mm256_packs_epi32((Words)v, (Words)v);
  const Words bytes = _mm256_packs_epi16(words, words);
  const int32_t low = _mm256_extract_epi32(bytes, 0), high = _mm256_extract_epi32(bytes, 4);
  memcpy(p, &low, 4);
  memcpy(p + 4, &high, 4);
}
inline int32_t sum_lanes(VecInt v) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}
// The first n < 32 bytes, zeros behind.
inline Words load_bytes(const void* p, int64_t n) {
  Words v = {};
  memcpy(&v, p, static_cast<size_t>(n));
  return v;
}

// acc + products of unsigned a and signed b.
inline VecInt add_products_i8(VecInt acc, Words a, Words b) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
  return acc;
}

#include "cpu/kernels_panel.inc"
#include "cpu/kernels_panel_i8.inc"
#include "cpu/kernels_panel_i4.inc"

int64_t packed_row_bytes(int32_t type, int64_t k) {
  if (type == kKernelI4) return PackedI4(k).row_bytes;
  return type == kKernelI8 || type == kKernelI8Tiles ? PackedI8(k).row_bytes : 0;
}
void pack_row(void* row, const float* x, int64_t k, int32_t type) {
  if (type == kKernelI4) return quantise_row_i4(static_cast<char*>(row), x, k);
  quantise_row(static_cast<char*>(row), x, k);
}
void linear_of_any(const LinearTile& tile) {
  if (tile.packed == nullptr) return linear(tile);
  if (tile.type == kKernelI4) return linear_i4_packed(tile);
  linear_i8_packed(tile);
}
#else
constexpr decltype(Kernels::linear) linear_of_any = linear;
int64_t packed_row_bytes(int32_t, int64_t) { return 0; }
constexpr decltype(Kernels::pack_row) pack_row = nullptr;
#endif

}  // namespace

#if defined(__AVXVNNI__)
const Kernels kKernelsAvx2Vnni = {
    "avx2_vnni",
#else
const Kernels kKernelsAvx2 = {
    "avx2",
#endif
    kLanes,      linear_of_any, packed_row_bytes, pack_row, nullptr, nullptr,
    attention,   nullptr,       nullptr,          0,        to_f16,  to_bf16,
    to_i8,       add_row,       layernorm,        elu,      add,     lstm_cells};

}  // namespace barkrt
