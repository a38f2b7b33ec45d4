// amx_tiles.h: the AMX instructions that the kernels use. A tile is 16 rows of 64 bytes. Functions
// take the numbers of tiles, 0 to 7, as template arguments: the compilers' own intrinsics want
// literals. All have internal linkage (kernels.h).
//
// Between configure_tiles() and release_tiles() a thread has tiles, and the kernel saves 8 KB more
// of it at a switch.
#pragma once

#include <stdint.h>

namespace barkrt {
namespace {

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Eight whole tiles of zeros.
inline void configure_tiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = 16;
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}
inline void release_tiles() { __asm__ volatile("tilerelease"); }

template <int T>
inline void zero_tile() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
}
// Rows lie `stride` bytes apart.
template <int T>
inline void load_tile(const void* p, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void store_tile(void* p, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
}

// C[i][j] += sum over words k and the signed bytes in them of A[i][k] B[k][j], in 32 bits.
template <int C, int A, int B>
inline void add_products_of_bytes() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
// As floats, of pairs of bf16: from zero the first numbers of the sixteen words are added one after
// the other, and so are the second ones, each time a product and an addition rounded together to
// nearest even; then both sums to each other, and that to C. Denormal numbers, given or made, are
// 0.
template <int C, int A, int B>
inline void add_products_of_pairs() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace
}  // namespace barkrt
