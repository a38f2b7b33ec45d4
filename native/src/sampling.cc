// sampling.cc: filters, early stop and draw of one row; the random stream.
#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "error.h"

namespace barkrt {
namespace {

constexpr float kDropped = -std::numeric_limits<float>::infinity();

// Four lanes on any processor; the same operations, so the same bits, on all of them.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));
typedef uint32_t FourBits __attribute__((vector_size(16)));
constexpr int64_t kLanes = 4;
constexpr int64_t kBlock = 64;  // weights that are added up before they join the others

// Numbers i .. i + 3 of n; `behind` where there are none.
Four load(const float* p, int64_t i, int64_t n, float behind) {
  Four v = {behind, behind, behind, behind};
  if (n - i >= kLanes)
    std::memcpy(&v, p + i, sizeof v);
  else
    std::memcpy(&v, p + i, static_cast<size_t>(n - i) * sizeof(float));
  return v;
}

// Index of the largest logit, lowest index among equals. Refuses rows that have no distribution.
int32_t argmax_row(const float* logits, int64_t n) {
  const float first = logits[0];
  Four top = {first, first, first, first};
  FourInts is_nan = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    const Four v = load(logits, i, n, first);
    is_nan |= v != v;
    top = v > top ? v : top;
  }
  if (is_nan[0] | is_nan[1] | is_nan[2] | is_nan[3])
    fail(Status::Internal, "the logits contain NaN");
  const float most = std::max(std::max(top[0], top[1]), std::max(top[2], top[3]));
  if (std::isinf(most))
    fail(Status::Internal, "the largest of %lld logits is %f", static_cast<long long>(n),
         static_cast<double>(most));
  return static_cast<int32_t>(std::find(logits, logits + n, most) - logits);
}

// 2^x for x <= 0, and 0 below -126: a minimax polynomial for 2^r, |r| <= 1/2, relative error below
// 2^-25.
Four power_of_two(Four x) {
  const Four least = Four{} - 126.0f;
  const Four rounder = Four{} + 0x1.8p23f;
  const Four shifted = (x > least ? x : least) + rounder;
  const Four r = (x > least ? x : least) - (shifted - rounder);
  Four p = Four{} + 0x1.41d334p-13f;
  p = p * r + 0x1.5f456ap-10f;
  p = p * r + 0x1.3b2dbcp-7f;
  p = p * r + 0x1.c6aed4p-5f;
  p = p * r + 0x1.ebfbdap-3f;
  p = p * r + 0x1.62e43p-1f;
  p = p * r + 1.0f;
  // The whole part is in the last bits of `shifted`; it moves into the exponent.
  const Four power = reinterpret_cast<Four>(reinterpret_cast<FourBits>(p) +
                                            (reinterpret_cast<FourBits>(shifted) << 23));
  return x < least ? Four{} : power;
}

// The sum of weights begin .. of one block.
double block_sum(const float* weights, int64_t begin, int64_t n) {
  typedef double Two __attribute__((vector_size(16)));
  Two low = {}, high = {};
  for (int64_t i = begin; i < std::min(begin + kBlock, n); i += kLanes) {
    const Four v = load(weights, i, n, 0);
    low += Two{static_cast<double>(v[0]), static_cast<double>(v[1])};
    high += Two{static_cast<double>(v[2]), static_cast<double>(v[3])};
  }
  return (low[0] + low[1]) + (high[0] + high[1]);
}

// scores[i] = exp((scores[i] - max) / temperature); returns the sum, of blocks in order.
double weigh(float* scores, int64_t n, float max, double temperature) {
  constexpr double kLog2E = 1.4426950408889634, kMost = std::numeric_limits<float>::max();
  const float factor = static_cast<float>(std::min(kLog2E / temperature, kMost));
  for (int64_t i = 0; i < n; i += kLanes) {
    const Four weight = power_of_two((load(scores, i, n, max) - max) * factor);
    std::memcpy(scores + i, &weight, static_cast<size_t>(std::min(n - i, kLanes)) * sizeof(float));
  }
  double total = 0;
  for (int64_t i = 0; i < n; i += kBlock) total += block_sum(scores, i, n);
  return total;
}

// Softmax probability of entry `index` of score[i] / temperature.
double probability(const float* scores, int64_t n, float max, double temperature, int32_t index) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i)
    total += std::exp((static_cast<double>(scores[i]) - max) / temperature);
  return std::exp((static_cast<double>(scores[index]) - max) / temperature) / total;
}

