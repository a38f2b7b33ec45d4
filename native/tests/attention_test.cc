// attention_test.cc: attention over a cache against double precision, and prefill against steps.
#include <algorithm>

#include "error.h"
#include "kv_cache.h"
#include "reference.h"

namespace barkrt {
namespace {

using namespace reference;

class Attention : public EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(Attention);
BARKRT_IMITATED_AMX(Attention);

std::vector<KvLayer> layers(const std::vector<std::unique_ptr<Cache>>& caches) {
  std::vector<KvLayer> all;
  for (const auto& cache : caches) all.push_back(cache->layer);
  return all;
}

// One row's attention from the cache's own numbers.
Doubles attend(const Cache& cache, int64_t n_keys, const float* q, int64_t n_head) {
  const int64_t n_embd = cache.layer.n_embd, head_dim = n_embd / n_head;
  Doubles out(static_cast<size_t>(n_embd));
  for (int64_t h = 0; h < n_head; ++h) {
    Doubles weights;
    double total = 0;
    for (int64_t j = 0; j < n_keys; ++j) {
      double score = 0;
      for (int64_t d = h * head_dim; d < (h + 1) * head_dim; ++d)
        score += static_cast<double>(q[d]) * cache.value(cache.k, j, d);
      weights.push_back(std::exp(score / std::sqrt(static_cast<double>(head_dim))));
      total += weights.back();
    }
    for (int64_t j = 0; j < n_keys; ++j)
      for (int64_t d = h * head_dim; d < (h + 1) * head_dim; ++d)
        out[static_cast<size_t>(d)] +=
            weights[static_cast<size_t>(j)] / total * cache.value(cache.v, j, d);
  }
  return out;
}

// Scores of unit normal q and k stay below about 10 and come with an absolute error of some
// 10 * (D/4 + 16) roundoffs, which is the relative error of the weights; values stay below 5.
double attention_bound(int64_t head_dim) {
  return 50 * (static_cast<double>(head_dim) / 4 + 16) * kRoundoff;
}

// GPUs attend more than 16 rows of one cache of 16 or 8 bits on tensor cores where heads have 64 or
// 128 channels, with queries and weights rounded to f16, half a unit in the last place each: 2^-11.
// The magnitudes of a score's terms, divided by sqrt(D), sum to below 8 sqrt(D/64), so with its own
// rounding a weight moves by less than 10 sqrt(D/64) times that; values stay below 5, and most of
// it cancels. Of 8 bits, keys and values are rounded to f16 as well, which is as much again.
double bound_of(const Backend& backend, DType type, int64_t head_dim, int64_t rows) {
  if (backend.device() == "cpu" || type == DType::F32 || rows <= 16 || head_dim % 64 != 0)
    return attention_bound(head_dim);
  return (type == DType::I8 ? 2 : 1) * 5 * 10 * std::sqrt(static_cast<double>(head_dim) / 64) *
         0x1p-11;
}

struct Case {
  int64_t n_head, head_dim, rows;
};

void expect_attention(Backend& backend, const Case& c, DType type, bool causal) {
  SCOPED_TRACE(std::string(dtype_name(type)) + (causal ? " causal" : " full") +
               " heads=" + std::to_string(c.n_head) + " D=" + std::to_string(c.head_dim) +
               " T=" + std::to_string(c.rows));
  const int64_t n_embd = c.n_head * c.head_dim;
  Cache cache(type, c.rows + 1, n_embd, c.n_head);
  const Floats qkv = normal(c.rows * 3 * n_embd, 21);
  Floats out(static_cast<size_t>(c.rows * n_embd), NAN);
  std::vector<int32_t> slot(static_cast<size_t>(c.rows), 0), pos;
  for (int32_t t = 0; t < c.rows; ++t) pos.push_back(t);
  backend.attention(view(out.data(), c.rows, n_embd), read(qkv, c.rows, 3 * n_embd), &cache.layer,
                    {c.rows, slot.data(), pos.data()}, c.n_head, causal);
  for (int64_t t = 0; t < c.rows; ++t) {
    const float* row = qkv.data() + t * 3 * n_embd;
    for (int64_t i = 0; i < n_embd; ++i) {  // half a unit in the last place
      const double k = static_cast<double>(row[n_embd + i]);
      const double tolerance = type == DType::F16  ? std::fabs(k) * 0x1p-11 + 0x1p-25
                               : type == DType::I8 ? cache.scale(cache.k, t, i) * 0.50001
                                                   : 0;
      ASSERT_NEAR(cache.value(cache.k, t, i), k, tolerance);
    }
    const Doubles expected = attend(cache, causal ? t + 1 : c.rows, row, c.n_head);
    for (int64_t i = 0; i < n_embd; ++i)
      ASSERT_NEAR(out[static_cast<size_t>(t * n_embd + i)], expected[static_cast<size_t>(i)],
                  bound_of(backend, type, c.head_dim, c.rows))
          << "row " << t << " channel " << i;
  }
}

constexpr DType kCacheTypes[] = {DType::F16, DType::F32, DType::I8};

TEST_P(Attention, EqualsDoublePrecision) {
  for (const DType type : kCacheTypes)
    for (const bool causal : {true, false})
      for (const Case& c : {Case{1, 1, 1}, Case{1, 7, 33}, Case{2, 8, 3}, Case{3, 20, 70},
                            Case{2, 64, 130}, Case{1, 72, 100}, Case{1, 33, 7}, Case{2, 128, 70}})
        expect_attention(*backend, c, type, causal);
}

// Keys, values, queries and weights rounded to bf16, half a unit in the last place each: 2^-9 of a
// value below 5; a score of magnitude up to 10 moves by 2^-8 of the sum of its terms' magnitudes,
// here below 60 / sqrt(64), which is the relative error of a weight.
TEST_P(Attention, InBf16IsNearDoublePrecision) {
  for (const Case& c :
       {Case{1, 7, 33}, Case{3, 20, 70}, Case{1, 32, 1}, Case{2, 64, 130}, Case{1, 64, 300},
        Case{2, 96, 37}, Case{2, 80, 60}, Case{1, 16, 20}, Case{1, 33, 7}}) {
    SCOPED_TRACE("heads=" + std::to_string(c.n_head) + " D=" + std::to_string(c.head_dim) +
                 " T=" + std::to_string(c.rows));
    const int64_t n_embd = c.n_head * c.head_dim;
    for (const int64_t n_ctx : {(c.rows + 31) / 32 * 32, c.rows + 3}) {
      Cache exact(DType::F32, n_ctx, n_embd, c.n_head);
      Cache rounded(DType::BF16, n_ctx, n_embd, c.n_head);
      const Floats qkv = normal(c.rows * 3 * n_embd, 25);
      Floats out(static_cast<size_t>(c.rows * n_embd), NAN), near(out.size(), NAN);
      const std::vector<int32_t> slot(static_cast<size_t>(c.rows), 0);
      std::vector<int32_t> pos;
      for (int32_t t = 0; t < c.rows; ++t) pos.push_back(t);
      const Rows rows{c.rows, slot.data(), pos.data()};
      backend->attention(view(out.data(), c.rows, n_embd), read(qkv, c.rows, 3 * n_embd),
                         &exact.layer, rows, c.n_head, false);
      backend->attention(view(near.data(), c.rows, n_embd), read(qkv, c.rows, 3 * n_embd),
                         &rounded.layer, rows, c.n_head, false);
      double square = 0;
      for (size_t i = 0; i < out.size(); ++i) {
        const double error = static_cast<double>(near[i]) - static_cast<double>(out[i]);
        ASSERT_LT(std::fabs(error), 5 * 0x1p-5) << "number " << i;
        square += error * error;
      }
      EXPECT_LT(std::sqrt(square / static_cast<double>(out.size())), 0x1p-7);
      EXPECT_GT(square, c.rows == 1 && c.head_dim == 1 ? -1.0 : 0.0) << "nothing was rounded";
    }
  }
}

// A row's bits depend on its keys and on nothing else: not on the rows beside it, nor on threads.
TEST_P(Attention, InBf16BitsDoNotDependOnThreads) {
  const int64_t n_head = 2, n_embd = 2 * 64, rows = 230, n_ctx = 256;
  const Floats qkv = normal(rows * 3 * n_embd, 26);
  const std::vector<int32_t> slot(static_cast<size_t>(rows), 0);
  std::vector<int32_t> pos;
  for (int32_t t = 0; t < rows; ++t) pos.push_back(t);
  Floats first;
  for (const int threads : {1, 2, 3, 8}) {
    Cache cache(DType::BF16, n_ctx, n_embd, n_head);
    std::fill(cache.v.begin(), cache.v.end(), std::byte{0xff});  // NaN beyond the rows
    std::fill(cache.k.begin(), cache.k.end(), std::byte{0xff});
    Floats out(static_cast<size_t>(rows * n_embd));
    with_threads(threads)->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd),
                                     &cache.layer, {rows, slot.data(), pos.data()}, n_head, false);
    if (first.empty()) first = out;
    EXPECT_EQ(0, std::memcmp(first.data(), out.data(), out.size() * 4)) << threads;
  }
  for (const float y : first) ASSERT_TRUE(std::isfinite(y));
}

