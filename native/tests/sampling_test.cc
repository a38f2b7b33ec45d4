// sampling_test.cc: kept sets, early stop and draws of one row; the random stream.
#include "sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "error.h"

namespace barkrt {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

int32_t sample(const std::vector<float>& logits, const SampleParams& params) {
  std::vector<float> scratch(logits.size() * 2);
  return sample_row(logits.data(), static_cast<int64_t>(logits.size()), params, scratch.data());
}

SampleParams with(Rules rules, float temperature, int32_t top_k, float top_p) {
  SampleParams params;
  params.rules = rules;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  return params;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// Every index that some coin gives.
std::set<int32_t> kept(const std::vector<float>& logits, SampleParams params) {
  std::set<int32_t> ids;
  for (int i = 0; i < 4000; ++i) {
    params.coin = i / 4000.0;
    ids.insert(sample(logits, params));
  }
  return ids;
}

using Ids = std::set<int32_t>;

TEST(Sampling, TemperatureZeroTakesTheFirstOfTheLargest) {
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(sample({1, 3, 2, 3}, with(rules, 0, 0, 1)), 1);
    EXPECT_EQ(sample({-5}, with(rules, 0, 0, 1)), 0);
    EXPECT_EQ(sample({-kInf, -4, -3}, with(rules, 0, 2, 0.1f)), 2);
  }
}

TEST(Sampling, TopKKeepsTiesWithTheLastOne) {
  const std::vector<float> logits = logs({0.2, 0.1, 0.3, 0.1, 0.2, 0.1});
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(kept(logits, with(rules, 1, 1, 1)), (Ids{2}));
    EXPECT_EQ(kept(logits, with(rules, 1, 2, 1)), (Ids{0, 2, 4}));
    EXPECT_EQ(kept(logits, with(rules, 1, 3, 1)), (Ids{0, 2, 4}));
    EXPECT_EQ(kept(logits, with(rules, 1, 4, 1)), (Ids{0, 1, 2, 3, 4, 5}));
  }
}

TEST(Sampling, TopKOffOrBeyondTheRowKeepsAll) {
  const std::vector<float> logits = logs({0.25, 0.25, 0.5});
  for (const Rules rules : {Rules::Suno, Rules::Hf})
    for (const int32_t k : {0, 3, 4, 1000})
      EXPECT_EQ(kept(logits, with(rules, 1, k, 1)), (Ids{0, 1, 2})) << k;
}

// Suno keeps the entry that first exceeds p; HF drops the tail up to and including 1 - p.
TEST(Sampling, TopPKeepsTheSmallestSetThatExceedsIt) {
  const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(kept(logits, with(rules, 1, 0, 0.35f)), (Ids{1}));
    EXPECT_EQ(kept(logits, with(rules, 1, 0, 0.45f)), (Ids{1, 3}));
    EXPECT_EQ(kept(logits, with(rules, 1, 0, 0.75f)), (Ids{1, 2, 3}));
    EXPECT_EQ(kept(logits, with(rules, 1, 0, 0.95f)), (Ids{0, 1, 2, 3}));
    EXPECT_EQ(kept(logits, with(rules, 1, 0, 1)), (Ids{0, 1, 2, 3}));
  }
}

TEST(Sampling, TinyTopPKeepsTheLargestAlone) {
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(kept({1, 2, 5, 3}, with(rules, 2, 0, 1e-30f)), (Ids{2}));
    EXPECT_EQ(kept({2, 2, 2}, with(rules, 1, 0, 1e-30f)), (Ids{0}));  // lowest index among equals
  }
}

// At temperature 4 the scaled distribution is flat, the raw one is not.
TEST(Sampling, SunoTakesTopPOnRawLogitsAndHfOnScaledOnes) {
  const std::vector<float> logits = logs({0.7, 0.1, 0.1, 0.06, 0.04});
  EXPECT_EQ(kept(logits, with(Rules::Suno, 4, 0, 0.65f)), (Ids{0}));
  EXPECT_EQ(kept(logits, with(Rules::Hf, 4, 0, 0.65f)), (Ids{0, 1, 2}));
}