// Drops scores below the k-th largest; all that equal it stay. order: n ids of space.
void keep_top_k(float* scores, int64_t n, int64_t k, int32_t* order) {
  if (k <= 0 || k >= n) return;
  for (int64_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(i);
  std::nth_element(order, order + (k - 1), order + n,
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  const float kth = scores[order[k - 1]];
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] < kth) scores[i] = kDropped;
}

// Nucleus filter on softmax(scores / temperature); among equals the lower index counts as the more
// probable.
//   Suno: walks down and stops behind the first entry whose cumulative probability exceeds p.
//   HF:   walks up and drops while the cumulative probability is <= 1 - p; keeps the last.
void keep_top_p(float* scores, int64_t n, float max, double temperature, float p, Rules rules,
                int32_t* order) {
  if (!(p < 1)) return;
  int64_t count = 0;
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (scores[i] == kDropped) continue;
    order[count++] = static_cast<int32_t>(i);
    total += std::exp((static_cast<double>(scores[i]) - max) / temperature);
  }
  std::sort(order, order + count, [&](int32_t a, int32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  const auto weight = [&](int64_t i) {
    return std::exp((static_cast<double>(scores[order[i]]) - max) / temperature) / total;
  };
  int64_t kept = count;
  double cumulative = 0;
  if (rules == Rules::Suno) {
    for (kept = 0; kept < count && !(cumulative > static_cast<double>(p)); ++kept)
      cumulative += weight(kept);
  } else {
    while (kept > 1 && (cumulative += weight(kept - 1)) <= 1.0 - static_cast<double>(p)) --kept;
  }
  for (int64_t i = kept; i < count; ++i) scores[order[i]] = kDropped;
}

// Inverse of the cumulative distribution at `coin`, entries in index order. weights are not
// normalised; at least one is positive. total: as weigh() returns it.
int32_t draw(const float* weights, int64_t n, double total, double coin) {
  const double target = coin * total;
  double cumulative = 0;
  int64_t begin = 0;
  for (; begin + kBlock < n; begin += kBlock) {
    const double next = cumulative + block_sum(weights, begin, n);
    if (next > target) break;
    cumulative = next;
  }
  int64_t last = -1;
  for (int64_t i = begin; i < n; ++i) {
    if (!(weights[i] > 0)) continue;
    cumulative += static_cast<double>(weights[i]);
    last = i;
    if (cumulative > target) break;
  }
  // Rounding alone leads past the last positive weight.
  for (int64_t i = n - 1; last < 0; --i)
    if (weights[i] > 0) last = i;
  return static_cast<int32_t>(last);
}

}  // namespace

int32_t sample_row(const float* logits, int64_t n, const SampleParams& params, void* scratch) {
  BARKRT_CHECK(n > 0 && params.eos < n);
  const int32_t best = argmax_row(logits, n);
  const float max = logits[best];
  const bool may_stop = params.eos >= 0 && params.min_eos_p > 0;
  const double min_eos_p = static_cast<double>(params.min_eos_p);
  // Neither reference defines the early stop at temperature 0 with filters: the plain softmax
  // decides then, with each one's comparison.
  if (may_stop && (params.rules == Rules::Hf || !(params.temperature > 0))) {
    const double p = probability(logits, n, max, 1.0, params.eos);
    if (params.rules == Rules::Hf ? p > min_eos_p : p >= min_eos_p) return params.eos;
  }
  if (!(params.temperature > 0)) return best;

  const double temperature = static_cast<double>(params.temperature);
  float* scores = static_cast<float*>(scratch);
  int32_t* order = reinterpret_cast<int32_t*>(scores + n);
  std::copy(logits, logits + n, scores);
  if (params.rules == Rules::Suno) {
    keep_top_p(scores, n, max, 1.0, params.top_p, params.rules, order);
    keep_top_k(scores, n, params.top_k, order);
  } else {
    keep_top_k(scores, n, params.top_k, order);
    keep_top_p(scores, n, max, temperature, params.top_p, params.rules, order);
  }
  const double total = weigh(scores, n, max, temperature);
  if (may_stop && params.rules == Rules::Suno &&
      static_cast<double>(scores[params.eos]) / total >= min_eos_p)
    return params.eos;
  return draw(scores, n, total, params.coin);
}

void philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;  // golden ratio
  constexpr uint32_t kWeyl1 = 0xBB67AE85;  // sqrt(3) - 1
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * c0;
    const uint64_t p1 = kMultiplier1 * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

double random_uniform(uint64_t seed, uint32_t stage, uint32_t step, uint32_t row) {
  const uint32_t counter[4] = {stage, step, row, 0};
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  uint32_t words[4];
  philox4x32_10(counter, key, words);
  const uint64_t bits = (static_cast<uint64_t>(words[0]) << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace barkrt
