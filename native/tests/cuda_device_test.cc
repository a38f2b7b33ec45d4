// cuda_device_test.cc: what all models on a CUDA device share: enumeration, memory, lanes, staging,
// recorded passes, and the loss of a device. On emulated devices.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/common.cuh"
#include "cuda/device.h"
#include "cuda/graph.h"
#include "emulation.h"
#include "error.h"

namespace barkrt::cuda {
namespace {

constexpr size_t kMiB = 1 << 20;

// New devices; those of earlier tests are gone. Each lives to the end, as the product's do.
Device& device(const std::vector<emulation::DeviceConfig>& configs, size_t index,
               bool has_pools = true) {
  static std::vector<std::unique_ptr<Device>> all;
  std::string why;
  if (!configs.empty()) emulation::configure(configs);
  DeviceFacts facts = find_devices(&why).at(index);
  facts.has_pools = has_pools;
  all.push_back(std::make_unique<Device>(facts));
  return *all.back();
}
Device& one_device(bool has_pools = true) { return device({{256 * kMiB, 8, 9, 4}}, 0, has_pools); }

size_t free_bytes(Device& device) {
  device.enter();
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

std::vector<unsigned char> some_bytes(size_t n, unsigned salt) {
  std::vector<unsigned char> bytes(n);
  for (size_t i = 0; i < n; ++i)
    bytes[i] = static_cast<unsigned char>((i * 2654435761u + salt) >> 7);
  return bytes;
}

// The status and text of what f throws.
template <typename F>
Error error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing is thrown";
  return Error(Status::Ok, "");
}
bool says(const Error& e, const std::string& part) {
  return std::string(e.what()).find(part) != std::string::npos;
}

// --- enumeration ---

TEST(CudaDevices, WithoutADriverThereAreNoneAndItSaysWhy) {
  std::string why;
  emulation::configure_without_driver();
  EXPECT_TRUE(find_devices(&why).empty());
  EXPECT_NE(why.find("no NVIDIA driver"), std::string::npos) << why;
  emulation::configure({});
  EXPECT_TRUE(find_devices(&why).empty());
  EXPECT_NE(why.find("no device"), std::string::npos) << why;
}

TEST(CudaDevices, ThoseOfTooLowACapabilityAreLeftOut) {
  std::string why;
  emulation::configure({{kMiB, 7, 0, 1}, {2 * kMiB, 7, 5, 3}});
  const std::vector<DeviceFacts> found = find_devices(&why);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].properties.index, 1);
  EXPECT_EQ(found[0].properties.n_multiprocessors, 3);
  EXPECT_EQ(found[0].memory_bytes, static_cast<int64_t>(2 * kMiB));
  emulation::configure({{kMiB, 7, 0, 1}});
  EXPECT_TRUE(find_devices(&why).empty());
  EXPECT_NE(why.find("7.5 is needed"), std::string::npos) << why;
}

TEST(CudaDevices, HaveUuidsOfTheirOwn) {
  std::string why;
  emulation::configure({{}, {}});
  const std::vector<DeviceFacts> found = find_devices(&why);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_NE(found[0].uuid, found[1].uuid);
  EXPECT_EQ(found[0].uuid.size(), 40u) << found[0].uuid;
  EXPECT_EQ(found[0].uuid.rfind("GPU-", 0), 0u);
}

// --- memory ---

class CudaPool : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Pools, CudaPool, testing::Bool(), [](const auto& instance) {
  return std::string(instance.param ? "OfTheDriver" : "None");
});

TEST_P(CudaPool, CountsWhatLivesAndGivesBackWhatIsFree) {
  Device& d = one_device(GetParam());
  const size_t before = free_bytes(d);
  std::vector<std::pair<void*, int64_t>> live;
  int64_t sum = 0;
  for (const int64_t bytes : {1, 64, 1000, 5 << 20, 0, 33 << 20}) {
    live.emplace_back(d.pool().allocate(bytes), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(live.back().first) % 256, 0u);
    sum += bytes;
    EXPECT_EQ(d.pool().live_bytes(), sum);
  }
  EXPECT_LE(free_bytes(d), before - static_cast<size_t>(sum));
  for (const auto& [p, bytes] : live) d.pool().free(p, bytes);
  EXPECT_EQ(d.pool().live_bytes(), 0);
  const int64_t returned = d.pool().trim();
  EXPECT_EQ(returned >= sum, GetParam()) << returned;
  EXPECT_EQ(free_bytes(d), before);
  EXPECT_EQ(d.pool().trim(), 0);
}

