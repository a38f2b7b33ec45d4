// amx_imitation.h: in place of cpu/amx_tiles.h, the same instructions in plain C++, from the pages
// of Intel's manual for LDTILECFG, TILELOADD, TILESTORED, TDPBSSD and TDPBF16PS. What would be an
// invalid instruction ends the test.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace barkrt {
namespace {

struct ImitatedTile {
  union {
    int8_t bytes[16][64];
    int32_t words[16][16];
    uint32_t bits[16][16];
  };
};
thread_local bool tiles_configured = false;
thread_local ImitatedTile imitated_tiles[8];

inline void need_tiles() {
  if (tiles_configured) return;
  fprintf(stderr, "a tile instruction without a configuration\n");
  abort();
}

// Also what each thread does before it ends its work: one that is configured twice kept its tiles.
inline void configure_tiles() {
  if (tiles_configured) {
    fprintf(stderr, "tiles were not released\n");
    abort();
  }
  memset(imitated_tiles, 0, sizeof imitated_tiles);
  tiles_configured = true;
}
inline void release_tiles() {
  need_tiles();
  tiles_configured = false;
}

template <int T>
inline void zero_tile() {
  need_tiles();
  memset(&imitated_tiles[T], 0, sizeof(ImitatedTile));
}
template <int T>
inline void load_tile(const void* p, int64_t stride) {
  need_tiles();
  for (int i = 0; i < 16; ++i)
    memcpy(imitated_tiles[T].bytes[i], static_cast<const char*>(p) + i * stride, 64);
}
template <int T>
inline void store_tile(void* p, int64_t stride) {
  need_tiles();
  for (int i = 0; i < 16; ++i)
    memcpy(static_cast<char*>(p) + i * stride, imitated_tiles[T].bytes[i], 64);
}

template <int C, int A, int B>
inline void add_products_of_bytes() {
  static_assert(C != A && A != B && B != C, "an invalid instruction");
  need_tiles();
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 16; ++j)
        for (int byte = 0; byte < 4; ++byte)
          imitated_tiles[C].words[i][j] +=
              imitated_tiles[A].bytes[i][4 * k + byte] * imitated_tiles[B].bytes[k][4 * j + byte];
}

inline float imitated_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline float without_denormals(float value) {
  return __builtin_fabsf(value) < __FLT_MIN__ ? __builtin_copysignf(0.0f, value) : value;
}
inline float low_number(uint32_t pair) { return without_denormals(imitated_float(pair << 16)); }
inline float high_number(uint32_t pair) {
  return without_denormals(imitated_float(pair & 0xffff0000u));
}

template <int C, int A, int B>
inline void add_products_of_pairs() {
  static_assert(C != A && A != B && B != C, "an invalid instruction");
  need_tiles();
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      float first = 0, second = 0;
      for (int k = 0; k < 16; ++k) {
        const uint32_t a = imitated_tiles[A].bits[i][k], b = imitated_tiles[B].bits[k][j];
        first = without_denormals(__builtin_fmaf(low_number(a), low_number(b), first));
        second = without_denormals(__builtin_fmaf(high_number(a), high_number(b), second));
      }
      const float sum = without_denormals(first + second);
      const float c = without_denormals(imitated_float(imitated_tiles[C].bits[i][j]));
      const float total = without_denormals(c + sum);
      memcpy(&imitated_tiles[C].bits[i][j], &total, 4);
    }
}

}  // namespace
}  // namespace barkrt
