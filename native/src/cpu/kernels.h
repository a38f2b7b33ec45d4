// kernels.h: the arithmetic of the CPU backend, once per instruction set.
//
// The kernels_*.inc files are compiled into kernels_generic.cc, twice into kernels_avx2.cc and four
// times into kernels_avx512.cc, each with its own flags; backend.cc picks one table at run time.
// Everything here is plain data: an inline function or template shared with the rest of the library
// could be emitted with AVX instructions in it and then be chosen by the linker for all callers.
//
// Results of different tables differ in the last bits (lanes add in another order), and more where
// a table rounds x to the precision of its instructions: to 8 bits a block of 64 beside 8-
// and 4-bit weights (avx2_vnni, and avx512_vnni and up: with the same bits in all), to bf16 beside
// bf16 weights (avx512_bf16 and avx512_amx, each in an order of its own). Within one table they
// depend on nothing but the row's own inputs.
#pragma once

#include <stdint.h>

namespace barkrt {

// Storage types the kernels read; values equal DType.
enum KernelType : int32_t {
  kKernelF32 = 0,
  kKernelF16 = 1,
  kKernelBF16 = 2,
  kKernelI8 = 3,
  kKernelI4 = 5,
  kKernelI8Tiles = 6
};

// Tiles of 8- and 4-bit weights: values equal those of tensor.h.
constexpr int64_t kTileOutputs = 16, kTileColumns = 64, kTileBytesI8 = 1024, kTileBytesI4 = 576;
constexpr int64_t kTileNumbers = 512;  // of 4 bits: bytes of numbers, in front of the scales

// Rows t0 .. t1-1 and outputs n0 .. n1-1 of
// out[t][n] = (sum_k x[t][k] * w[n][k]) * scale[n] + bias[n % bias_period] + add[t][n].
struct LinearTile {
  float* out;  // (T, N)
  int64_t out_stride;
  const float* x;  // (T, K)
  int64_t x_stride;
  const void* packed;  // (T) rows as pack_row() makes them, packed_row_bytes() apart; or NULL
  bool grouped;        // packed rows in groups, as turn_group() makes them; then t0 begins one
  void* panel;         // panel_bytes(), with packed rows that are not grouped
  const void* w;  // (N, K), contiguous; in tiles (tensor.h) n0 is a multiple of 16, so is n1 of I4
  int32_t type;
  int64_t k;
  const float* scale;  // (N) or NULL
  const float* bias;   // (bias_period) or NULL
  int64_t bias_period;
  const float* add;  // (T, N) or NULL; may be out
  int64_t add_stride;
  int64_t t0, t1, n0, n1;
  bool gelu;         // out is the GELU of that
  const void* next;  // read after this tile, so its beginning is fetched at the end; or NULL
};

// Rows of one head: out[r] = softmax(q[r] . k[j] * scale) v[j] over j in 0 .. n_keys[r]-1. n_keys
// does not fall from row to row.
struct AttentionTile {
  float* out;  // (R, D)
  int64_t out_stride;
  const float* q;  // (R, D)
  int64_t q_stride;
  const int32_t* n_keys;  // (R)
  int64_t rows;           // at most kAttentionRows
  const void* k;          // (n_ctx, D), F16, BF16, F32 or I8
  const void* v;
  const float* k_scale;  // (n_ctx), only when type is I8
  const float* v_scale;
  int32_t type;
  int64_t head_dim;
  float scale;
  // Keys read after this tile, whose beginning may be fetched, and their scales, if they have such.
  const void* next;
  const float* next_scale;
  float* scratch;  // attention_scratch_floats(most keys, head_dim)
};
constexpr int64_t kAttentionRows = 96;
constexpr int64_t kAttentionKeys = 32;  // keys converted at a time
constexpr int64_t kMaxLanes = 16;

constexpr int64_t round_to_lanes(int64_t n) { return (n + kMaxLanes - 1) / kMaxLanes * kMaxLanes; }
// Scores of all rows, padded queries and outputs, and one tile of keys or values.
constexpr int64_t attention_scratch_floats(int64_t n_keys, int64_t head_dim) {
  return kAttentionRows * (round_to_lanes(n_keys) + kAttentionKeys) +
         (2 * kAttentionRows + kAttentionKeys) * round_to_lanes(head_dim);
}

// Outputs whose weights lie turned beside each other while packed rows meet them.
constexpr int64_t kPanelOutputs = 32;
constexpr int64_t panel_bytes(int64_t weight_row_bytes) {
  return kPanelOutputs * ((weight_row_bytes + 63) / 64 * 64);
}

constexpr int64_t kGroupRows = 16;  // of packed rows that are turned together

struct Kernels {
  const char* name;
  int32_t lanes;
  void (*linear)(const LinearTile& tile);
  // Size of a row of x in the form that linear wants with weights of this type; 0: as it is.
  int64_t (*packed_row_bytes)(int32_t type, int64_t k);
  void (*pack_row)(void* packed, const float* x, int64_t k, int32_t type);
  // Whether linear wants that many packed rows of a product in groups of kGroupRows, the last one
  // filled up with rows of zeros, each group then made ready in place; NULL: never.
  bool (*wants_groups)(int32_t type, int64_t rows);
  void (*turn_group)(void* rows, int64_t row_bytes, int32_t type);
  void (*attention)(const AttentionTile& tile);
  // Attention by products of bf16 pairs, NULL where there are none: of rows that all see the same
  // keys, with a head_dim that is a multiple of pair_channels and an n_ctx that is one of 32.
  // pack_pairs puts `count` rows of one head, from a multiple of 32 on, into keys and values, each
  // 32 * head_dim numbers of bf16 in an order of its own, which attention_pairs reads.
  void (*pack_pairs)(void* keys, void* values, const float* k, const float* v, int64_t stride,
                     int64_t count, int64_t head_dim);
  void (*attention_pairs)(const AttentionTile& tile);
  int64_t pair_channels;
  // dst[i] = src[i] rounded to nearest even.
  void (*to_f16)(uint16_t* dst, const float* src, int64_t n);
  void (*to_bf16)(uint16_t* dst, const float* src, int64_t n);
  // dst[i] = src[i] / scale, with scale = max|src| / 127, which is returned; NaN when a number is
  // not finite.
  float (*to_i8)(int8_t* dst, const float* src, int64_t n);
  // out[i] = (first ? 0 : out[i]) + scale * row[i].
  void (*add_row)(float* out, const void* row, int32_t type, float scale, int64_t n, bool first);
  void (*layernorm)(float* out, const float* x, const float* gamma, const float* beta, int64_t n);
  void (*elu)(float* out, const float* x, int64_t n);
  void (*add)(float* out, const float* x, int64_t n);
  // Cells begin .. end-1 of H: gates is (4H), i f g o; updates c and h, writes out.
  void (*lstm_cells)(float* out, float* h, float* c, const float* gates, int64_t hidden,
                     int64_t begin, int64_t end);
};

extern const Kernels kKernelsGeneric;
extern const Kernels kKernelsAvx2;
extern const Kernels kKernelsAvx2Vnni;  // products with 8-bit weights
extern const Kernels kKernelsAvx512;
extern const Kernels kKernelsAvx512Vnni;  // the same
extern const Kernels kKernelsAvx512Bf16;  // and with bf16 weights
extern const Kernels kKernelsAvx512Amx;   // both by tiles, where that is faster

}  // namespace barkrt
