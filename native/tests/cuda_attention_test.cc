// cuda_attention_test.cc: what attention on a CUDA device promises beyond its numbers
// (attention_test.cc): launches, counters, and steps played again at new positions.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "cuda/common.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/device.h"
#include "emulation.h"

namespace barkrt::cuda {
namespace {

Device& device() {
  static Device* const one = [] {
    std::string why;
    return new Device(find_devices(&why).at(0));
  }();
  return *one;
}

// Two sequences' caches, and steps of both.
class CudaSteps : public testing::TestWithParam<DType> {
 protected:
  static constexpr int64_t kHeads = 2, kEmbd = 2 * 64, kContext = 300, kRows = 2;

  CudaSteps()
      : half_bytes(kHeads * kv_head_bytes(GetParam(), kContext, kEmbd / kHeads)),
        backend(make_backend(device())),
        random(7) {
    for (void*& p : caches) {
      p = backend->alloc(half_bytes);
      backend->zero(p, half_bytes);
    }
    qkv = static_cast<float*>(backend->alloc(kRows * 3 * kEmbd * 4));
    out = static_cast<float*>(backend->alloc(kRows * kEmbd * 4));
  }
  ~CudaSteps() override {
    for (void* p : caches) backend->free(p, half_bytes);
    backend->free(qkv, kRows * 3 * kEmbd * 4);
    backend->free(out, kRows * kEmbd * 4);
  }

  std::vector<float> numbers(int64_t n) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = distribution(random);
    return values;
  }

  // What ops read from the host.
  struct Inputs {
    int32_t slot[kRows] = {0, 1};
    int32_t pos[kRows] = {};
    KvLayer kv[kRows];
  };
  // of: 0 or 1, one of two equal sets of caches.
  Inputs inputs(int of, int32_t first, int32_t second) const {
    Inputs in;
    in.pos[0] = first, in.pos[1] = second;
    for (int s = 0; s < kRows; ++s) {
      void* const* const halves = caches + 4 * of + 2 * s;
      in.kv[s] = {halves[0], halves[1], GetParam(), kContext, kEmbd};
    }
    return in;
  }
  void attend(const Inputs& in) {
    backend->attention(view(out, kRows, kEmbd),
                       view(static_cast<const float*>(qkv), kRows, 3 * kEmbd), in.kv,
                       {kRows, in.slot, in.pos}, kHeads, true);
  }
  std::vector<float> result() {
    std::vector<float> values(kRows * kEmbd);
    backend->download(values.data(), out, kRows * kEmbd * 4);
    return values;
  }

  const int64_t half_bytes;
  std::unique_ptr<Backend> backend;
  std::mt19937 random;
  void* caches[8];
  float *qkv, *out;
};

INSTANTIATE_TEST_SUITE_P(Cache, CudaSteps, testing::Values(DType::F16, DType::I8),
                         [](const auto& instance) { return dtype_name(instance.param); });

TEST_P(CudaSteps, AreOneLaunchAndLeaveCountersAtZero) {
  const std::vector<float> values = numbers(kRows * 3 * kEmbd);
  backend->upload(qkv, values.data(), kRows * 3 * kEmbd * 4);
  backend->synchronize();
  const int64_t before = emulation::counters(0).launches;
  attend(inputs(0, 290, 140));  // three and two splits
  backend->synchronize();
  EXPECT_EQ(emulation::counters(0).launches, before + 1);
  std::vector<unsigned> counters(Stream::kCounters, 1);
  const LaneUse lane(device());
  lane->get(counters.data(), lane->counters(), Stream::kCounters * 4);
  EXPECT_EQ(counters, std::vector<unsigned>(Stream::kCounters, 0));
}

// The positions pass ends of splits while the recorded launch stays the same.
TEST_P(CudaSteps, PlayedAgainFollowTheirPositions) {
  const int64_t played = emulation::counters(0).graph_launches;
  for (int32_t at = 0; at < 140; ++at) {
    const std::vector<float> values = numbers(kRows * 3 * kEmbd);
    backend->upload(qkv, values.data(), kRows * 3 * kEmbd * 4);
    Inputs block = inputs(0, at, at + 120);
    backend->repeat({1}, {reinterpret_cast<std::byte*>(&block), sizeof block, sizeof block},
                    [&] { attend(block); });
    const std::vector<float> again = result();
    attend(inputs(1, at, at + 120));
    EXPECT_EQ(0, std::memcmp(again.data(), result().data(), again.size() * 4)) << at;
  }
  EXPECT_GT(emulation::counters(0).graph_launches, played + 100);
  for (int i = 0; i < 4; ++i) {
    std::vector<std::byte> one(half_bytes), other(half_bytes);
    backend->download(one.data(), caches[i], half_bytes);
    backend->download(other.data(), caches[4 + i], half_bytes);
    EXPECT_EQ(one, other) << i;
  }
}

}  // namespace
}  // namespace barkrt::cuda
