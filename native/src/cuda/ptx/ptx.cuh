// ptx.cuh: the instructions C++ has no word for: products on tensor cores, fragments from shared
// memory, copies from global to shared memory that run beside the arithmetic.
//
// All of a warp's 32 lanes call mma_* and ldmatrix_* together. Lane l is g = l / 4 and i = l % 4. A
// fragment register holds two 16-bit numbers, the one of the lower index in the lower half:
//   A (16 x 16)  a[0] A[g][2i, 2i+1]   a[1] A[g+8][2i, 2i+1]   a[2] A[g][2i+8, 2i+9]
//                a[3] A[g+8][2i+8, 2i+9]
//   B (16 x 8)   b[0] B[2i, 2i+1][g]   b[1] B[2i+8, 2i+9][g]
//   D (16 x 8)   d[0, 1] D[g][2i, 2i+1]   d[2, 3] D[g+8][2i, 2i+1]
//
// The tests' emulation has the same functions in plain C++
// (native/tests/emulation/include/ptx.cuh).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace barkrt::cuda {

// d += a * b; f16 operands, f32 sums.
__device__ __forceinline__ void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

// d += a * b; bf16 operands, f32 sums. Compute capability 8.0 and later; traps before.
__device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  (void)d, (void)a, (void)b;
  __trap();
#endif
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Matrices of 8 x 8 16-bit numbers from shared memory: lane l gives the address of row l % 8 of
// matrix l / 8, 16 bytes, 16-byte aligned; r[m] is M[g][2i, 2i+1] of matrix m. Lanes past the last
// matrix give valid addresses too.
__device__ __forceinline__ void ldmatrix_x1(uint32_t r[1], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t r[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared_row))
               : "memory");
}

// The same, transposed: r[m] is M[2i, 2i+1][g].
__device__ __forceinline__ void ldmatrix_x1_trans(uint32_t r[1], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t r[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared_row))
               : "memory");
}

// Starts a copy of 16, 8 or 4 bytes, both ends aligned to as many; where not valid it writes zeros
// and does not read. Done after copy_async_wait() of its group, visible to the thread that started
// it; to the block after a __syncthreads() as well. Before compute capability 8.0 it is an ordinary
// copy.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_8(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 8 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 4 : 0)
               : "memory");
}
// Closes the calling thread's group of copies.
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most the calling thread's N latest groups are under way.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : uint4{};
}
__device__ __forceinline__ void copy_async_8(void* shared, const void* global, bool valid) {
  *static_cast<uint2*>(shared) = valid ? *static_cast<const uint2*>(global) : uint2{};
}
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
  *static_cast<uint32_t*>(shared) = valid ? *static_cast<const uint32_t*>(global) : 0u;
}
__device__ __forceinline__ void copy_async_commit() {}
template <int N>
__device__ __forceinline__ void copy_async_wait() {}
#endif

}  // namespace barkrt::cuda