// Prefill of all rows, prefill in pieces, and one row at a time give the same bits.
TEST_P(Attention, StepsEqualPrefill) {
  const int64_t n_head = 2, n_embd = 2 * 24, total = 141;
  const Floats qkv = normal(total * 3 * n_embd, 22);
  const std::vector<int32_t> slot(static_cast<size_t>(total), 0);
  std::vector<int32_t> pos;
  for (int32_t t = 0; t < total; ++t) pos.push_back(t);
  for (const DType type : kCacheTypes) {
    Floats whole;
    for (const int64_t piece : {total, int64_t{1}, int64_t{2}, int64_t{50}}) {
      Cache cache(type, total, n_embd, n_head);
      Floats out(static_cast<size_t>(total * n_embd));
      for (int64_t t = 0; t < total; t += piece) {
        const int64_t n = std::min(piece, total - t);
        backend->attention(view(out.data() + t * n_embd, n, n_embd),
                           read(qkv, total, 3 * n_embd).slice(t, n), &cache.layer,
                           {n, slot.data() + t, pos.data() + t}, n_head, true);
      }
      if (whole.empty()) whole = out;
      EXPECT_EQ(0, std::memcmp(whole.data(), out.data(), out.size() * 4))
          << dtype_name(type) << " in pieces of " << piece;
    }
  }
}

