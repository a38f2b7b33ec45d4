// draws_test.cc: sample() of a device beside sample_row(), over rows, shapes and rules.
#include <algorithm>
#include <random>

#include "reference.h"
#include "sampling.h"

namespace barkrt {
namespace {

using namespace reference;

class Draws : public EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(Draws);

enum class Kind { Normal, Flat, Ties, Equal, Masked, Far };
constexpr Kind kKinds[] = {Kind::Normal, Kind::Flat,   Kind::Ties,
                           Kind::Equal,  Kind::Masked, Kind::Far};

Floats logits_of(Kind kind, int64_t n, uint32_t seed) {
  Floats row = normal(n, seed);
  for (size_t i = 0; i < row.size(); ++i) {
    float& x = row[i];
    switch (kind) {
      case Kind::Normal:
        x = 4 * x - 3;
        break;
      case Kind::Flat:
        x *= 0.1f;
        break;
      case Kind::Ties:  // many equal ones, 0 and -0 among them
        x = std::nearbyint(2 * x) / 2;
        break;
      case Kind::Equal:
        x = 1.5f;
        break;
      case Kind::Masked:
        if (i % 3 != 1) x = -INFINITY;
        break;
      case Kind::Far:  // weights down to the smallest floats and 0
        x *= 60;
        break;
    }
  }
  if (std::isinf(*std::max_element(row.begin(), row.end()))) row[0] = 0;
  return row;
}

SampleParams params_of(Rules rules, int64_t n, uint32_t variant, std::mt19937_64* bits) {
  constexpr float kTemperatures[] = {0.7f, 1.0f, 0.0f, 0.5f, 2.5f};
  constexpr float kTopPs[] = {1.0f, 0.95f, 0.45f, 0.999f, 1e-6f};
  SampleParams params;
  params.rules = rules;
  params.temperature = kTemperatures[variant % 5];
  params.top_p = kTopPs[variant / 5 % 5];
  const int32_t top_ks[] = {0, 50, 1, 3, static_cast<int32_t>(n) - 1};
  params.top_k = std::max(top_ks[variant / 25 % 5], 0);
  if (variant % 3 == 0) params.eos = static_cast<int32_t>((*bits)() % static_cast<uint64_t>(n));
  if (variant % 2 == 0) params.min_eos_p = 0.2f / static_cast<float>(n);
  params.coin = variant % 11 == 0 ? 0 : std::ldexp(static_cast<double>((*bits)() >> 11), -53);
  return params;
}

int32_t on_host(const Floats& row, const SampleParams& params) {
  Floats scratch(row.size() * 2);
  return sample_row(row.data(), static_cast<int64_t>(row.size()), params, scratch.data());
}

// Whether the host draws `id` too when the coin or a threshold moves by as much as exponentials
// in f32 may move the boundaries between them.
bool is_at_a_boundary(const Floats& row, const SampleParams& params, int32_t id) {
  constexpr double kMoved = 1e-6;
  for (const double coin : {-kMoved, 0.0, kMoved})
    for (const double top_p : {-kMoved, 0.0, kMoved})
      for (const double eos : {-kMoved, 0.0, kMoved}) {
        SampleParams moved = params;
        moved.coin = std::clamp(params.coin + coin, 0.0, 1 - 0x1p-53);
        if (params.top_p < 1) moved.top_p = static_cast<float>(params.top_p * (1 + top_p));
        moved.min_eos_p = static_cast<float>(params.min_eos_p * (1 + eos));
        if (on_host(row, moved) == id) return true;
      }
  return false;
}

// 2 rules x 125 settings x 6 kinds of rows for each short length; every 7th or 31st setting, which
// have all temperatures and filters, for long ones.
TEST_P(Draws, EqualThoseOfTheHost) {
  std::mt19937_64 bits(17);
  int64_t n_rows = 0, n_at_boundaries = 0;
  for (const int64_t n : {1, 7, 33, 257, 1056, 10001}) {
    const uint32_t step = n < 1000 ? 1 : n < 2000 ? 7 : 31;
    for (const Rules rules : {Rules::Suno, Rules::Hf}) {
      std::vector<SampleParams> params;
      std::vector<Floats> rows;
      Floats logits;
      for (uint32_t variant = 0; variant < 125; variant += step)
        for (const Kind kind : kKinds) {
          params.push_back(params_of(rules, n, variant, &bits));
          rows.push_back(logits_of(kind, n, variant * 8 + static_cast<uint32_t>(kind)));
          logits.insert(logits.end(), rows.back().begin(), rows.back().end());
          logits.insert(logits.end(), 3, NAN);  // between rows, never read
        }
      const auto count = static_cast<int64_t>(rows.size());
      std::vector<int32_t> ids(rows.size());
      backend->sample(ids.data(), {logits.data(), count, n, n + 3}, params.data());
      for (size_t t = 0; t < rows.size(); ++t) {
        ++n_rows;
        const int32_t expected = on_host(rows[t], params[t]);
        if (ids[t] == expected) continue;
        ++n_at_boundaries;
        ASSERT_TRUE(is_at_a_boundary(rows[t], params[t], ids[t]))
            << ids[t] << " instead of " << expected << ", row " << t << " of " << n;
      }
    }
  }
  RecordProperty("rows", static_cast<int>(n_rows));
  RecordProperty("at_boundaries", static_cast<int>(n_at_boundaries));
  EXPECT_LE(n_at_boundaries, n_rows / 1000);
}

// Where all sums are exact, coins and thresholds on boundaries decide as on the host.
TEST_P(Draws, EqualThoseOfTheHostOnBoundaries) {
  const std::vector<Floats> rows = {Floats(4, 2.5f),
                                    Floats(64, -1.0f),  // of equal ones
                                    {-0.0f, 0.0f, -200.0f, 0.0f},
                                    {-80, 0, -80, -INFINITY}};  // -80: drawn by a coin of 0 alone
  for (const Floats& row : rows)
    for (const Rules rules : {Rules::Suno, Rules::Hf})
      for (const float temperature : {1.0f, 0.0f})
        for (const float p : {1e-30f, 0.25f, 0.5f, 0.75f, 1.0f})
          for (const float min_eos_p : {0.0f, 0.25f, 0.5f})
            for (int i = 0; i < 8; ++i) {
              SampleParams params;
              params.rules = rules, params.temperature = temperature, params.top_p = p;
              params.eos = 3, params.min_eos_p = min_eos_p;
              params.coin = i / 8.0;
              int32_t id;
              backend->sample(&id, read(row, 1, static_cast<int64_t>(row.size())), &params);
              ASSERT_EQ(id, on_host(row, params))
                  << row[0] << " p " << p << " coin " << params.coin << " eos " << min_eos_p;
            }
}

}  // namespace
}  // namespace barkrt