TEST_P(CudaPool, TellsWhatIsMissingWhenThereIsNoMemory) {
  Device& d = one_device(GetParam());
  const Error e = error_of([&] { d.pool().allocate(int64_t{1} << 40); });
  EXPECT_EQ(e.status(), Status::OutOfMemory);
  EXPECT_TRUE(says(e, "cuda:0") && says(e, "1099511627776") && says(e, "268435456")) << e.what();
  EXPECT_EQ(d.pool().live_bytes(), 0);
  d.pool().free(d.pool().allocate(1000), 1000);
}

TEST(CudaPool, TriesOnceMoreAfterATrim) {
  Device& d = one_device();
  d.pool().free(d.pool().allocate(100 * kMiB), 100 * kMiB);
  const size_t before = free_bytes(d);
  emulation::fail_call("cudaMallocFromPoolAsync", 1, cudaErrorMemoryAllocation);
  d.pool().free(d.pool().allocate(kMiB), kMiB);
  EXPECT_GE(free_bytes(d), before + 90 * kMiB);  // the trim
}

// The emulation reports what comes to freed memory.
TEST(CudaPool, FreesWhenAllLanesAreDoneWithIt) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  const auto bytes = some_bytes(kMiB, 1);
  for (int i = 0; i < 20; ++i) {
    void* const p = backend->alloc(kMiB);
    std::thread([&] {
      backend->upload(p, bytes.data(), kMiB);
      backend->zero(p, kMiB / 2);
    }).join();
    backend->free(p, kMiB);
    void* const q = backend->alloc(kMiB);
    backend->zero(q, kMiB);
    backend->free(q, kMiB);
  }
  d.pool().trim();
}

TEST(CudaPool, OfTwoDevicesAreIndependent) {
  Device& small = device({{32 * kMiB, 8, 0, 1}, {256 * kMiB, 9, 0, 2}}, 0);
  Device& large = device({}, 1);
  const auto a = make_backend(small), b = make_backend(large);
  EXPECT_EQ(a->device(), "cuda:0");
  EXPECT_EQ(b->device(), "cuda:1");
  EXPECT_EQ(error_of([&] { a->alloc(64 * kMiB); }).status(), Status::OutOfMemory);
  void* const p = b->alloc(64 * kMiB);
  const auto bytes = some_bytes(64 * kMiB, 3);
  b->upload(p, bytes.data(), 64 * kMiB);
  std::vector<unsigned char> back(64 * kMiB);
  b->download(back.data(), p, 64 * kMiB);
  EXPECT_TRUE(back == bytes);
  EXPECT_EQ(small.pool().live_bytes(), 0);
  b->free(p, 64 * kMiB);
}

// --- copies ---

TEST(CudaCopies, OfEverySizeComeBack) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  const int64_t piece = Staging::kPieceBytes;
  for (const int64_t n : {int64_t{1}, int64_t{63}, int64_t{65537}, piece - 1, piece, piece + 1,
                          Staging::kPieces * piece + 7, 3 * Staging::kPieces * piece + 1}) {
    auto bytes = some_bytes(static_cast<size_t>(n), static_cast<unsigned>(n));
    const auto expected = bytes;
    void* const p = backend->alloc(n);
    backend->upload(p, bytes.data(), n);
    std::fill(bytes.begin(), bytes.end(), 0xee);  // the host memory may be reused
    std::vector<unsigned char> back(bytes.size());
    backend->download(back.data(), p, n);
    EXPECT_TRUE(back == expected) << n;
    backend->free(p, n);
  }
}

TEST(CudaCopies, MayOverlap) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  auto bytes = some_bytes(1000, 5);
  auto* const p = static_cast<unsigned char*>(backend->alloc(1000));
  backend->upload(p, bytes.data(), 1000);
  const auto move = [&](int64_t to, int64_t from, int64_t n) {
    backend->copy(p + to, p + from, n);
    std::memmove(bytes.data() + to, bytes.data() + from, static_cast<size_t>(n));
  };
  move(10, 0, 900), move(0, 10, 900), move(500, 0, 500), move(7, 7, 100), move(0, 1, 999);
  std::vector<unsigned char> back(1000);
  backend->download(back.data(), p, 1000);
  EXPECT_TRUE(back == bytes);
  backend->free(p, 1000);
}

