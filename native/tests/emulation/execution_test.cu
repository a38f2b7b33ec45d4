// execution_test.cu: kernels that are right compute what they should.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <numeric>
#include <ptx.cuh>

#include "launch_test.h"

namespace emulation {
namespace {

using namespace barkrt::cuda;

class Execution : public OnDevice {};

__global__ void scale(float* x, int n, float by) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < static_cast<unsigned>(n)) x[i] *= by;
}

TEST_F(Execution, EveryThreadRunsOnce) {
  std::vector<float> values(1000);
  std::iota(values.begin(), values.end(), 0.0f);
  float* x = device(values);
  expect(launch(8, 128, 0, scale, x, 1000, 2.0f));
  const auto out = host(x, 1000);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(out[i], 2.0f * static_cast<float>(i));
}

using Sums = float[32];
__global__ void sum(float* out, const float* x) {
  BARKRT_SHARED(Sums, sums);
  BARKRT_DYNAMIC_SHARED(float, staged);
  staged[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  float value = staged[blockDim.x - 1 - threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    value = 0;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) value += sums[w];
    out[blockIdx.x] = value;
  }
}

TEST_F(Execution, ThreadsOfABlockMeetAtBarriersAndExchangeInWarps) {
  std::vector<float> values(3 * 256);
  std::iota(values.begin(), values.end(), 1.0f);
  const float* x = device(values);
  float* out = device(std::vector<float>(3));
  expect(launch(3, 256, 256 * sizeof(float), sum, out, x));
  const auto sums = host(out, 3);
  for (int b = 0; b < 3; ++b) {
    const auto begin = values.begin() + b * 256;
    EXPECT_EQ(sums[static_cast<size_t>(b)], std::accumulate(begin, begin + 256, 0.0f));
  }
}

__global__ void votes(unsigned* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane * 6] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  out[lane * 6 + 1] = static_cast<unsigned>(__any_sync(0xffffffffu, lane == 31));
  out[lane * 6 + 2] = static_cast<unsigned>(__all_sync(0xffffffffu, lane < 31));
  out[lane * 6 + 3] = static_cast<unsigned>(__shfl_down_sync(0xffffffffu, lane, 3, 8));
  out[lane * 6 + 4] = static_cast<unsigned>(__shfl_up_sync(0xffffffffu, lane, 5));
  out[lane * 6 + 5] = static_cast<unsigned>(__shfl_sync(0xffffffffu, lane, 9, 16));
}

TEST_F(Execution, VotesAndShuffles) {
  unsigned* out = device(std::vector<unsigned>(32 * 6));
  expect(launch(1, 32, 0, votes, out));
  const auto seen = host(out, 32 * 6);
  for (unsigned l = 0; l < 32; ++l) {
    EXPECT_EQ(seen[l * 6], 0x49249249u);
    EXPECT_EQ(seen[l * 6 + 1], 1u);
    EXPECT_EQ(seen[l * 6 + 2], 0u);
    EXPECT_EQ(seen[l * 6 + 3], l % 8 + 3 < 8 ? l + 3 : l);
    EXPECT_EQ(seen[l * 6 + 4], l >= 5 ? l - 5 : l);
    EXPECT_EQ(seen[l * 6 + 5], l / 16 * 16 + 9);
  }
}

__global__ void rounds(int* counts, int n_rounds) {
  for (int r = 0; r < n_rounds; ++r) {
    if (threadIdx.x == 0) atomicAdd(&counts[r], 1);
    cooperative_groups::this_grid().sync();
    if (counts[r] != static_cast<int>(gridDim.x)) atomicAdd(&counts[n_rounds], 1);
  }
}

TEST_F(Execution, BlocksOfACooperativeLaunchMeet) {
  int* counts = device(std::vector<int>(5));
  expect(launch_cooperative(7, 64, rounds, counts, 4));
  EXPECT_EQ(host(counts, 5), (std::vector<int>{7, 7, 7, 7, 0}));
}

// D = A B for one tile: A (16, 16) row by row, B (16, 8) row by row; through shared memory, with
// the fragments' places as the PTX ISA gives them.
template <typename T, bool kBf16>
__global__ void tile(float* d, const T* a, const T* b) {
  using Tile = T[16 * 16];
  BARKRT_SHARED(Tile, sa);
  BARKRT_SHARED(Tile, sb);
  const int lane = static_cast<int>(threadIdx.x);
  copy_async_16(&sa[lane * 8], &a[lane * 8], true);
  if (lane < 16) copy_async_16(&sb[lane * 8], &b[lane * 8], true);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, &sa[lane % 16 * 16 + lane / 16 * 8]);
  ldmatrix_x2_trans(fb, &sb[lane % 16 * 8]);
  float sums[4] = {};
  if (kBf16)
    mma_bf16(sums, fa, fb);
  else
    mma_f16(sums, fa, fb);
  for (int r = 0; r < 4; ++r) d[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = sums[r];
}

template <typename T, bool kBf16>
void expect_product(const std::vector<T>& a, const std::vector<T>& b,
                    const std::vector<float>& out) {
  for (size_t m = 0; m < 16; ++m)
    for (size_t n = 0; n < 8; ++n) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k)
        sum += static_cast<float>(a[m * 16 + k]) * static_cast<float>(b[k * 8 + n]);
      EXPECT_EQ(out[m * 8 + n], sum) << m << "," << n;
    }
}

TEST_F(Execution, TensorCoreProducts) {
  std::vector<__half> a(256), b(128);
  std::vector<__nv_bfloat16> wide_a(256), wide_b(128);
  for (size_t i = 0; i < 256; ++i)
    wide_a[i] = static_cast<float>(a[i] = static_cast<float>(i * 7 % 31) - 15.0f);
  for (size_t i = 0; i < 128; ++i)
    wide_b[i] = static_cast<float>(b[i] = static_cast<float>(i * 11 % 29) - 14.0f);
  float* d = device(std::vector<float>(128));
  expect(launch(1, 32, 0, tile<__half, false>, d, device(a), device(b)));
  expect_product<__half, false>(a, b, host(d, 128));
  expect(launch(1, 32, 0, tile<__nv_bfloat16, true>, d, device(wide_a), device(wide_b)));
  expect_product<__nv_bfloat16, true>(wide_a, wide_b, host(d, 128));
}

// Halves and their neighbours in every direction, by the definition of rounding to nearest even.
TEST(Numbers, HalvesRoundToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float x = f16_to_float(static_cast<uint16_t>(bits));
    const float next = bits + 1 < 0x7c00 ? f16_to_float(static_cast<uint16_t>(bits + 1)) : 65536.0f;
    const float middle = (x + next) / 2;
    ASSERT_EQ(float_to_f16(x), bits);
    ASSERT_EQ(float_to_f16(-x), bits | 0x8000);
    ASSERT_EQ(float_to_f16(middle), bits + bits % 2);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 1e9f)), bits + 1);
  }
  EXPECT_EQ(float_to_f16(NAN), 0x7fff);
  EXPECT_EQ(float_to_f16(INFINITY), 0x7c00);
}

TEST(Numbers, BrainFloatsRoundToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x3p-8f), 0x3f82);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1.02p-8f), 0x3f81);
  EXPECT_EQ(float_to_bf16(-3.4e38f), 0xff80);
  EXPECT_EQ(float_to_bf16(NAN), 0x7fff);
}

}  // namespace
}  // namespace emulation