// Rows of sequences whose caches differ in place, type and length, interleaved in one call, get the
// exact attention over their own cache, and the bits that each gets alone.
TEST_P(Attention, SequencesMayBeMixedInOneCall) {
  const int64_t n_head = 2, n_embd = 2 * 24, steps = 40, n_slot = 4;
  const DType types[n_slot] = {DType::F16, DType::F32, DType::F16, DType::I8};
  const auto make = [&] {
    std::vector<std::unique_ptr<Cache>> caches;
    for (int64_t s = 0; s < n_slot; ++s)
      caches.push_back(std::make_unique<Cache>(types[s], steps + 3 * s, n_embd, n_head));
    return caches;
  };
  const auto mixed = make(), alone = make();
  std::vector<int32_t> slot, pos;
  for (int32_t t = 0; t < steps; ++t)
    for (const int32_t s : {3, 0, 1})
      if ((t + s) % 5 != 0) slot.push_back(s), pos.push_back(t - (t + s) / 5);
  const int64_t rows = static_cast<int64_t>(slot.size());
  const Floats qkv = normal(rows * 3 * n_embd, 23);
  Floats out(static_cast<size_t>(rows * n_embd)), one(static_cast<size_t>(n_embd));
  backend->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd),
                     layers(mixed).data(), {rows, slot.data(), pos.data()}, n_head, true);
  for (int64_t t = 0; t < rows; ++t) {
    const Cache& cache = *alone[static_cast<size_t>(slot[static_cast<size_t>(t)])];
    const int32_t only = 0, at = pos[static_cast<size_t>(t)];
    backend->attention(view(one.data(), 1, n_embd), read(qkv, rows, 3 * n_embd).slice(t, 1),
                       &cache.layer, {1, &only, &at}, n_head, true);
    ASSERT_EQ(0, std::memcmp(one.data(), out.data() + t * n_embd, one.size() * 4)) << "row " << t;
    const Doubles expected = attend(cache, at + 1, qkv.data() + t * 3 * n_embd, n_head);
    for (int64_t i = 0; i < n_embd; ++i)
      ASSERT_NEAR(one[static_cast<size_t>(i)], expected[static_cast<size_t>(i)],
                  attention_bound(n_embd / n_head));
  }
  for (size_t s = 0; s < n_slot; ++s) {
    EXPECT_EQ(mixed[s]->k, alone[s]->k) << s;
    EXPECT_EQ(mixed[s]->v, alone[s]->v) << s;
  }
  EXPECT_EQ(mixed[2]->k, std::vector<std::byte>(mixed[2]->k.size())) << "not in the call";
}