TEST(CudaCopies, OfManyThreadsDoNotMix) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3 * Device::kThreadLanes; ++t)
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 8; ++i) {
        const int64_t n = i % 2 ? 200'000 : 1000 + t;
        const auto bytes = some_bytes(static_cast<size_t>(n), t * 100 + i);
        void *const p = backend->alloc(n), *const q = backend->alloc(n);
        backend->upload(p, bytes.data(), n);
        backend->copy(q, p, n);
        backend->zero(p, n);
        std::vector<unsigned char> back(bytes.size());
        backend->download(back.data(), q, n);
        EXPECT_TRUE(back == bytes) << t << " " << i;
        backend->free(p, n), backend->free(q, n);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(CudaWeights, ArePlacedByManyThreadsAtOnce) {
  constexpr unsigned kThreads = 4, kTensors = 6;
  Device& d = one_device();
  const auto backend = make_backend(d);
  std::vector<unsigned char> host[kThreads][kTensors];
  const void* placed[kThreads][kTensors];
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < kTensors; ++i) {
        host[t][i] = some_bytes(i % 3 ? 5000 : 5 * kMiB + 3, t * 10 + i);
        placed[t][i] =
            backend->place_weights(host[t][i].data(), static_cast<int64_t>(host[t][i].size()));
      }
      backend->synchronize();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(d.pool().live_bytes(), kThreads * (4 * 5000 + 2 * (5 * int64_t{kMiB} + 3)));
  for (unsigned t = 0; t < kThreads; ++t)
    for (unsigned i = 0; i < kTensors; ++i) {
      std::vector<unsigned char> back(host[t][i].size());
      backend->download(back.data(), placed[t][i], static_cast<int64_t>(back.size()));
      EXPECT_TRUE(back == host[t][i]) << t << " " << i;
    }
  const int64_t before = d.pool().live_bytes();
  for (auto& of_thread : placed)
    for (const void* p : of_thread) backend->release_weights(p);
  EXPECT_EQ(before - d.pool().live_bytes(), kThreads * (4 * 5000 + 2 * (5 * int64_t{kMiB} + 3)));
}

TEST(CudaWeights, LeaveNothingBehindWhenTheUploadFails) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  const auto bytes = some_bytes(9 * kMiB, 1);
  emulation::fail_call("cudaMemcpyAsync", 2, cudaErrorInvalidValue);
  EXPECT_EQ(error_of([&] { backend->place_weights(bytes.data(), 9 * kMiB); }).status(),
            Status::Device);
  EXPECT_EQ(d.pool().live_bytes(), 0);
  EXPECT_FALSE(d.is_lost());  // an error of one call
  const void* const placed = backend->place_weights(bytes.data(), 9 * kMiB);
  backend->release_weights(placed);
}

// --- lanes ---

TEST(CudaLane, BringsHostArraysHoweverManyAreOnTheirWay) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  std::vector<unsigned char> expected;
  const int64_t total = 6'000'000;
  auto* const p = static_cast<std::byte*>(backend->alloc(total));
  int64_t at = 0;
  for (unsigned i = 0;; ++i) {
    const int64_t n = i % 50 == 49 ? 300'000 : 1 + i * 37 % 9000;
    if (at + n > total) break;
    auto bytes = some_bytes(static_cast<size_t>(n), i);
    const LaneUse lane(d);
    const unsigned char* const there = lane->put(bytes.data(), n);
    expected.insert(expected.end(), bytes.begin(), bytes.end());
    std::fill(bytes.begin(), bytes.end(), 0xee);  // borrowed for the call
    check(cudaMemcpyAsync(p + at, there, static_cast<size_t>(n), cudaMemcpyDeviceToDevice,
                          lane->handle()),
          "cudaMemcpyAsync");
    at += n;
  }
  std::vector<unsigned char> back(expected.size());
  backend->download(back.data(), p, at);
  EXPECT_TRUE(back == expected);
  backend->free(p, total);
}

TEST(CudaLane, HasScratchWithoutEndAndGivesItBack) {
  Device& d = one_device();
  { LaneUse(d)->scratch(1); }
  const int64_t before = d.pool().live_bytes();
  {
    const LaneUse lane(d);
    ScratchScope scratch(*lane);
    std::vector<char*> parts;
    for (const int64_t n :
         {int64_t{100}, Stream::kScratchBytes - 512, int64_t{300}, 20 * int64_t{kMiB}}) {
      parts.push_back(scratch.take<char>(n));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(parts.back()) % 256, 0u);
      check(cudaMemsetAsync(parts.back(), 1, static_cast<size_t>(n), lane->handle()), "memset");
    }
    EXPECT_EQ(d.pool().live_bytes(), before + 300 + 20 * int64_t{kMiB});
  }
  EXPECT_EQ(d.pool().live_bytes(), before);
}

