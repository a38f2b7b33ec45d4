// ptx.cuh: the functions of native/src/cuda/ptx/ptx.cuh in plain C++, for the emulation. Fragments
// are spread over the lanes as the PTX ISA says, so that a kernel that mistakes the layout computes
// wrong numbers here too. Copies land when they are waited for; until then their place holds NaNs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace barkrt::cuda {

namespace fragments {

struct Operands {
  uint32_t a[4], b[2];
};
struct Row {
  uint16_t value[8];
};

inline uint16_t half_of(uint32_t two, int index) {
  return static_cast<uint16_t>(index == 0 ? two : two >> 16);
}

// A[row][k] and B[k][column] from the registers of the lanes that hold them.
inline uint16_t a_at(const Operands* lanes, int row, int k) {
  const Operands& lane = lanes[row % 8 * 4 + k % 8 / 2];
  return half_of(lane.a[row / 8 + k / 8 * 2], k % 2);
}
inline uint16_t b_at(const Operands* lanes, int k, int column) {
  const Operands& lane = lanes[column * 4 + k % 8 / 2];
  return half_of(lane.b[k / 8], k % 2);
}

// Products of 16-bit numbers are exact in f32.
template <typename Value>
void mma(float d[4], const uint32_t a[4], const uint32_t b[2], const Value& value,
         const emulation::Site& site) {
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const Operands* lanes = emulation::exchange(mine, "mma", site);
  const int lane = emulation::lane();
  for (int r = 0; r < 4; ++r) {
    const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    for (int k = 0; k < 16; ++k) d[r] += value(a_at(lanes, row, k)) * value(b_at(lanes, k, column));
  }
}

template <int N, bool kTransposed>
void ldmatrix(uint32_t r[N], const void* shared_row, const emulation::Site& site) {
  emulation::check_shared(shared_row, 16, 16, "ldmatrix", site);
  const int lane = emulation::lane();
  Row mine = {};
  if (lane < 8 * N)
    for (int c = 0; c < 8; ++c) mine.value[c] = static_cast<const uint16_t*>(shared_row)[c];
  const Row* rows = emulation::exchange(mine, "ldmatrix", site);
  const int g = lane / 4, i = lane % 4;
  for (int m = 0; m < N; ++m) {
    const Row* matrix = rows + 8 * m;
    const uint32_t low = kTransposed ? matrix[2 * i].value[g] : matrix[g].value[2 * i];
    const uint32_t high = kTransposed ? matrix[2 * i + 1].value[g] : matrix[g].value[2 * i + 1];
    r[m] = low | high << 16;
  }
}

// T is as wide as the copy.
template <typename T>
void copy_async(void* shared, const void* global, bool valid, const emulation::Site& site) {
  emulation::check_shared(shared, sizeof(T), sizeof(T), "copy_async", site);
  if (valid) emulation::check_global(global, sizeof(T), sizeof(T), "copy_async", site);
  T nan;
  for (uint32_t& word : nan.word) word = 0x7fffffffu;
  *static_cast<T*>(shared) = nan;
  emulation::push_copy(shared, valid ? global : nullptr, sizeof(T));
}
template <int kWords>
struct alignas(4 * kWords) Words {
  uint32_t word[kWords];
};
template <typename T>
void land(void* shared, const void* global) {
  *static_cast<T*>(shared) = global != nullptr ? *static_cast<const T*>(global) : T{};
}

}  // namespace fragments

inline void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2],
                    const emulation::Site& site = {}) {
  fragments::mma(d, a, b, emulation::f16_to_float, site);
}
inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2],
                     const emulation::Site& site = {}) {
  emulation::require_capability(8, 0, "mma_bf16", site);
  fragments::mma(d, a, b, emulation::bf16_to_float, site);
}

inline void ldmatrix_x1(uint32_t r[1], const void* shared_row, const emulation::Site& site = {}) {
  fragments::ldmatrix<1, false>(r, shared_row, site);
}
inline void ldmatrix_x2(uint32_t r[2], const void* shared_row, const emulation::Site& site = {}) {
  fragments::ldmatrix<2, false>(r, shared_row, site);
}
inline void ldmatrix_x4(uint32_t r[4], const void* shared_row, const emulation::Site& site = {}) {
  fragments::ldmatrix<4, false>(r, shared_row, site);
}
inline void ldmatrix_x1_trans(uint32_t r[1], const void* shared_row,
                              const emulation::Site& site = {}) {
  fragments::ldmatrix<1, true>(r, shared_row, site);
}
inline void ldmatrix_x2_trans(uint32_t r[2], const void* shared_row,
                              const emulation::Site& site = {}) {
  fragments::ldmatrix<2, true>(r, shared_row, site);
}
inline void ldmatrix_x4_trans(uint32_t r[4], const void* shared_row,
                              const emulation::Site& site = {}) {
  fragments::ldmatrix<4, true>(r, shared_row, site);
}

inline void copy_async_16(void* shared, const void* global, bool valid,
                          const emulation::Site& site = {}) {
  fragments::copy_async<fragments::Words<4>>(shared, global, valid, site);
}
inline void copy_async_8(void* shared, const void* global, bool valid,
                         const emulation::Site& site = {}) {
  fragments::copy_async<fragments::Words<2>>(shared, global, valid, site);
}
inline void copy_async_4(void* shared, const void* global, bool valid,
                         const emulation::Site& site = {}) {
  fragments::copy_async<fragments::Words<1>>(shared, global, valid, site);
}
inline void copy_async_commit() { emulation::commit_copies(); }
template <int N>
void copy_async_wait() {
  emulation::Copy copy;
  while (emulation::next_copy(N, &copy)) {
    if (copy.bytes == 16) fragments::land<fragments::Words<4>>(copy.shared, copy.global);
    if (copy.bytes == 8) fragments::land<fragments::Words<2>>(copy.shared, copy.global);
    if (copy.bytes == 4) fragments::land<fragments::Words<1>>(copy.shared, copy.global);
  }
}

}  // namespace barkrt::cuda
