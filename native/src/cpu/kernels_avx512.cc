// kernels_avx512.cc: sixteen lanes with AVX-512 F, BW, DQ and VL (x86-64-v4). Compiled three times:
// so, with VNNI, and with VNNI and BF16.
#include "cpu/kernels.h"

#include <immintrin.h>
#include <string.h>

namespace barkrt {
namespace {

constexpr int kLanes = 16;
typedef float Vec __attribute__((vector_size(64)));
typedef uint32_t VecBits __attribute__((vector_size(64)));

// v stays in a register: GCC reads memory again for every use otherwise.
inline void keep(Vec& v) { __asm__("" : "+v"(v)); }
inline Vec splat(float s) { return _mm512_set1_ps(s); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
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
inline void turn(__m512i* v) {
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

// out[j][i] = in[i][j], 16 x 16.
inline void transpose(float* out, int64_t out_stride, const float* in, int64_t in_stride) {
  __m512i v[16];
  for (int64_t i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(in + i * in_stride);
  turn(v);
  for (int64_t j = 0; j < 16; ++j) _mm512_storeu_si512(out + j * out_stride, v[j]);
}

#include "cpu/kernels_x86.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_linear.inc"
#include "cpu/kernels_attention.inc"
#include "cpu/kernels_rowwise.inc"

#if defined(__AVX512BF16__)
#include "cpu/kernels_attention_pairs.inc"
#else
constexpr decltype(Kernels::pack_pairs) pack_pairs = nullptr;
constexpr decltype(Kernels::attention_pairs) attention_pairs = nullptr;
#endif
#if defined(__AVX512VNNI__)
#include "cpu/kernels_panel.inc"
#include "cpu/kernels_panel_i8.inc"
#if defined(__AVX512BF16__)
#include "cpu/kernels_panel_bf16.inc"
#endif

int64_t packed_row_bytes(int32_t type, int64_t k) {
  if (type == kKernelI8) return PackedI8(k).row_bytes;
#if defined(__AVX512BF16__)
  if (type == kKernelBF16) return bf16_row_bytes(k);
#endif
  return 0;
}

void pack_row(void* row, const float* x, int64_t k, int32_t type) {
#if defined(__AVX512BF16__)
  if (type == kKernelBF16) return round_row(static_cast<char*>(row), x, k);
#endif
  (void)type;
  quantise_row(static_cast<char*>(row), x, k);
}

void linear_of_any(const LinearTile& tile) {
  if (tile.packed == nullptr) return linear(tile);
#if defined(__AVX512BF16__)
  if (tile.type == kKernelBF16) return linear_bf16(tile);
#endif
  linear_i8(tile);
}
#else
void linear_of_any(const LinearTile& tile) { linear(tile); }
int64_t packed_row_bytes(int32_t, int64_t) { return 0; }
void pack_row(void*, const float*, int64_t, int32_t) {}
#endif

}  // namespace

#if defined(__AVX512BF16__)
const Kernels kKernelsAvx512Bf16 = {"avx512_bf16",
#elif defined(__AVX512VNNI__)
const Kernels kKernelsAvx512Vnni = {"avx512_vnni",
#else
const Kernels kKernelsAvx512 = {"avx512",
#endif
                                    kLanes,
                                    linear_of_any,
                                    packed_row_bytes,
                                    pack_row,
                                    attention,
                                    pack_pairs,
                                    attention_pairs,
                                    to_f16,
                                    to_bf16,
                                    to_i8,
                                    add_row,
                                    layernorm,
                                    gelu,
                                    elu,
                                    add,
                                    lstm_cells};

}  // namespace barkrt
