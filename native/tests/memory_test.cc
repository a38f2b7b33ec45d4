// memory_test.cc: buffers, their accounts, checked sizes, error texts and the log sink.
#include "memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backend.h"
#include "error.h"

// Under a sanitizer a failed allocation is to return NULL, as malloc does, instead of ending the
// program.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options() {
  return "allocator_may_return_null=1";
}

namespace barkrt {
namespace {

class Memory : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  MemoryAccount account;
};

TEST_F(Memory, BufferCountsWhatItTakesUntilItGoes) {
  {
    const Buffer kv(*backend, account, Category::Kv, 100);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(kv.data()) % 64, 0u);
    EXPECT_EQ(kv.bytes(), 100);
    EXPECT_EQ(account.live(Category::Kv), 128);
    const Buffer activations(*backend, account, Category::Activations, 64);
    EXPECT_EQ(account.live(Category::Activations), 64);
    EXPECT_EQ(account.total(), 192);
  }
  EXPECT_EQ(account.total(), 0);
  EXPECT_EQ(account.live(Category::Kv), 0);
  EXPECT_EQ(account.peak(), 192);
}

TEST_F(Memory, MovedBufferIsCountedOnce) {
  Buffer a(*backend, account, Category::Weights, 10);
  std::memset(a.data(), 7, 10);
  Buffer b = std::move(a);
  EXPECT_EQ(static_cast<char*>(b.data())[9], 7);
  Buffer c(*backend, account, Category::Weights, 1000);
  c = std::move(b);
  EXPECT_EQ(account.total(), 64);
  Buffer& same = c;
  c = std::move(same);
  EXPECT_EQ(c.bytes(), 10);
  c = Buffer();
  EXPECT_EQ(account.total(), 0);
}

TEST_F(Memory, EmptyBufferTakesNothing) {
  const Buffer empty(*backend, account, Category::Kv, 0);
  EXPECT_EQ(empty.data(), nullptr);
  EXPECT_EQ(account.peak(), 0);
}

TEST_F(Memory, ImpossibleBufferSaysWhereAndHowMuch) {
  try {
    const Buffer huge(*backend, account, Category::Kv, int64_t{1} << 60);
    FAIL() << "allocated 2^60 bytes";
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::OutOfMemory);
    EXPECT_NE(std::string(e.what()).find("cpu"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("1152921504606846976"), std::string::npos) << e.what();
  }
  EXPECT_EQ(account.total(), 0);
}

TEST_F(Memory, PeakIsTheHighestSumOfAllThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([this] {
      for (int i = 0; i < 1000; ++i) {
        account.add(Category::Tables, 10);
        account.remove(Category::Tables, 10);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(account.total(), 0);
  EXPECT_TRUE(account.peak() >= 10 && account.peak() <= 40) << account.peak();
}

TEST(Accounts, CountInAllAccountsAbove) {
  const auto device = std::make_shared<MemoryAccount>();
  const auto model = std::make_shared<MemoryAccount>(device);
  MemoryAccount session(model);
  session.add(Category::Kv, 100);
  device->add(Category::Shared, 7);
  EXPECT_EQ(session.total(), 100);
  EXPECT_EQ(model->live(Category::Kv), 100);
  EXPECT_EQ(device->total(), 107);
  session.remove(Category::Kv, 100);
  EXPECT_EQ(model->total(), 0);
  EXPECT_EQ(device->total(), 7);
  EXPECT_EQ(device->peak(), 107);
}

TEST(Accounts, ChargeCountsUntilItGoes) {
  const auto account = std::make_shared<MemoryAccount>();
  {
    Charge charge(account, Category::Weights);
    charge.add(5);
    charge.add(6);
    EXPECT_EQ(account->live(Category::Weights), 11);
  }
  EXPECT_EQ(account->total(), 0);
}

TEST(Trim, GivesFreedHeapBackAndNamesAnUnknownDevice) {
  std::vector<std::unique_ptr<char[]>> blocks;  // too small to be mapped one by one
  for (int i = 0; i < 2000; ++i) {
    blocks.push_back(std::make_unique<char[]>(16 << 10));
    std::memset(blocks.back().get(), 1, 16 << 10);
  }
  const auto last = std::make_unique<char[]>(16 << 10);  // so that the heap's top stays in use
  blocks.clear();
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_GE(trim_device(0), 24 << 20);  // of 31 MiB
#endif
  EXPECT_GE(trim_device(0), 0);
  EXPECT_THROW(trim_device(99), Error);
}

TEST_F(Memory, CopiesMoveBytesAndMayOverlap) {
  const Buffer buffer(*backend, account, Category::Activations, 8);
  char* bytes = static_cast<char*>(buffer.data());
  backend->upload(bytes, "abcdefgh", 8);
  backend->copy(bytes + 2, bytes, 6);
  char host[8];
  backend->download(host, bytes, 8);
  EXPECT_EQ(std::string(host, 8), "ababcdef");
  backend->zero(bytes + 1, 2);
  backend->synchronize();
  EXPECT_EQ(std::string(bytes, 8), std::string("a\0\0bcdef", 8));
}

TEST_F(Memory, CpuReadsWeightsWhereTheyLie) {
  const float weights[4] = {};
  const void* placed = backend->place_weights(weights, sizeof weights);
  EXPECT_EQ(placed, weights);
  backend->release_weights(placed);
}

TEST(CheckedSizes, OverflowIsAnInvalidArgument) {
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(checked_mul(1 << 20, 1 << 20), int64_t{1} << 40);
  EXPECT_EQ(checked_add(most - 1, 1), most);
  EXPECT_THROW(checked_mul(most / 2, 3), Error);
  EXPECT_THROW(checked_add(most, 1), Error);
}

TEST(Errors, TextIsFormattedAndCut) {
  try {
    fail(Status::BadModel, "tensor %s has %d rows", "wte", 7);
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::BadModel);
    EXPECT_STREQ(e.what(), "tensor wte has 7 rows");
  }
  try {
    fail(Status::NotFound, "%s", std::string(5000, 'x').c_str());
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).size(), 1019u);
  }
}

TEST(Log, LinesReachTheSinkUntilItIsTakenAway) {
  std::vector<std::pair<int32_t, std::string>> lines;
  set_log_sink(
      [](void* user, int32_t level, const char* text) {
        static_cast<decltype(lines)*>(user)->emplace_back(level, text);
      },
      &lines);
  log_line(2, "%d layers", 12);
  set_log_sink(nullptr, nullptr);
  log_line(2, "nobody listens");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].first, 2);
  EXPECT_EQ(lines[0].second, "12 layers");
}

TEST(DTypes, HaveNamesAndSizes) {
  EXPECT_STREQ(dtype_name(DType::BF16), "BF16");
  EXPECT_STREQ(dtype_name(static_cast<DType>(99)), "unknown");
  EXPECT_EQ(dtype_bytes(DType::I8), 1);
  EXPECT_EQ(dtype_bytes(DType::F16), 2);
  EXPECT_EQ(matrix_bytes(DType::F16, 3, 5), 30);
  EXPECT_EQ(matrix_bytes(DType::I4, 32, 128), 32 * 128 / 2 + 32 * 128 / 32 * 2);
}

}  // namespace
}  // namespace barkrt