TEST(CudaLane, HasCountersOfZeros) {
  Device& d = one_device();
  std::vector<unsigned> counters(Stream::kCounters, 1);
  const LaneUse lane(d);
  lane->get(counters.data(), lane->counters(), Stream::kCounters * 4);
  EXPECT_EQ(std::count(counters.begin(), counters.end(), 0u), Stream::kCounters);
}

// --- passes that come again ---

// A pass without kernels: what is in the block goes to device memory and back into the block.
struct Echo {
  explicit Echo(Device& d) : device(d), repeats(d) {
    p = static_cast<std::byte*>(d.pool().allocate(kBytes * kRounds));
  }
  ~Echo() { device.pool().free(p, kBytes * kRounds); }

  // False when the answer is not what was put in.
  bool run(uint64_t round, unsigned salt, const unsigned char* outside = nullptr) {
    std::vector<unsigned char> memory = some_bytes(2 * kBytes, salt);
    const HostBlock block{reinterpret_cast<std::byte*>(memory.data()), kBytes, 2 * kBytes};
    repeats.run({round}, block, [&] {
      ++n_issued;
      const LaneUse lane(device);
      const auto copy = [&](void* to, const void* from) {
        check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, lane->handle()), "copy");
      };
      std::byte* const between = p + kBytes * static_cast<int64_t>(round % kRounds);
      copy(between, lane->put(outside ? outside : memory.data(), kBytes));
      copy(lane->in_block(memory.data() + kBytes, kBytes), between);
    });
    const unsigned char* const expected = outside ? outside : memory.data();
    return std::memcmp(expected, memory.data() + kBytes, kBytes) == 0;
  }

  static constexpr int64_t kBytes = 1000, kRounds = 100;
  Device& device;
  Repeats repeats;
  std::byte* p;
  int n_issued = 0;
};

TEST(CudaRepeats, ArePlayedFromTheThirdTimeOnWithNewInputs) {
  Device& d = one_device();
  Echo echo(d);
  for (unsigned i = 0; i < 10; ++i) EXPECT_TRUE(echo.run(0, i)) << i;
  EXPECT_EQ(echo.n_issued, 2);  // run, recorded
  EXPECT_EQ(echo.repeats.n_played(), 9);
  EXPECT_EQ(emulation::counters(0).graph_launches, 9);
}

TEST(CudaRepeats, AreTheirOwnForEachKey) {
  Device& d = one_device();
  Echo echo(d);
  for (unsigned i = 0; i < 30; ++i) EXPECT_TRUE(echo.run(i % 3, i)) << i;
  EXPECT_EQ(echo.n_issued, 6);
}

TEST(CudaRepeats, ForgetTheLeastRecentlyUsed) {
  Device& d = one_device();
  Echo echo(d);
  const unsigned most = Repeats::kMostPasses;
  for (int twice = 0; twice < 2; ++twice)
    for (unsigned key = 0; key < most; ++key) EXPECT_TRUE(echo.run(key, key));
  EXPECT_EQ(echo.n_issued, static_cast<int>(2 * most));
  EXPECT_TRUE(echo.run(0, 1));     // used again
  EXPECT_TRUE(echo.run(most, 1));  // takes the place of key 1
  EXPECT_EQ(echo.n_issued, static_cast<int>(2 * most + 1));
  EXPECT_TRUE(echo.run(0, 2));
  EXPECT_EQ(echo.n_issued, static_cast<int>(2 * most + 1));
  EXPECT_TRUE(echo.run(1, 2));
  EXPECT_EQ(echo.n_issued, static_cast<int>(2 * most + 2));
}

TEST(CudaRepeats, RunAsTheyAreWhenTheyCannotBeRecorded) {
  Device& d = one_device();
  Echo echo(d);
  const auto elsewhere = some_bytes(Echo::kBytes, 77);
  for (unsigned i = 0; i < 5; ++i) EXPECT_TRUE(echo.run(0, i, elsewhere.data())) << i;
  EXPECT_EQ(echo.repeats.n_played(), 0);
  emulation::fail_call("cudaGraphInstantiate", 1, cudaErrorNotSupported);
  for (unsigned i = 0; i < 5; ++i) EXPECT_TRUE(echo.run(1, i)) << i;
  EXPECT_EQ(echo.repeats.n_played(), 0);
  for (unsigned i = 0; i < 5; ++i) EXPECT_TRUE(echo.run(2, i)) << i;
  EXPECT_EQ(echo.repeats.n_played(), 4);
}