// Random keys and values in all positions.
void fill(Cache& cache, uint32_t seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> distribution;
  for (std::vector<std::byte>* half : {&cache.k, &cache.v})
    for (size_t i = 0; i < half->size(); i += static_cast<size_t>(dtype_bytes(cache.type))) {
      const float value = distribution(bits);
      const auto f16 = static_cast<uint16_t>((bits() & 0x8000) | (0x3400 + bits() % 0x800));
      if (cache.type == DType::I8)
        (*half)[i] = static_cast<std::byte>(bits() % 255 - 127);
      else if (cache.type == DType::F16)
        std::memcpy(half->data() + i, &f16, 2);  // from 1/4 to 1
      else
        std::memcpy(half->data() + i, &value, 4);
    }
  if (cache.type != DType::I8) return;
  for (int64_t head = 0; head < cache.n_head; ++head)
    for (int64_t pos = 0; pos < cache.layer.n_ctx; ++pos)
      for (std::vector<std::byte>* half : {&cache.k, &cache.v}) {
        const float scale = static_cast<float>(1 + bits() % 100) * 0x1p-13f;
        std::memcpy(half->data() + cache.scale_at(pos, head), &scale, 4);
      }
}

// Single rows at the ends of what a device may give to one of its parts.
TEST_P(Attention, StepsBehindManyKeysEqualDoublePrecision) {
  const int64_t n_head = 2, n_ctx = 1030;
  for (const DType type : kCacheTypes)
    for (const int64_t head_dim : {24, 64, 128})
      for (const int32_t at : {0, 30, 32, 126, 127, 128, 129, 255, 256, 600, 1029}) {
        SCOPED_TRACE(std::string(dtype_name(type)) + " D=" + std::to_string(head_dim) +
                     " position " + std::to_string(at));
        const int64_t n_embd = n_head * head_dim;
        Cache cache(type, n_ctx, n_embd, n_head);
        fill(cache, 31);
        const std::vector<std::byte> before = cache.k;
        const Floats qkv = normal(3 * n_embd, 32);
        Floats out(static_cast<size_t>(n_embd), NAN);
        const int32_t slot = 0;
        backend->attention(view(out.data(), 1, n_embd), read(qkv, 1, 3 * n_embd), &cache.layer,
                           {1, &slot, &at}, n_head, true);
        const Doubles expected = attend(cache, at + 1, qkv.data(), n_head);
        for (int64_t i = 0; i < n_embd; ++i)
          ASSERT_NEAR(out[static_cast<size_t>(i)], expected[static_cast<size_t>(i)],
                      attention_bound(head_dim))
              << "channel " << i;
        const auto row = static_cast<size_t>(head_dim * dtype_bytes(type));
        std::vector<std::byte> after = cache.k;
        const auto put_back = [&](int64_t place, size_t bytes) {
          EXPECT_NE(0, std::memcmp(after.data() + place, before.data() + place, bytes));
          std::memcpy(after.data() + place, before.data() + place, bytes);
        };
        for (int64_t head = 0; head < n_head; ++head) {
          put_back(head * kv_head_bytes(type, n_ctx, head_dim) + at * static_cast<int64_t>(row),
                   row);
          if (type == DType::I8) put_back(cache.scale_at(at, head), 4);
        }
        EXPECT_EQ(after, before) << "wrote elsewhere";
      }
}

