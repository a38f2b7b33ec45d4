// stages_test.cc: each stage on small weights, by property.
#include <gtest/gtest.h>

#include "error.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

class SmallStages : public reference::EveryDevice {
 protected:
  void use(const Config& config) {
    SyntheticOptions options;
    options.instruction_set = GetParam();
    loaded_ = synthetic_model(config, 2, options);
    session_ = std::make_unique<Session>(loaded_.model, DType::F32);
  }
  StageRun stages(Rules rules, const Voice* voice = nullptr) const {
    Request request;
    request.rules = rules;
    request.voice = voice;
    request.seed = 42;
    return session_->run(request);
  }
  static std::vector<int32_t> ramp(int64_t n, int64_t vocabulary) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i)
      ids.push_back(static_cast<int32_t>((31 * i * i + 17 * i + 5) % vocabulary));
    return ids;
  }
  SyntheticModel loaded_;
  std::unique_ptr<Session> session_;
};
BARKRT_EVERY_DEVICE(SmallStages);

constexpr Sampling kWarm = {0.8f, 1, 0, 0};

TEST_P(SmallStages, CoarseCacheReuseNeverChangesATokenNorTheNumberOfSteps) {
  for (const Config& config : {small_config(), odd_config()}) {
    use(config);
    const Voice voice = synthetic_voice(config, 30, 45);
    for (const Rules rules : {Rules::Suno, Rules::Hf})
      for (const Voice* v : {static_cast<const Voice*>(nullptr), &voice})
        for (const int64_t n :
             is_cuda() ? std::vector<int64_t>{7} : std::vector<int64_t>{1, 7, 23, 60}) {
          StageRun run = stages(rules, v);
          const std::vector<int32_t> reused = run_coarse(run, ramp(n, 120), kWarm);
          run.coarse_cache_reuse = false;
          EXPECT_EQ(run_coarse(run, ramp(n, 120), kWarm), reused) << config.name << " " << n;
          EXPECT_EQ(static_cast<int64_t>(reused.size()), coarse_steps(config, rules, n));
        }
  }
}

TEST_P(SmallStages, CoarseTokensStayInTheirCodebooksRange) {
  use(small_config());
  const Config& c = session_->model().config();
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    const std::vector<int32_t> tokens = run_coarse(stages(rules), ramp(on_each(60, 9), 120), kWarm);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const LegalIds legal = coarse_legal(c, rules, static_cast<int64_t>(i));
      EXPECT_GE(tokens[i], legal.first);
      EXPECT_LT(tokens[i], legal.first + legal.count);
    }
    for (const int32_t code : coarse_codes(c, tokens).ids) {
      EXPECT_GE(code, 0);
      EXPECT_LT(code, c.codebook_size);
    }
  }
}

TEST_P(SmallStages, SemanticEndsAtTheContextWhenTheModelAsksForMore) {
  Config config = small_config();
  config.semantic.max_new_tokens = 1000;
  config.semantic.gpt.block_size = on_each(64, 24);
  use(config);
  // Suppress the end token: it must then be the context that ends the run.
  const int64_t expected = config.semantic.gpt.block_size - config.semantic.max_input_length;
  int64_t most = 0;
  for (uint64_t seed = 0; seed < 40 && most < expected; ++seed) {
    StageRun run = stages(Rules::Suno);
    run.seed = seed;
    most = std::max(most, static_cast<int64_t>(run_semantic(run, {5, 6}, kWarm, 0).size()));
  }
  EXPECT_EQ(most, expected);
}

TEST_P(SmallStages, SemanticTokensAreASeriesThatALimitOnlyCuts) {
  use(small_config());
  const std::vector<int32_t> all = run_semantic(stages(Rules::Suno), {5, 6}, kWarm, 0);
  ASSERT_GE(all.size(), 3u);
  EXPECT_EQ(run_semantic(stages(Rules::Suno), {5, 6}, kWarm, 3),
            std::vector<int32_t>(all.begin(), all.begin() + 3));
  EXPECT_EQ(run_semantic(stages(Rules::Suno), {5, 6}, kWarm, 100000), all);
}

