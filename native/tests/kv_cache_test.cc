// kv_cache_test.cc: how attention rounds the keys and values that it puts into a cache.
#include "kv_cache.h"

#include <algorithm>
#include <utility>

#include "reference.h"

namespace barkrt {
namespace {

using namespace reference;

class KvCache : public EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(KvCache);
BARKRT_IMITATED_AMX(KvCache);

// Halves of the cache: ties to even, subnormals, the largest.
TEST_P(KvCache, HalvesRoundToNearestEven) {
  const Floats values = {1.0f,         1.00048828125f,  1.00146484375f, -1.0009765625f,
                         65504.0f,     1e-7f,           0x1p-24f,       0x1.8p-24f,
                         0x1p-25f,     0x1.000002p-25f, 0.0f,           -0.0f,
                         0x1.ff8p-15f, 0x1.ffcp-15f,    65519.0f,       3.14159f};
  const Floats expected = {1.0f,         1.0f,     1.001953125f, -1.0009765625f, 65504.0f, 0x1p-23f,
                           0x1p-24f,     0x1p-23f, 0.0f,         0x1p-24f,       0.0f,     -0.0f,
                           0x1.ff8p-15f, 0x1p-14f, 65504.0f,     3.140625f};
  const int64_t n = static_cast<int64_t>(values.size());
  Cache cache(DType::F16, 1, n, 1);
  Floats qkv(static_cast<size_t>(3 * n)), out(values.size());
  std::copy(values.begin(), values.end(), qkv.begin() + n);
  const int32_t zero = 0;
  backend->attention(view(out.data(), 1, n), read(qkv, 1, 3 * n), &cache.layer, {1, &zero, &zero},
                     1, true);
  for (int64_t i = 0; i < n; ++i)
    EXPECT_EQ(cache.value(cache.k, 0, i), static_cast<double>(expected[static_cast<size_t>(i)]))
        << values[static_cast<size_t>(i)];
}

// Numbers of 8 bits: ties to even, the scale of the largest, none of zeros and of the
// smallest; what is not finite makes the scale NaN, of that half alone.
TEST_P(KvCache, NumbersOf8BitsRoundToNearestEven) {
  const Floats values = {127.0f, -127.0f, 0.5f, 1.5f, -2.5f, 63.49f, 0.0f, -0.0f, 1e-30f, -126.5f};
  const int8_t expected[] = {127, -127, 0, 2, -2, 63, 0, 0, 0, -126};
  const int64_t n = static_cast<int64_t>(values.size());
  const int32_t zero = 0;
  Floats qkv(static_cast<size_t>(3 * n)), out(values.size());
  const auto attend_to = [&](Cache& cache) {
    backend->attention(view(out.data(), 1, n), read(qkv, 1, 3 * n), &cache.layer, {1, &zero, &zero},
                       1, true);
  };
  Cache cache(DType::I8, 1, n, 1);
  std::copy(values.begin(), values.end(), qkv.begin() + n);
  attend_to(cache);
  EXPECT_EQ(cache.scale(cache.k, 0, 0), 1.0);
  for (int64_t i = 0; i < n; ++i)
    EXPECT_EQ(cache.value(cache.k, 0, i), static_cast<double>(expected[i]))
        << values[static_cast<size_t>(i)];
  std::fill_n(qkv.begin() + n, n, 0x1p-140f);
  attend_to(cache);
  for (int64_t i = 0; i < n; ++i) EXPECT_EQ(cache.value(cache.k, 0, i), 0.0);
  EXPECT_EQ(out[0], 0.0f);
  for (const float strange : {INFINITY, -INFINITY, NAN}) {
    qkv[static_cast<size_t>(2 * n + 3)] = strange;
    attend_to(cache);
    EXPECT_TRUE(std::isnan(cache.scale(cache.v, 0, 0)));
    EXPECT_EQ(cache.value(cache.k, 0, 0), 0.0);
    EXPECT_TRUE(std::isnan(out[0]));
  }
}

// Numbers and scales, whether a step writes them or a prefill: those of the plainest CPU.
TEST_P(KvCache, NumbersOf8BitsHaveTheSameBitsOnEveryDevice) {
  const auto plain = make_cpu_backend(1, "generic");
  for (const int64_t head_dim : {20, 64, 128})
    for (const int64_t rows : {1, 12, 40}) {
      const int64_t n_head = 2, n_embd = n_head * head_dim;
      const Floats qkv = normal(rows * 3 * n_embd, 35);
      Floats out(static_cast<size_t>(rows * n_embd));
      const std::vector<int32_t> slot(static_cast<size_t>(rows), 0);
      std::vector<int32_t> pos;
      for (int32_t t = 0; t < rows; ++t) pos.push_back(t);
      Cache expected(DType::I8, rows + 1, n_embd, n_head),
          cache(DType::I8, rows + 1, n_embd, n_head);
      for (const auto& [on, to] : {std::pair(plain.get(), &expected), {backend.get(), &cache}})
        on->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd), &to->layer,
                      {rows, slot.data(), pos.data()}, n_head, true);
      EXPECT_EQ(cache.k, expected.k) << "D=" << head_dim << " T=" << rows;
      EXPECT_EQ(cache.v, expected.v) << "D=" << head_dim << " T=" << rows;
    }
}

// What f16 does not have, which tensor cores multiply, is still no infinity.
TEST_P(KvCache, NumbersOf8BitsMayBeBeyondF16) {
  const int64_t n_embd = 64, rows = 40;
  Floats qkv(static_cast<size_t>(rows * 3 * n_embd), 1e6f), out(static_cast<size_t>(rows * n_embd));
  const std::vector<int32_t> slot(static_cast<size_t>(rows), 0);
  std::vector<int32_t> pos;
  for (int32_t t = 0; t < rows; ++t) pos.push_back(t);
  Cache cache(DType::I8, rows, n_embd, 1);
  backend->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd), &cache.layer,
                     {rows, slot.data(), pos.data()}, 1, true);
  for (const float y : out) ASSERT_GE(y, 65000.0f);
}

}  // namespace
}  // namespace barkrt