// Up to 16 rows get the bits that each gets alone, whatever the others' lengths and caches, rows of
// one sequence among them.
TEST_P(Attention, FewRowsGetTheBitsTheyGetAlone) {
  const int64_t n_head = 2;
  const std::vector<int32_t> slot = {0, 1, 2, 2, 3, 4, 5, 2, 6, 5, 7, 8, 9, 9, 9, 5};
  const std::vector<int32_t> pos = {700, 0,   126, 127, 127, 128, 254, 128,
                                    511, 256, 3,   40,  0,   1,   2,   257};
  const int64_t rows = static_cast<int64_t>(slot.size());
  for (const int64_t head_dim : {64, 128, 20}) {
    const int64_t n_embd = n_head * head_dim;
    const auto make = [&] {
      std::vector<std::unique_ptr<Cache>> caches;
      for (uint32_t s = 0; s < 10; ++s) {
        caches.push_back(
            std::make_unique<Cache>(kCacheTypes[s % 3], s == 0 ? 1200 : 520 + s, n_embd, n_head));
        fill(*caches.back(), 40 + s);
      }
      return caches;
    };
    const auto together = make(), alone = make();
    const Floats qkv = normal(rows * 3 * n_embd, 33);
    Floats out(static_cast<size_t>(rows * n_embd)), one(static_cast<size_t>(n_embd));
    backend->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd),
                       layers(together).data(), {rows, slot.data(), pos.data()}, n_head, true);
    for (int64_t t = 0; t < rows; ++t) {
      const auto i = static_cast<size_t>(t);
      const int32_t only = 0;
      backend->attention(view(one.data(), 1, n_embd), read(qkv, rows, 3 * n_embd).slice(t, 1),
                         &alone[static_cast<size_t>(slot[i])]->layer, {1, &only, &pos[i]}, n_head,
                         true);
      EXPECT_EQ(0, std::memcmp(one.data(), out.data() + t * n_embd, one.size() * 4))
          << "row " << t << " D=" << head_dim;
    }
    for (size_t s = 0; s < alone.size(); ++s) {
      EXPECT_EQ(together[s]->k, alone[s]->k) << s;
      EXPECT_EQ(together[s]->v, alone[s]->v) << s;
    }
  }
}

// Pieces of more than 16 rows behind what is in the cache already.
TEST_P(Attention, PrefillInPiecesGivesTheSameBits) {
  const int64_t n_head = 2, total = 230;
  const std::vector<int32_t> slot(static_cast<size_t>(total), 0);
  std::vector<int32_t> pos;
  for (int32_t t = 0; t < total; ++t) pos.push_back(t);
  for (const int64_t head_dim : {64, 128})
    for (const DType type : kCacheTypes) {
      const int64_t n_embd = n_head * head_dim;
      const Floats qkv = normal(total * 3 * n_embd, 34);
      Floats whole;
      for (const int64_t piece : {total, int64_t{62}, int64_t{115}}) {
        Cache cache(type, total + 9, n_embd, n_head);
        std::fill(cache.k.begin(), cache.k.end(), std::byte{0xff});  // NaN beyond the rows
        std::fill(cache.v.begin(), cache.v.end(), std::byte{0xff});
        Floats out(static_cast<size_t>(total * n_embd));
        for (int64_t t = 0; t < total; t += piece) {
          const int64_t n = std::min(piece, total - t);
          backend->attention(view(out.data() + t * n_embd, n, n_embd),
                             read(qkv, total, 3 * n_embd).slice(t, n), &cache.layer,
                             {n, slot.data() + t, pos.data() + t}, n_head, true);
        }
        if (whole.empty()) {
          whole = out;
          double square = 0;
          for (const int64_t t : {int64_t{0}, int64_t{63}, int64_t{64}, total - 1}) {
            const Doubles expected = attend(cache, t + 1, qkv.data() + t * 3 * n_embd, n_head);
            for (int64_t i = 0; i < n_embd; ++i) {
              const double error = static_cast<double>(out[static_cast<size_t>(t * n_embd + i)]) -
                                   expected[static_cast<size_t>(i)];
              ASSERT_LT(std::fabs(error), bound_of(*backend, type, head_dim, total)) << "row " << t;
              square += error * error;
            }
          }
          EXPECT_LT(std::sqrt(square / static_cast<double>(4 * n_embd)), 0x1p-10);
        }
        EXPECT_EQ(0, std::memcmp(whole.data(), out.data(), out.size() * 4))
            << dtype_name(type) << " D=" << head_dim << " in pieces of " << piece;
      }
    }
}