// Suno: top-p over all five keeps {0, 1, 2}, then the two best. HF: of the two best, renormalised
// to 0.57 and 0.43, the first alone reaches 0.55.
TEST(Sampling, OrderOfFiltersIsTheRules) {
  const std::vector<float> logits = logs({0.4, 0.3, 0.15, 0.1, 0.05});
  EXPECT_EQ(kept(logits, with(Rules::Suno, 1, 2, 0.55f)), (Ids{0, 1}));
  EXPECT_EQ(kept(logits, with(Rules::Hf, 1, 2, 0.55f)), (Ids{0}));
}

TEST(Sampling, MaskedEntriesAreNeverDrawn) {
  for (const Rules rules : {Rules::Suno, Rules::Hf})
    EXPECT_EQ(kept({-kInf, 0, -kInf, 0, -kInf}, with(rules, 1, 4, 0.999f)), (Ids{1, 3}));
}

SampleParams early_stop(Rules rules, float temperature, float min_eos_p, double coin) {
  SampleParams params = with(rules, temperature, 0, 1);
  params.eos = 2;
  params.min_eos_p = min_eos_p;
  params.coin = coin;
  return params;
}

// p(EOS) is exactly a quarter: Suno stops at >=, HF only above.
TEST(Sampling, EarlyStopComparesAsItsRules) {
  const std::vector<float> logits = {0, 0, 0, 0};
  EXPECT_EQ(sample(logits, early_stop(Rules::Suno, 1, 0.25f, 0)), 2);
  EXPECT_EQ(sample(logits, early_stop(Rules::Hf, 1, 0.25f, 0)), 0);
  EXPECT_EQ(sample(logits, early_stop(Rules::Hf, 1, 0.2499f, 0)), 2);
  EXPECT_EQ(sample(logits, early_stop(Rules::Suno, 1, 0.2501f, 0)), 0);
  EXPECT_EQ(sample(logits, early_stop(Rules::Suno, 1, 0, 0)), 0);  // off
}

// At half the temperature 0.2 of {0.4, 0.4, 0.2} becomes 0.04 / 0.36 = 0.111.
TEST(Sampling, EarlyStopUsesScaledProbabilitiesForSunoAndRawOnesForHf) {
  const std::vector<float> logits = logs({0.4, 0.4, 0.2});
  EXPECT_EQ(sample(logits, early_stop(Rules::Suno, 0.5f, 0.15f, 0)), 0);
  EXPECT_EQ(sample(logits, early_stop(Rules::Suno, 0.5f, 0.11f, 0)), 2);
  EXPECT_EQ(sample(logits, early_stop(Rules::Hf, 0.5f, 0.15f, 0)), 2);
}

// A filter that drops EOS keeps Suno from stopping; HF looked before.
TEST(Sampling, EarlyStopFollowsTheFiltersForSunoOnly) {
  const std::vector<float> logits = logs({0.5, 0.3, 0.2});
  SampleParams params = early_stop(Rules::Suno, 1, 0.1f, 0);
  params.top_k = 2;
  EXPECT_EQ(sample(logits, params), 0);
  params.rules = Rules::Hf;
  EXPECT_EQ(sample(logits, params), 2);
}

TEST(Sampling, EarlyStopHoldsAtTemperatureZero) {
  const std::vector<float> logits = logs({0.5, 0.25, 0.25});
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    EXPECT_EQ(sample(logits, early_stop(rules, 0, 0.2f, 0)), 2);
    EXPECT_EQ(sample(logits, early_stop(rules, 0, 0.3f, 0)), 0);
  }
}

TEST(Sampling, StageWithoutEosNeverStops) {
  SampleParams params = early_stop(Rules::Suno, 1, 0.01f, 0);
  params.eos = -1;
  EXPECT_EQ(sample({0, 0, 0}, params), 0);
}

TEST(Sampling, CoinWalksTheDistributionInIndexOrder) {
  const std::vector<float> logits = logs({0.25, 0.5, 0.25});
  SampleParams params = with(Rules::Suno, 1, 0, 1);
  const std::vector<std::pair<double, int32_t>> cases = {
      {0, 0}, {0.2499, 0}, {0.2501, 1}, {0.7499, 1}, {0.7501, 2}, {1 - 0x1p-53, 2}};
  for (const auto& [coin, id] : cases) {
    params.coin = coin;
    EXPECT_EQ(sample(logits, params), id) << coin;
  }
}

