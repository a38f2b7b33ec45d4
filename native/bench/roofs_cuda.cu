// roofs_cuda.cu: streaming reads and peak arithmetic of a CUDA device, by the instructions that the
// kernels use.
#include <ptx.cuh>

#include <algorithm>
#include <functional>

#include "cuda/common.cuh"
#include "roofs.h"

namespace barkrt::bench {
namespace {

using cuda::check;

constexpr int kRepetitions = kTrial ? 2 : 9;
constexpr int kThreads = 256;

// Each thread reads every n_threads-th 16 bytes, `turns` times over. What is read is never written
// anywhere, which the compiler cannot know.
__global__ void read_all(const uint4* data, int64_t n, int turns, unsigned* never) {
  unsigned sum = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int turn = 0; turn < turns; ++turn)
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
         i += step) {
      const uint4 v = data[i];
      sum ^= v.x ^ v.y ^ v.z ^ v.w ^ static_cast<unsigned>(turn);
    }
  if (sum == 0x12345678u) *never = sum;
}

constexpr int kChains =
    8;  // independent, more than latency times throughput with the warps there are

__global__ void multiply_add(int n, float x, float* never) {
  float sums[kChains] = {};
  for (int i = 0; i < n; ++i)
#pragma unroll
    for (int c = 0; c < kChains; ++c) sums[c] = fmaf(sums[c], x, x);
  float sum = 0;
  for (int c = 0; c < kChains; ++c) sum += sums[c];
  if (sum == 0.12345f) *never = sum;
}

template <bool kBf16>
__global__ void multiply_tiles(int n, unsigned bits, float* never) {
  float d[kChains][4] = {};
  const uint32_t a[4] = {bits, bits, bits, bits}, b[2] = {bits, bits};
  for (int i = 0; i < n; ++i)
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
      if constexpr (kBf16)
        cuda::mma_bf16(d[c], a, b);
      else
        cuda::mma_f16(d[c], a, b);
    }
  float sum = 0;
  for (int c = 0; c < kChains; ++c)
    for (int i = 0; i < 4; ++i) sum += d[c][i];
  if (sum == 0.12345f) *never = sum;
}

// Seconds of the fastest of some runs, by the device's own clock.
double best_seconds(const std::function<void()>& work) {
  cudaEvent_t start, stop;
  check(cudaEventCreate(&start), "cudaEventCreate");
  check(cudaEventCreate(&stop), "cudaEventCreate");
  float best = 1e30f;
  for (int r = 0; r < kRepetitions; ++r) {
    check(cudaEventRecord(start, nullptr), "cudaEventRecord");
    work();
    check(cudaEventRecord(stop, nullptr), "cudaEventRecord");
    check(cudaEventSynchronize(stop), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start, stop), "cudaEventElapsedTime");
    if (r > 0) best = std::min(best, ms);  // the first one warms up
  }
  check(cudaEventDestroy(start), "cudaEventDestroy");
  check(cudaEventDestroy(stop), "cudaEventDestroy");
  return static_cast<double>(best) * 1e-3;
}

}  // namespace

Roofs measure_cuda_roofs(int cuda_index) {
  check(cudaSetDevice(cuda_index), "cudaSetDevice");
  int n_multiprocessors = 0, major = 0;
  check(cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, cuda_index),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda_index),
        "cudaDeviceGetAttribute");
  size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  const int n_blocks = 8 * n_multiprocessors;
  void* never = nullptr;
  check(cudaMalloc(&never, 64), "cudaMalloc");

  Roofs roofs;
  roofs.device = "cuda:" + std::to_string(cuda_index);
  for (const int64_t megabytes : {4, 10, 20, 50, 110, 200, 400, 1000, 2000}) {
    const int64_t bytes = megabytes * 1000000;
    if (static_cast<size_t>(bytes) > free_bytes / 2 || (kTrial && megabytes > 10)) break;
    void* data = nullptr;
    check(cudaMalloc(&data, static_cast<size_t>(bytes)), "cudaMalloc");
    check(cudaMemset(data, 1, static_cast<size_t>(bytes)), "cudaMemset");
    const int turns = kTrial ? 1 : static_cast<int>(std::max<int64_t>(4000 / megabytes, 2));
    const double s = best_seconds([&] {
      cuda::launch(nullptr, dim3(n_blocks), dim3(kThreads), 0, read_all,
                   static_cast<const uint4*>(data), bytes / 16, turns,
                   static_cast<unsigned*>(never));
    });
    check(cudaFree(data), "cudaFree");
    roofs.reads.push_back({static_cast<double>(bytes), static_cast<double>(bytes * turns) / s});
  }
  constexpr int kSteps = kTrial ? 16 : 4096;
  const double n_threads = static_cast<double>(n_blocks) * kThreads;
  float* const nowhere = static_cast<float*>(never);
  const auto rate = [&](double operations, const std::function<void()>& work) {
    return operations * kSteps * kChains / best_seconds(work);
  };
  roofs.f32 = rate(2 * n_threads, [&] {
    cuda::launch(nullptr, dim3(n_blocks), dim3(kThreads), 0, multiply_add, kSteps, 0.5f, nowhere);
  });
  const double per_tile = 2.0 * 16 * 8 * 16;
  roofs.f16 = rate(per_tile * n_threads / cuda::kWarp, [&] {
    cuda::launch(nullptr, dim3(n_blocks), dim3(kThreads), 0, multiply_tiles<false>, kSteps, 0u,
                 nowhere);
  });
  roofs.i8 = roofs.f16;  // 8-bit weights are multiplied as halves
  if (major >= 8)
    roofs.bf16 = rate(per_tile * n_threads / cuda::kWarp, [&] {
      cuda::launch(nullptr, dim3(n_blocks), dim3(kThreads), 0, multiply_tiles<true>, kSteps, 0u,
                   nowhere);
    });
  check(cudaFree(never), "cudaFree");
  return roofs;
}

}  // namespace barkrt::bench