// A step of many sequences writes its keys where it attends: the same bits as each row
// alone, and whichever thread does it.
TEST_P(Attention, AStepOfManySequencesEqualsEachAlone) {
  const int64_t n_head = 3, n_embd = 3 * 64, n_slot = 16, past = 37;
  for (const DType type : kCacheTypes)
    for (const int threads : {1, 2, 3, 8}) {
      const auto on = with_threads(threads);
      std::vector<std::unique_ptr<Cache>> caches, alone;
      const Floats qkv = normal(n_slot * past * 3 * n_embd, 27);
      std::vector<int32_t> slot, pos;
      for (int32_t s = 0; s < n_slot; ++s) {
        for (auto* to : {&caches, &alone})
          to->push_back(std::make_unique<Cache>(type, past + 1, n_embd, n_head));
        slot.push_back(s), pos.push_back(s % 3 == 0 ? past - 1 : 2 * s);
        const std::vector<int32_t> zero(static_cast<size_t>(past), 0);
        std::vector<int32_t> before;
        for (int32_t t = 0; t < pos.back(); ++t) before.push_back(t);
        if (before.empty()) continue;
        const int64_t n = static_cast<int64_t>(before.size());
        Floats ignored(static_cast<size_t>(n * n_embd));
        for (const auto* to : {&caches, &alone})
          backend->attention(view(ignored.data(), n, n_embd),
                             read(qkv, n_slot * past, 3 * n_embd).slice(s * past, n),
                             &to->back()->layer, {n, zero.data(), before.data()}, n_head, true);
      }
      const Floats step = normal(n_slot * 3 * n_embd, 28);
      Floats out(static_cast<size_t>(n_slot * n_embd)), one(static_cast<size_t>(n_embd));
      on->attention(view(out.data(), n_slot, n_embd), read(step, n_slot, 3 * n_embd),
                    layers(caches).data(), {n_slot, slot.data(), pos.data()}, n_head, true);
      for (int64_t s = 0; s < n_slot; ++s) {
        const int32_t only = 0, at = pos[static_cast<size_t>(s)];
        const Cache& own = *alone[static_cast<size_t>(s)];
        backend->attention(view(one.data(), 1, n_embd), read(step, n_slot, 3 * n_embd).slice(s, 1),
                           &own.layer, {1, &only, &at}, n_head, true);
        ASSERT_EQ(0, std::memcmp(one.data(), out.data() + s * n_embd, one.size() * 4))
            << dtype_name(type) << " slot " << s << " of " << threads << " threads";
        ASSERT_EQ(caches[static_cast<size_t>(s)]->k, own.k);
        ASSERT_EQ(caches[static_cast<size_t>(s)]->v, own.v);
      }
    }
}

