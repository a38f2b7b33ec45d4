// divergence_test.cu: barriers and collectives that not all threads reach are seen, and every other
// misuse that a call of the device's functions shows by itself.
#include <cooperative_groups.h>

#include <ptx.cuh>

#include "launch_test.h"

namespace emulation {
namespace {

using namespace barkrt::cuda;

class Divergence : public OnDevice {
 protected:
  // The launch ends with `error` and one report with all of `words`.
  template <typename... Params, typename... Args>
  void expect_fault(cudaError_t error, const std::vector<std::string>& words, dim3 block,
                    void (*kernel)(Params...), Args... args) {
    expect(launch(1, block, 1024, kernel, args...));
    EXPECT_EQ(cudaStreamSynchronize(stream), error);
    const auto reports = take_reports();
    ASSERT_EQ(reports.size(), 1u);
    for (const std::string& word : words)
      EXPECT_NE(reports[0].find(word), std::string::npos) << word << " in " << reports[0];
    EXPECT_EQ(cudaGetLastError(), error) << "is sticky";
    EXPECT_EQ(cudaGetLastError(), error);
  }
};

__global__ void some_return_early(int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  __syncthreads();
}
TEST_F(Divergence, BarrierThatEndedThreadsMiss) {
  expect_fault(cudaErrorLaunchFailure, {"divergence", "__syncthreads", "has ended"}, 64,
               some_return_early, 40);
}

__global__ void two_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
TEST_F(Divergence, DifferentBarriers) {
  expect_fault(cudaErrorLaunchFailure, {"divergence", "__syncthreads"}, 64, two_barriers);
}

__global__ void barrier_and_shuffle(int* out) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x % 2 == 0)
    value = __shfl_xor_sync(0xffffffffu, value, 1);
  else
    __syncthreads();
  *out = value;
}
TEST_F(Divergence, BarrierInsteadOfACollective) {
  expect_fault(cudaErrorLaunchFailure, {"divergence", "__shfl_xor_sync", "__syncthreads"}, 32,
               barrier_and_shuffle, device(std::vector<int>(1)));
}

__global__ void shuffle_by(int n) {
  if (static_cast<int>(threadIdx.x) < n) __shfl_xor_sync(0xffffffffu, 1, 1);
}
TEST_F(Divergence, CollectiveThatEndedLanesMiss) {
  expect_fault(cudaErrorLaunchFailure, {"divergence", "__shfl_xor_sync", "has ended"}, 32,
               shuffle_by, 31);
}
TEST_F(Divergence, CollectiveInAWarpThatIsNotWhole) {
  expect_fault(cudaErrorLaunchFailure, {"divergence", "8 lanes"}, 8, shuffle_by, 8);
}

__global__ void half_mask() {
  if (threadIdx.x < 16) __ballot_sync(0xffffu, 1);
}
TEST_F(Divergence, MaskOfSomeLanes) {
  expect_fault(cudaErrorLaunchFailure, {"mask"}, 32, half_mask);
}

__global__ void wait_for_grid() { cooperative_groups::this_grid().sync(); }
TEST_F(Divergence, GridBarrierInAnOrdinaryLaunch) {
  expect_fault(cudaErrorLaunchFailure, {"grid.sync", "not cooperative"}, 32, wait_for_grid);
}

__global__ void some_blocks_wait() {
  if (blockIdx.x != 2) cooperative_groups::this_grid().sync();
}
TEST_F(Divergence, GridBarrierThatABlockMisses) {
  expect(launch_cooperative(4, 32, some_blocks_wait));
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  const auto reports = take_reports();
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_NE(reports[0].find("block (2,0,0)"), std::string::npos) << reports[0];
}

__global__ void trap_in_the_middle() {
  __syncthreads();
  if (threadIdx.x == 5) __trap();
  __syncthreads();
}
TEST_F(Divergence, Trap) {
  expect_fault(cudaErrorLaunchFailure, {"__trap", "thread (5,0,0)"}, 64, trap_in_the_middle);
}

__global__ void never_wait(const uint4* from) {
  BARKRT_DYNAMIC_SHARED(uint4, to);
  copy_async_16(to + threadIdx.x, from, true);
  copy_async_commit();
}
TEST_F(Divergence, CopiesThatNobodyWaitsFor) {
  expect_fault(cudaErrorLaunchFailure, {"copies", "not waited for"}, 32, never_wait,
               device(std::vector<uint4>(1)));
}

__global__ void read_too_early(float* out, const float* from) {
  BARKRT_DYNAMIC_SHARED(float, to);
  copy_async_4(to + threadIdx.x, from, true);
  copy_async_commit();
  out[threadIdx.x] = to[threadIdx.x];
  copy_async_wait<0>();
  out[threadIdx.x + 32] = to[threadIdx.x];
}
TEST_F(Divergence, CopiesLandWhenTheyAreWaitedFor) {
  float* out = device(std::vector<float>(64));
  expect(launch(1, 32, 128, read_too_early, out, device(std::vector<float>{3})));
  const auto seen = host(out, 64);
  EXPECT_TRUE(std::isnan(seen[0]));
  EXPECT_EQ(seen[32], 3.0f);
}

__global__ void odd_row(uint32_t* out) {
  BARKRT_DYNAMIC_SHARED(char, rows);
  uint32_t r[4];
  ldmatrix_x4(r, rows + threadIdx.x * 16 + 8);
  *out = r[0];
}
TEST_F(Divergence, RowsOfAFragmentNeedAlignment) {
  expect_fault(cudaErrorMisalignedAddress, {"ldmatrix", "16"}, 32, odd_row,
               device(std::vector<uint32_t>(1)));
}

__global__ void bf16_product(float* out) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  mma_bf16(d, a, b);
  *out = d[0];
}
TEST_F(Divergence, InstructionsOfLaterDevices) {
  configure({DeviceConfig{1 << 20, 7, 5, 4}});
  expect(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  expect_fault(cudaErrorIllegalInstruction, {"mma_bf16", "7.5"}, 32, bf16_product,
               device(std::vector<float>(1)));
}

__global__ void through_cache(float* out, const float* from) { *out = __ldg(from + 1); }
TEST_F(Divergence, LoadsThroughTheCacheAreOfDeviceMemory) {
  float* out = device(std::vector<float>(1));
  expect_fault(cudaErrorIllegalAddress, {"__ldg", "outside"}, 1, through_cache, out, out);
}

}  // namespace
}  // namespace emulation
