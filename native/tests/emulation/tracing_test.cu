// tracing_test.cu: what is seen of loads and stores in a build whose kernels are traced. Each test
// plants one fault; beside it stands the kernel without.
#include <cooperative_groups.h>

#include "launch_test.h"

namespace emulation {
namespace {

constexpr unsigned kThreads = 64;

class Tracing : public OnDevice {
 protected:
  void expect_reports(const std::string& word) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    const auto reports = take_reports();
    if (word.empty()) {
      for (const std::string& text : reports) ADD_FAILURE() << text;
      return;
    }
    ASSERT_FALSE(reports.empty()) << "no report of " << word;
    for (const std::string& text : reports) {
      EXPECT_NE(text.find(word), std::string::npos) << text;
      EXPECT_NE(text.find("tracing_test.cu:"), std::string::npos) << text;
    }
  }
};

using Row = float[kThreads];

__global__ void copy(float* out, const float* x) { out[threadIdx.x] = x[threadIdx.x]; }

template <bool kWait>
__global__ void turn(float* out) {
  BARKRT_SHARED(Row, row);
  row[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (kWait) __syncthreads();
  out[threadIdx.x] = row[kThreads - 1 - threadIdx.x];
}
TEST_F(Tracing, RaceBetweenBarriers) {
  float* out = device(Floats(kThreads));
  expect(launch(2, kThreads, 0, turn<false>, out + 0));
  // Blocks run one after another, and the threads that run later see what the first ones wrote.
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  bool undefined = false, race = false;
  for (const std::string& text : take_reports()) {
    undefined |= text.find("undefined shared memory") != std::string::npos;
    race |= text.find("race in shared memory") != std::string::npos;
  }
  EXPECT_TRUE(undefined && race);
  expect(launch(1, kThreads, 0, turn<true>, out));
  expect_reports("");
}

template <bool kWait>
__global__ void overwrite(float* out) {
  BARKRT_SHARED(Row, row);
  for (int i = 0; i < 2; ++i) {
    row[threadIdx.x] = static_cast<float>(threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = row[kThreads - 1 - threadIdx.x];
    if (kWait) __syncthreads();
  }
}
TEST_F(Tracing, StoreOverWhatOthersStillRead) {
  float* out = device(Floats(kThreads));
  expect(launch(1, kThreads, 0, overwrite<false>, out));
  expect_reports("race in shared memory");
  expect(launch(1, kThreads, 0, overwrite<true>, out));
  expect_reports("");
}

template <bool kWait>
__global__ void turn_in_warp(float* out) {
  BARKRT_SHARED(Row, row);
  row[threadIdx.x] = 1;
  __syncwarp();
  const float x = row[threadIdx.x ^ 1];
  if (kWait) __syncwarp();
  row[threadIdx.x] = x + 1;
  __syncwarp();
  out[threadIdx.x] = row[threadIdx.x ^ 3];
}
TEST_F(Tracing, RaceBetweenLanes) {
  float* out = device(Floats(kThreads));
  expect(launch(1, kThreads, 0, turn_in_warp<false>, out));
  expect_reports("race in shared memory");
  expect(launch(1, kThreads, 0, turn_in_warp<true>, out));
  expect_reports("");
}

__global__ void same_value(float* out) {
  BARKRT_SHARED(Row, row);
  row[0] = 1;
  __syncthreads();
  out[threadIdx.x] = row[0];
}
TEST_F(Tracing, StoresOfTheSameValue) {
  expect(launch(1, kThreads, 0, same_value, device(Floats(kThreads))));
  expect_reports("race in shared memory");
}

__global__ void read_unwritten(float* out) {
  BARKRT_SHARED(Row, row);
  if (threadIdx.x != 7) row[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = row[threadIdx.x];
}
TEST_F(Tracing, UndefinedSharedMemory) {
  expect(launch(1, kThreads, 0, read_unwritten, device(Floats(kThreads))));
  expect_reports("undefined shared memory");
}

struct Padded {
  int first;
  double second, third;
};
__global__ void copy_struct(Padded* out, int n) {
  BARKRT_SHARED(Padded, row);
  row.first = 1;
  row.third = 3;
  if (n == 2) row.second = 2;
  *out = row;
}
TEST_F(Tracing, GapsInStructsMayBeUndefined) {
  Padded* out = device(std::vector<Padded>(1));
  expect(launch(1, 1, 0, copy_struct, out, 2));
  expect_reports("");
  expect(launch(1, 1, 0, copy_struct, out, 1));
  expect_reports("undefined shared memory");
}

// Over what the lanes of a warp read in an earlier launch.
TEST_F(Tracing, LaunchesOfAStreamAreOrdered) {
  float *out = device(Floats(kThreads)), *x = device(Floats(kThreads));
  for (int i = 0; i < 2; ++i) {
    expect(launch(1, kThreads, 0, copy, out, x));
    expect(launch(1, kThreads, 0, copy, x, out));
    expect(launch(1, kThreads, 0, overwrite<true>, x));
  }
  expect_reports("");
}

__global__ void shared_beyond(float* out, int at) {
  BARKRT_DYNAMIC_SHARED(float4, row);
  row[at] = {};
  out[0] = row[at].x;
}
TEST_F(Tracing, BeyondSharedMemory) {
  float* out = device(Floats(1));
  expect(launch(1, 1, 24, shared_beyond, out, 0));
  expect_reports("");
  expect(launch(1, 1, 24, shared_beyond, out, 1));
  expect_reports("beyond the end of shared memory");
}

TEST_F(Tracing, BeyondAnAllocation) {
  float* out = device(Floats(kThreads));
  expect(launch(1, kThreads, 0, copy, out, device(Floats(kThreads - 1))));
  expect_reports("outside of an allocation");
  expect(launch(1, kThreads, 0, copy, device(Floats(kThreads - 1)), out));
  expect_reports("outside of an allocation");
}
TEST_F(Tracing, FreedMemory) {
  float *out = device(Floats(kThreads)), *x = device(Floats(kThreads));
  expect(cudaFreeAsync(x, stream));
  expect(launch(1, kThreads, 0, copy, out, x));
  expect_reports("outside of an allocation");
}
TEST_F(Tracing, HostMemory) {
  const Floats x(kThreads);
  expect(launch(1, kThreads, 0, copy, device(Floats(kThreads)), x.data()));
  expect_reports("host memory in a kernel");
}
TEST_F(Tracing, UndefinedDeviceMemory) {
  float *x = nullptr, *out = device(Floats(kThreads));
  expect(cudaMalloc(&x, kThreads * sizeof(float)));
  expect(launch(1, kThreads, 0, copy, out, x));
  expect_reports("undefined device memory");
  expect(cudaMemsetAsync(x, 0, kThreads * sizeof(float), stream));
  expect(launch(1, kThreads, 0, copy, out, x));
  expect_reports("");
}
TEST_F(Tracing, MemoryOfAnotherDevice) {
  expect(cudaSetDevice(1));
  float* x = device(Floats(kThreads));
  expect(cudaSetDevice(0));
  expect(launch(1, kThreads, 0, copy, device(Floats(kThreads)), x));
  expect_reports("memory of another device");
}
TEST_F(Tracing, DeviceMemoryInHostCode) {
  const float* x = device(Floats(1));
  EXPECT_EQ(*x, 0.0f);
  expect_reports("device memory in host code");
}

__global__ void all_blocks_write(int* out) { out[threadIdx.x] = static_cast<int>(blockIdx.x); }
__global__ void all_blocks_add(int* out) { atomicAdd(&out[threadIdx.x], 1); }
TEST_F(Tracing, RaceBetweenBlocks) {
  int* out = device(std::vector<int>(kThreads));
  expect(launch(2, kThreads, 0, all_blocks_write, out));
  expect_reports("race in device memory");
  expect(launch(2, kThreads, 0, all_blocks_add, out));
  expect_reports("");
}

template <bool kWait>
__global__ void next_block(float* out, float* x) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  x[i] = static_cast<float>(i);
  if (kWait)
    cooperative_groups::this_grid().sync();
  else
    __syncthreads();
  out[i] = x[(blockIdx.x + 1) % gridDim.x * kThreads + threadIdx.x];
}
TEST_F(Tracing, TheGridsBarrierOrdersBlocks) {
  float *out = device(Floats(2 * kThreads)), *x = device(Floats(2 * kThreads));
  expect(launch_cooperative(2, kThreads, next_block<false>, out, x));
  expect_reports("race in device memory");
  expect(launch_cooperative(2, kThreads, next_block<true>, out, x));
  expect_reports("");
}

enum class Missing { Nothing, BarrierBefore, FenceBefore, FenceAfter };

// The last block to come adds up what all have left in x.
template <Missing kMissing>
__global__ void last_block(float* out, float* x, unsigned* counter) {
  BARKRT_SHARED(bool, last);
  x[blockIdx.x * kThreads + threadIdx.x] = 1;
  if (kMissing != Missing::BarrierBefore) __syncthreads();
  if (threadIdx.x == 0) {
    if (kMissing != Missing::FenceBefore) __threadfence();
    last = atomicAdd(counter, 1u) == gridDim.x - 1;
    if (kMissing != Missing::FenceAfter) __threadfence();
  }
  __syncthreads();
  if (!last) return;
  float sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += x[b * kThreads + threadIdx.x];
  out[threadIdx.x] = sum;
}
TEST_F(Tracing, TheLastBlockMayReadWhatAllHaveHandedOver) {
  float *out = device(Floats(kThreads)), *x = device(Floats(3 * kThreads));
  const auto run = [&](void (*kernel)(float*, float*, unsigned*)) {
    expect(launch(3, kThreads, 0, kernel, out, x, device(std::vector<unsigned>(1))));
  };
  run(last_block<Missing::Nothing>);
  expect_reports("");
  EXPECT_EQ(host(out, kThreads), Floats(kThreads, 3));
  for (const auto kernel : {last_block<Missing::BarrierBefore>, last_block<Missing::FenceBefore>,
                            last_block<Missing::FenceAfter>}) {
    run(kernel);
    expect_reports("race in device memory");
  }
}

}  // namespace
}  // namespace emulation