TEST_P(Attention, BitsDoNotDependOnThreads) {
  const int64_t n_head = 3, n_embd = 3 * 16, rows = 150;
  const Floats qkv = normal(rows * 3 * n_embd, 24);
  const std::vector<int32_t> slot(static_cast<size_t>(rows), 0);
  std::vector<int32_t> pos;
  for (int32_t t = 0; t < rows; ++t) pos.push_back(t);
  for (const bool causal : {true, false}) {
    Floats first;
    for (const int threads : {1, 2, 3, 8}) {
      Cache cache(DType::F16, rows, n_embd, n_head);
      Floats out(static_cast<size_t>(rows * n_embd));
      with_threads(threads)->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd),
                                       &cache.layer, {rows, slot.data(), pos.data()}, n_head,
                                       causal);
      if (first.empty()) first = out;
      EXPECT_EQ(0, std::memcmp(first.data(), out.data(), out.size() * 4)) << threads;
    }
  }
}

// Large scores must not overflow: the maximum is subtracted first.
TEST_P(Attention, LargeScoresPickTheLargest) {
  const int64_t n_embd = 8;
  Cache cache(DType::F32, 3, n_embd, 1);
  Floats qkv(static_cast<size_t>(3 * 3 * n_embd)), out(static_cast<size_t>(3 * n_embd));
  for (int64_t t = 0; t < 3; ++t) {
    qkv[static_cast<size_t>(t * 3 * n_embd)] = 1000;                                    // q
    qkv[static_cast<size_t>(t * 3 * n_embd + n_embd)] = t == 1 ? 1000.0f : -1000.0f;    // k
    qkv[static_cast<size_t>(t * 3 * n_embd + 2 * n_embd)] = static_cast<float>(t + 1);  // v
  }
  const int32_t slot[3] = {0, 0, 0}, pos[3] = {0, 1, 2};
  backend->attention(view(out.data(), 3, n_embd), read(qkv, 3, 3 * n_embd), &cache.layer,
                     {3, slot, pos}, 1, true);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[static_cast<size_t>(n_embd)], 2.0f);
  EXPECT_EQ(out[static_cast<size_t>(2 * n_embd)], 2.0f);
}

// The same where the largest score is not among the first or the last keys of a row.
TEST_P(Attention, LargeScoresPickTheLargestOfManyKeys) {
  const int64_t n_embd = 64, rows = 300;
  for (const DType type : kCacheTypes)
    for (const int64_t largest : {5, 200}) {
      const float tolerance = type == DType::I8 ? 0x1p-15f : 0;  // of a scale times 127
      Floats qkv(static_cast<size_t>(rows * 3 * n_embd)), out(static_cast<size_t>(rows * n_embd));
      std::vector<int32_t> slot(static_cast<size_t>(rows), 0), pos;
      for (int32_t t = 0; t < rows; ++t) {
        float* const row = qkv.data() + t * 3 * n_embd;
        row[0] = 1000;
        row[n_embd] = t == largest ? 1000.0f : -1000.0f;
        row[2 * n_embd] = static_cast<float>(t);
        pos.push_back(t);
      }
      Cache cache(type, rows, n_embd, 1);
      backend->attention(view(out.data(), rows, n_embd), read(qkv, rows, 3 * n_embd), &cache.layer,
                         {rows, slot.data(), pos.data()}, 1, true);
      for (int64_t t = largest; t < rows; ++t)
        ASSERT_NEAR(out[static_cast<size_t>(t * n_embd)], static_cast<float>(largest), tolerance)
            << t;
      backend->attention(view(out.data(), 1, n_embd),
                         read(qkv, rows, 3 * n_embd).slice(rows - 1, 1), &cache.layer,
                         {1, slot.data(), &pos.back()}, 1, true);
      EXPECT_NEAR(out[0], static_cast<float>(largest), tolerance) << "alone";
    }
}

TEST(AttentionChecks, PositionBeyondTheCacheIsAnInternalError) {
  const auto backend = make_cpu_backend(1);
  Cache cache(DType::F32, 2, 4, 1);
  Floats qkv(12), out(4);
  const int32_t slot = 0, pos = 2;
  try {
    backend->attention(view(out.data(), 1, 4), read(qkv, 1, 12), &cache.layer, {1, &slot, &pos}, 1,
                       true);
    FAIL() << "wrote position 2 of 2";
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Internal);
  }
}

}  // namespace
}  // namespace barkrt