// Pearson's statistic of 50 000 draws over 6 cells stays below 20.5 (5 degrees of freedom, 0.1 %).
// The stream is fixed, so this is not a matter of luck.
TEST(Sampling, DrawsFollowTheSoftmaxAtTheTemperature) {
  const std::vector<float> logits = {0.3f, -1.2f, 2.0f, 0.0f, 1.1f, -0.4f};
  for (const float temperature : {0.5f, 1.0f, 1.7f}) {
    std::vector<double> expected;
    double total = 0;
    for (const float l : logits) total += std::exp(static_cast<double>(l / temperature));
    for (const float l : logits)
      expected.push_back(std::exp(static_cast<double>(l / temperature)) / total);
    std::vector<int> counts(logits.size());
    SampleParams params = with(Rules::Suno, temperature, 0, 1);
    const uint32_t n = 50000;
    for (uint32_t i = 0; i < n; ++i) {
      params.coin = random_uniform(7, 0, i, 0);
      ++counts[static_cast<size_t>(sample(logits, params))];
    }
    double chi_square = 0;
    for (size_t i = 0; i < counts.size(); ++i)
      chi_square += std::pow(counts[i] - n * expected[i], 2) / (n * expected[i]);
    EXPECT_LT(chi_square, 20.5) << temperature;
  }
}

TEST(Sampling, SmallTemperatureBecomesArgmax) {
  EXPECT_EQ(kept({1, 1.01f, 0}, with(Rules::Suno, 1e-6f, 0, 1)), (Ids{1}));
  EXPECT_EQ(kept({1, 1.01f, 0}, with(Rules::Hf, 1e-6f, 0, 0.9f)), (Ids{1}));
}

TEST(Sampling, RowsWithoutADistributionAreInternalErrors) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::vector<float>> rows = {{nan, 1}, {1, nan}, {-kInf, -kInf}, {1, kInf}};
  for (const std::vector<float>& row : rows)
    for (const float temperature : {0.0f, 1.0f}) {
      try {
        sample(row, with(Rules::Suno, temperature, 0, 1));
        ADD_FAILURE() << "drew from " << row[0] << ", " << row[1];
      } catch (const Error& e) {
        EXPECT_EQ(e.status(), Status::Internal);
      }
    }
}

// The known answers of the Random123 distribution, file kat_vectors.
TEST(Philox, GivesThePublishedAnswers) {
  struct Answer {
    uint32_t counter[4], key[2], words[4];
  };
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Answer& answer : answers) {
    uint32_t words[4];
    philox4x32_10(answer.counter, answer.key, words);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(words[i], answer.words[i]);
  }
}

TEST(Philox, EveryPartOfTheAddressMatters) {
  const std::set<double> coins = {random_uniform(1, 0, 0, 0),
                                  random_uniform(2, 0, 0, 0),
                                  random_uniform(uint64_t{1} << 32 | 1, 0, 0, 0),
                                  random_uniform(1, 1, 0, 0),
                                  random_uniform(1, 0, 1, 0),
                                  random_uniform(1, 0, 0, 1)};
  EXPECT_EQ(coins.size(), 6u);
  EXPECT_EQ(random_uniform(1, 2, 3, 4), random_uniform(1, 2, 3, 4));
}

TEST(Philox, CoinsAreUniform) {
  double sum = 0;
  std::vector<int> cells(16);
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double coin =
        random_uniform(3, 2, static_cast<uint32_t>(i / 100), static_cast<uint32_t>(i % 100));
    ASSERT_TRUE(coin >= 0 && coin < 1);
    sum += coin;
    ++cells[static_cast<size_t>(coin * 16)];
  }
  EXPECT_NEAR(sum / n, 0.5, 0.005);                                 // five deviations of the mean
  for (const int count : cells) EXPECT_NEAR(count, n / 16.0, 400);  // five deviations of a cell
}

}  // namespace
}  // namespace barkrt