TEST_P(SmallStages, AnyEndProbabilityEndsTheSemanticStageAtOnce) {
  use(small_config());
  Sampling s = kWarm;
  s.min_eos_p = 1e-30f;
  for (const Rules rules : {Rules::Suno, Rules::Hf})
    EXPECT_TRUE(run_semantic(stages(rules), {5, 6}, s, 0).empty());
}

TEST_P(SmallStages, FineCopiesTheCoarseCodebooksAndPredictsTheRest) {
  for (const Config& config : {small_config(), odd_config()}) {
    use(config);
    const Voice voice = synthetic_voice(config, 30, 45);
    const Codes coarse =
        coarse_codes(config, run_coarse(stages(Rules::Suno), ramp(on_each(60, 9), 120), kWarm));
    for (const Voice* v : {static_cast<const Voice*>(nullptr), &voice}) {
      const Codes fine = run_fine(stages(Rules::Suno, v), coarse, kWarm);
      ASSERT_EQ(fine.n_codebook, config.fine.n_fine_codebook);
      ASSERT_EQ(fine.n_frames, coarse.n_frames);
      for (size_t i = 0; i < coarse.ids.size(); ++i) EXPECT_EQ(fine.ids[i], coarse.ids[i]);
      for (const int32_t id : fine.ids) {
        EXPECT_GE(id, 0);
        EXPECT_LT(id, config.codebook_size);
      }
    }
  }
}

TEST_P(SmallStages, FineTemperatureOneIsTheArgmaxUnderHfAlone) {
  use(small_config());
  const int64_t n = on_each(30, 8);
  const Codes coarse = {2, n, ramp(2 * n, 48)};
  const Codes greedy = run_fine(stages(Rules::Suno), coarse, {});
  const Sampling one = {1, 1, 0, 0}, half = {0.5f, 1, 0, 0};
  EXPECT_EQ(run_fine(stages(Rules::Hf), coarse, one).ids, greedy.ids);
  EXPECT_NE(run_fine(stages(Rules::Suno), coarse, one).ids, greedy.ids);
  EXPECT_NE(run_fine(stages(Rules::Hf), coarse, half).ids, greedy.ids);
  EXPECT_EQ(run_fine(stages(Rules::Hf), coarse, half).ids,
            run_fine(stages(Rules::Suno), coarse, half).ids);
}

TEST_P(SmallStages, FineIgnoresFiltersAsTheReferencesDo) {
  use(small_config());
  const int64_t n = on_each(30, 8);
  const Codes coarse = {2, n, ramp(2 * n, 48)};
  const Sampling filtered = {0.5f, 0.1f, 1, 0};
  const Sampling plain = {0.5f, 1, 0, 0};
  EXPECT_EQ(run_fine(stages(Rules::Suno), coarse, filtered).ids,
            run_fine(stages(Rules::Suno), coarse, plain).ids);
}

TEST_P(SmallStages, ACoarseWindowPastTheContextIsRefusedAndShorterOnesRun) {
  Config config = small_config();
  config.coarse.gpt.block_size = 50;  // prompts of 25 and up to 25 tokens more
  use(config);
  EXPECT_EQ(run_coarse(stages(Rules::Suno), ramp(8, 120), {}).size(), 24u);
  try {
    run_coarse(stages(Rules::Suno), ramp(30, 120), {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Unsupported) << e.what();
  }
}

TEST_P(SmallStages, FineWindowsThatSkipFramesAreRefused) {
  Config config = small_config();
  config.fine.history_length = 25;  // over half of 40: windows behind a long voice do not meet
  use(config);
  const Codes coarse = {2, 60, ramp(120, 48)};
  EXPECT_EQ(run_fine(stages(Rules::Suno), coarse, {}).n_frames, 60);
  const Voice voice = synthetic_voice(config, 30, 45);
  try {
    run_fine(stages(Rules::Suno, &voice), coarse, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Unsupported) << e.what();
  }
}

TEST_P(SmallStages, NothingInGivesNothingOut) {
  use(small_config());
  const StageRun run = stages(Rules::Suno);
  const Codes coarse = coarse_codes(session_->model().config(), run_coarse(run, {}, {}));
  EXPECT_EQ(coarse.n_frames, 0);
  const Codes fine = run_fine(run, coarse, {});
  EXPECT_EQ(fine.n_frames, 0);
  run_codec(run, fine, [](const float*, int64_t) { FAIL(); });
}

}  // namespace
}  // namespace barkrt::test
