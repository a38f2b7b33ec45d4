// fake_cublaslt.h: how cuda_cublaslt_test.cc steers the stand-in for NVIDIA's library, a shared
// object of its own that is opened as the real one is.
#pragma once

#include <cublasLt.h>

#include <atomic>
#include <string>

struct FakeCublasLt {
  // From the test, which has the emulated runtime: work in the order of a stream, and host memory
  // that may be copied from in that order.
  void (*later)(cudaStream_t stream, void (*work)(void*), void* data) = nullptr;
  void (*copy_later)(cudaStream_t stream, void* to, const void* from, size_t bytes) = nullptr;
  void* (*pinned)(size_t bytes) = nullptr;

  bool refuses_shapes = false;                                        // no algorithm is found
  cublasStatus_t status_of_create = CUBLAS_STATUS_SUCCESS;            // of cublasLtCreate
  cublasStatus_t status_of_matmul = CUBLAS_STATUS_SUCCESS;            // of cublasLtMatmul
  std::atomic<int> creates{0}, heuristics{0}, matmuls{0}, living{0};  // calls; descriptors
};

// The name under which the test finds it.
extern "C" FakeCublasLt* fake_cublaslt();
