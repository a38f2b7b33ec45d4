// kernels_avx512.cc: sixteen lanes with AVX-512 F, BW, DQ and VL (x86-64-v4). Compiled four times:
// so, with VNNI, with VNNI and BF16, and with AMX beside them; once more for the tests, with tiles
// that are imitated.
#include "cpu/kernels.h"

#include <immintrin.h>
#include <string.h>

#if defined(BARKRT_IMITATED_TILES)
#include "amx_imitation.h"
#elif defined(BARKRT_TILES)
#include "cpu/amx_tiles.h"
#endif

namespace barkrt {
namespace {

constexpr int kLanes = 16;
typedef float Vec __attribute__((vector_size(64)));
typedef uint32_t VecBits __attribute__((vector_size(64)));
typedef __m512i Words;

// v stays in a register: GCC reads memory again for every use otherwise.
inline void keep(Vec& v) { __asm__("" : "+v"(v)); }
inline Vec splat(float s) { return _mm512_set1_ps(s); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // a > b ? a : b
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
// To nearest even.
inline Vec nearest(Vec v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^n * s, n whole.
inline Vec scale_by_power(Vec s, Vec n) { return _mm512_scalef_ps(s, n); }
inline Vec load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec load_bf16(const uint16_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
inline Vec load_i8(const int8_t* p) {
  const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
}
inline VecBits load_u8(const uint8_t* p) {
  return (VecBits)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// Four floats again and again, and each of kLanes / 4 floats four times.
inline Vec repeat4(const float* p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
inline Vec each4(const float* p) {
  const __m512i at = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(at, repeat4(p));
}
inline void store_f16(uint16_t* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

// v added up to four lanes: halves, then quarters.
inline __m128 fold(Vec v) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline float max_lanes(Vec v) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// v[i] word j becomes v[j] word i.
inline void turn(Words* v) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

#include "cpu/kernels_x86.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_linear_tiles.inc"
#include "cpu/kernels_linear.inc"
#include "cpu/kernels_attention.inc"
#include "cpu/kernels_rowwise.inc"

#if defined(__AVX512BF16__)
#include "cpu/kernels_attention_pairs.inc"
#else
constexpr decltype(Kernels::pack_pairs) pack_pairs = nullptr;
constexpr decltype(Kernels::attention_pairs) attention_pairs = nullptr;
constexpr int64_t kPairChannels = 0;
#endif
#if defined(__AVX512VNNI__)
// What panels want to know of vectors.
typedef __mmask16 Mask;  // of lanes
inline Mask first_lanes(int64_t n) {
  return static_cast<Mask>(n >= kLanes ? 0xffff : n > 0 ? (1 << n) - 1 : 0);
}
inline Vec load_lanes(Mask lanes, const float* p) { return _mm512_maskz_loadu_ps(lanes, p); }
inline void store_lanes(float* p, Mask lanes, Vec v) { _mm512_mask_storeu_ps(p, lanes, v); }
inline Mask finite_lanes(Vec v) {
  return static_cast<Mask>(~_mm512_fpclass_ps_mask(v, 0x99));  // infinite or not a number
}
inline bool all_lanes(Mask lanes) { return lanes == 0xffff; }
// To nearest even; 0 in the other lanes.
inline VecInt rounded(Mask lanes, Vec v) { return (VecInt)_mm512_maskz_cvtps_epi32(lanes, v); }
inline void store_i8(char* p, VecInt v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8((__m512i)v));
}
inline int32_t sum_lanes(VecInt v) { return _mm512_reduce_add_epi32((__m512i)v); }
// The first n < 64 bytes, zeros behind.
inline Words load_bytes(const void* p, int64_t n) {
  return _mm512_maskz_loadu_epi8((__mmask64{1} << n) - 1, p);
}

// acc + products of unsigned a and signed b. The builtin's vectors are of another type, and GCC 12
// then stores every sum in a loop over rows.
inline VecInt add_products_i8(VecInt acc, Words a, Words b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
  return acc;
}

#include "cpu/kernels_panel.inc"
#include "cpu/kernels_panel_i8.inc"
#include "cpu/kernels_panel_i4.inc"
#if defined(__AVX512BF16__)
#include "cpu/kernels_panel_bf16.inc"
#endif
#if defined(BARKRT_TILES)
#include "cpu/kernels_panel_tiles.inc"

// bf16 whatever the number of rows, whose bits must not depend on it.
bool wants_groups(int32_t type, int64_t rows) {
  return type == kKernelBF16 || (type == kKernelI8Tiles && rows >= kGroupRows);
}
#endif

int64_t packed_row_bytes(int32_t type, int64_t k) {
  if (type == kKernelI8 || type == kKernelI8Tiles) return PackedI8(k).row_bytes;
  if (type == kKernelI4) return PackedI4(k).row_bytes;
#if defined(__AVX512BF16__)
  if (type == kKernelBF16) return bf16_row_bytes(k);
#endif
  return 0;
}

void pack_row(void* row, const float* x, int64_t k, int32_t type) {
#if defined(__AVX512BF16__)
  if (type == kKernelBF16) return round_row(static_cast<char*>(row), x, k);
#endif
  if (type == kKernelI4) return quantise_row_i4(static_cast<char*>(row), x, k);
  quantise_row(static_cast<char*>(row), x, k);
}

void linear_of_any(const LinearTile& tile) {
  if (tile.packed == nullptr) return linear(tile);
#if defined(BARKRT_TILES)
  if (tile.type == kKernelBF16) return linear_by_tiles<AmxBf16>(tile);
  if (tile.grouped) return linear_by_tiles<AmxI8>(tile);
#elif defined(__AVX512BF16__)
  if (tile.type == kKernelBF16) return linear_bf16(tile);
#endif
  if (tile.type == kKernelI4) return linear_i4_packed(tile);
  linear_i8_packed(tile);
}
#else
void linear_of_any(const LinearTile& tile) { linear(tile); }
int64_t packed_row_bytes(int32_t, int64_t) { return 0; }
void pack_row(void*, const float*, int64_t, int32_t) {}
#endif
#if !defined(BARKRT_TILES)
constexpr decltype(Kernels::wants_groups) wants_groups = nullptr;
constexpr decltype(Kernels::turn_group) turn_group = nullptr;
#endif

}  // namespace

#if defined(BARKRT_IMITATED_TILES)
extern const Kernels kKernelsImitatedAmx;
const Kernels kKernelsImitatedAmx = {
    "imitated_amx",
#elif defined(BARKRT_TILES)
const Kernels kKernelsAvx512Amx = {
    "avx512_amx",
#elif defined(__AVX512BF16__)
const Kernels kKernelsAvx512Bf16 = {
    "avx512_bf16",
#elif defined(__AVX512VNNI__)
const Kernels kKernelsAvx512Vnni = {
    "avx512_vnni",
#else
const Kernels kKernelsAvx512 = {
    "avx512",
#endif
    kLanes,         linear_of_any, packed_row_bytes, pack_row,      wants_groups, turn_group,
    attention,      pack_pairs,    attention_pairs,  kPairChannels, to_f16,       to_bf16,
    to_i8,          add_row,       layernorm,        elu,           add,          lstm_cells};

}  // namespace barkrt