TEST(CudaRepeats, PassOnWhatTheIssuerThrowsAndGoOn) {
  Device& d = one_device();
  Echo echo(d);
  EXPECT_TRUE(echo.run(0, 1));
  std::vector<std::byte> memory(8);
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(
        error_of([&] {
          echo.repeats.run({5}, {memory.data(), 4, 8}, [] { fail(Status::OutOfMemory, "no"); });
        }).status(),
        Status::OutOfMemory);
  for (unsigned i = 0; i < 4; ++i) EXPECT_TRUE(echo.run(0, i));
  EXPECT_EQ(echo.repeats.n_played(), 4);
}

TEST(CudaRepeats, ComeAfterWhatTheirThreadHasIssued) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  constexpr int64_t n = 64 << 10;
  auto* const p = static_cast<std::byte*>(backend->alloc(n));
  std::vector<std::byte> memory(16);
  for (unsigned i = 0; i < 6; ++i) {
    const auto bytes = some_bytes(n, i);
    backend->upload(p, bytes.data(), n);  // in the thread's lane, not waited for
    backend->repeat({1}, {memory.data(), 8, 16}, [&] {
      const LaneUse lane(d);
      check(cudaMemcpyAsync(lane->in_block(memory.data() + 8, 8), p + n - 8, 8,
                            cudaMemcpyDeviceToDevice, lane->handle()),
            "cudaMemcpyAsync");
    });
    EXPECT_EQ(std::memcmp(memory.data() + 8, bytes.data() + n - 8, 8), 0) << i;
  }
  backend->free(p, n);
}

// --- a lost device ---

TEST(CudaLoss, ConcernsItsDeviceAloneAndFreesStillCount) {
  Device& lost = device({{256 * kMiB, 8, 9, 4}, {256 * kMiB, 8, 9, 4}}, 0);
  Device& other = device({}, 1);
  const auto a = make_backend(lost), b = make_backend(other);
  void* const p = a->alloc(1000);
  const auto bytes = some_bytes(1000, 1);
  const void* const placed = a->place_weights(bytes.data(), 1000);
  a->zero(p, 1000);
  void* const q = b->alloc(1000);
  emulation::lose_device(0, cudaErrorIllegalAddress);

  const Error first = error_of([&] { a->synchronize(); });
  EXPECT_EQ(first.status(), Status::Device);
  EXPECT_TRUE(lost.is_lost());
  EXPECT_TRUE(says(first, "cuda:0 is lost") && says(first, "cudaErrorIllegalAddress") &&
              says(first, "restart"))
      << first.what();
  std::vector<unsigned char> back(1000);
  for (const auto& call : std::vector<std::function<void()>>{
           [&] { a->alloc(1); }, [&] { a->upload(p, bytes.data(), 1000); },
           [&] { a->download(back.data(), p, 1000); }, [&] { a->zero(p, 10); },
           [&] { a->place_weights(bytes.data(), 1000); }, [&] { lost.pool().trim(); },
           [&] { make_backend(lost); }}) {
    const Error e = error_of(call);
    EXPECT_EQ(e.status(), Status::Device);
    EXPECT_STREQ(e.what(), first.what());
  }
  a->release_weights(placed);
  a->free(p, 1000);
  EXPECT_EQ(lost.pool().live_bytes(), 0);

  b->upload(q, bytes.data(), 1000);
  b->download(back.data(), q, 1000);
  EXPECT_TRUE(back == bytes);
  EXPECT_FALSE(other.is_lost());
  b->free(q, 1000);
}

TEST(CudaLoss, EndsRecordedPasses) {
  Device& d = one_device();
  Echo echo(d);
  for (unsigned i = 0; i < 4; ++i) EXPECT_TRUE(echo.run(0, i));
  emulation::lose_device(0, cudaErrorECCUncorrectable);
  EXPECT_EQ(error_of([&] { echo.run(0, 5); }).status(), Status::Device);
  EXPECT_TRUE(d.is_lost());
}

TEST(CudaLoss, IsNotAnErrorThatPasses) {
  Device& d = one_device();
  const auto backend = make_backend(d);
  void* const p = backend->alloc(100);
  emulation::fail_call("cudaMemsetAsync", 1, cudaErrorInvalidValue);
  const Error e = error_of([&] { backend->zero(p, 100); });
  EXPECT_EQ(e.status(), Status::Device);
  EXPECT_TRUE(says(e, "cuda:0: cudaMemsetAsync failed")) << e.what();
  backend->zero(p, 100);
  backend->synchronize();
  EXPECT_FALSE(d.is_lost());
  backend->free(p, 100);
}

}  // namespace
}  // namespace barkrt::cuda
