// parity_test.cc: every reference number of golden.h, stage by stage, with an f32 cache, on every
// instruction set and device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "golden.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

constexpr double kLogitTolerance = 5e-6;
constexpr double kAudioTolerance = 5e-6;

class Parity : public reference::EveryInstructionSet {
 protected:
  struct Loaded {
    explicit Loaded(const SyntheticOptions& options)
        : model(synthetic_model(golden_config(), 2, options)), session(model.model, DType::F32) {}
    SyntheticModel model;
    Session session;
  };

  void SetUp() override {
    EveryInstructionSet::SetUp();
    if (IsSkipped()) return;
    SyntheticOptions options;
    options.instruction_set = GetParam();
    std::unique_ptr<Loaded>& loaded = loaded_[options.instruction_set];
    if (!loaded) loaded = std::make_unique<Loaded>(options);
    session_ = &loaded->session;
  }
  static void TearDownTestSuite() { loaded_.clear(); }

  const Config& config() const { return session_->model().config(); }
  const ModelWeights& weights() const { return session_->model().weights(); }
  StageRun stages(Rules rules, const Voice* voice) const {
    Request request;
    request.rules = rules;
    request.voice = voice;
    return session_->run(request);
  }
  // The voice of the reference: frames follow from semantic tokens.
  Voice voice(int64_t n_semantic) const {
    return synthetic_voice(config(), n_semantic, n_semantic * 750 / 499);
  }
  std::vector<float> download(ConstView row) const {
    std::vector<float> out(row.cols);
    session_->model().backend().download(out.data(), row.data, row.cols * 4);
    return out;
  }
  // Logits over the whole vocabulary after one prompt.
  std::vector<float> all_logits(const GptWeights& w, const StageMemory& memory,
                                const std::vector<int32_t>& ids, int64_t n_tables) const {
    Sequence sequence(session_->model().backend(), w, memory.scratch, memory.kv);
    const std::vector<Matrix> tables(n_tables, w.wte[0]);
    sequence.feed(ids.data(), tables.data(), n_tables, static_cast<int64_t>(ids.size()) / n_tables);
    return download(sequence.logits(&w.lm_head[0], 1));
  }

  static std::map<std::string, std::unique_ptr<Loaded>> loaded_;  // by instruction set
  Session* session_ = nullptr;
};
std::map<std::string, std::unique_ptr<Parity::Loaded>> Parity::loaded_;
BARKRT_EVERY_INSTRUCTION_SET(Parity);

std::vector<int32_t> golden_text() {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 20; ++i) ids.push_back(100 + 37 * i);
  return ids;
}

TEST_P(Parity, WeightsFollowTheNamedRule) {
  const float* table = static_cast<const float*>(weights().semantic.wte[0].data);
  const std::vector<float> wte = download(view(table, 1, 4));
  EXPECT_FLOAT_EQ(wte[0], -0.21059883f);
  EXPECT_FLOAT_EQ(wte[1], 0.28055048f);
  EXPECT_FLOAT_EQ(wte[2], 0.49866849f);
  EXPECT_FLOAT_EQ(wte[3], 0.03005242f);
}

TEST_P(Parity, SemanticFirstLogits) {
  for (const SemanticGolden& g : kSemanticGoldens) {
    SCOPED_TRACE(g.n_history);
    const Voice history = g.n_history ? voice(g.n_history) : Voice();
    const std::vector<int32_t> prefix =
        semantic_prefix(config().semantic, golden_text(), g.n_history ? &history : nullptr);
    const std::vector<float> logits =
        all_logits(weights().semantic, stages(Rules::Suno, nullptr).memory.semantic, prefix, 2);
    for (size_t i = 0; i < g.logits_first8.size(); ++i)
      EXPECT_NEAR(logits[i], g.logits_first8[i], kLogitTolerance) << i;
    EXPECT_NEAR(logits[9999], g.logit_9999, kLogitTolerance);
    EXPECT_NEAR(logits[10000], g.logit_eos, kLogitTolerance);
    EXPECT_NEAR(logits[10047], g.logit_10047, kLogitTolerance);
    // Every logit's error enters the sums, whose terms number 10048.
    double sum = 0, squares = 0, weight = 0;
    for (const float l : logits) {
      sum += l;
      squares += static_cast<double>(l) * l;
    }
    for (int i = 0; i <= 10000; ++i) weight += std::exp(static_cast<double>(logits[i]));
    EXPECT_NEAR(sum, g.sum, 1e-3);
    EXPECT_NEAR(squares, g.sum_squares, 2e-2);
    EXPECT_NEAR(std::exp(static_cast<double>(logits[10000])) / weight, g.p_eos, 1e-10);
    EXPECT_EQ(std::max_element(logits.begin(), logits.begin() + 10001) - logits.begin(), g.argmax);
  }
}

TEST_P(Parity, SemanticGreedyTokens) {
  for (const SemanticGolden& g : kSemanticGoldens) {
    SCOPED_TRACE(g.n_history);
    const Voice history = g.n_history ? voice(g.n_history) : Voice();
    for (const Rules rules : {Rules::Suno, Rules::Hf}) {
      const StageRun r = stages(rules, g.n_history ? &history : nullptr);
      EXPECT_EQ(run_semantic(r, golden_text(), {}, static_cast<int64_t>(g.greedy.size())),
                g.greedy);
    }
  }
}

TEST_P(Parity, CoarseLogitsAndTokensUnderBothRules) {
  for (const CoarseGolden& g : kCoarseGoldens) {
    SCOPED_TRACE(g.n_history);
    const Voice speaker = g.n_history ? voice(g.n_history) : Voice();
    const Voice* v = g.n_history ? &speaker : nullptr;
    std::vector<int32_t> semantic;
    for (int64_t i = 0; i < g.n_semantic; ++i)
      semantic.push_back(static_cast<int32_t>((31 * i * i + 17 * i + 5) % 10000));

    const CoarseHistory history = coarse_history(config(), v);
    EXPECT_EQ(static_cast<int64_t>(history.semantic.size()), g.base);
    EXPECT_EQ(static_cast<int64_t>(history.coarse.size()), g.n_coarse_history);
    std::vector<int32_t> all = history.semantic;
    all.insert(all.end(), semantic.begin(), semantic.end());
    const std::vector<float> logits =
        all_logits(weights().coarse, stages(Rules::Suno, v).memory.coarse,
                   coarse_prompt(config(), all, g.base, history.coarse, 0), 1);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(logits[10000 + i], g.logits_at_10000[i], kLogitTolerance) << i;
      EXPECT_NEAR(logits[11024 + i], g.logits_at_11024[i], kLogitTolerance) << i;
    }
    EXPECT_EQ(run_coarse(stages(Rules::Suno, v), semantic, {}), g.tokens);
    EXPECT_EQ(run_coarse(stages(Rules::Hf, v), semantic, {}), g.tokens_hf);
  }
}

uint64_t checksum(const Codes& codes) {
  uint64_t x = 0;
  for (const int32_t id : codes.ids) x = x * 1000003u + static_cast<uint64_t>(id) + 1;
  return x;
}

Codes golden_coarse_codes(int64_t n_frames) {
  Codes codes{2, n_frames, {}};
  for (int64_t k = 0; k < 2; ++k)
    for (int64_t i = 0; i < n_frames; ++i)
      codes.ids.push_back(static_cast<int32_t>((19 * i * i + 23 * i + 7 + 501 * k) % 1024));
  return codes;
}

TEST_P(Parity, FineCodes) {
  for (const FineGolden& g : kFineGoldens) {
    SCOPED_TRACE(g.n_frames);
    const Voice speaker = g.n_history ? voice(g.n_history) : Voice();
    const Codes coarse = golden_coarse_codes(g.n_frames);
    const Codes codes = run_fine(stages(Rules::Suno, g.n_history ? &speaker : nullptr), coarse, {});
    ASSERT_EQ(codes.n_codebook, 8);
    ASSERT_EQ(codes.n_frames, g.n_frames);
    for (int64_t q = 2; q < 8; ++q) {
      for (int64_t i = 0; i < 6; ++i)
        EXPECT_EQ(codes.at(q, i), g.first6[q - 2][i]) << q << " " << i;
      for (int64_t i = 0; i < 3; ++i)
        EXPECT_EQ(codes.at(q, g.n_frames - 3 + i), g.last3[q - 2][i]) << q << " " << i;
    }
    for (size_t q = 0; q < g.codes.size(); ++q)
      for (int64_t t = 0; t < g.n_frames; ++t)
        EXPECT_EQ(codes.at(static_cast<int64_t>(q), t), g.codes[q][t]) << q << " " << t;
    EXPECT_EQ(checksum(codes), g.checksum);
  }
}

// The first pass of the first window, by hand: codebook 2 of row 0.
TEST_P(Parity, FineLogitsOfTheFirstPass) {
  for (const FineGolden& g : kFineGoldens) {
    SCOPED_TRACE(g.n_frames);
    const StageRun r = stages(Rules::Suno, nullptr);
    const int64_t h = std::min<int64_t>(512, g.n_history_frames), n = 1024;
    const Voice speaker = g.n_history ? voice(g.n_history) : Voice();
    const Codes coarse = golden_coarse_codes(g.n_frames);
    std::vector<int32_t> ids(3 * n, 1024), slots(n, 0), positions(n);
    std::iota(positions.begin(), positions.end(), 0);
    for (int64_t q = 0; q < 3; ++q)
      for (int64_t t = 0; t < n; ++t) {
        if (t < h)
          ids[q * n + t] = speaker.fine.at(q, speaker.fine.n_frames - h + t);
        else if (q < 2 && t - h < g.n_frames)
          ids[q * n + t] = coarse.at(q, t - h);
      }
    Backend& device = r.model.backend();
    const StageMemory& m = r.memory.fine;
    gpt_forward(device, weights().fine, m.scratch, {m.kv},
                {ids.data(), weights().fine.wte.data(), 3}, {n, slots.data(), positions.data()},
                false, {0, n}, {});
    const ConstView hidden = gpt_final_norm(device, weights().fine, m.scratch, 0, 1);
    device.linear(view(m.scratch.wide, 1, 1056), hidden, weights().fine.lm_head[1], nullptr, {});
    const std::vector<float> logits =
        download(view(static_cast<const float*>(m.scratch.wide), 1, 1056));
    for (size_t i = 0; i < 4; ++i)
      EXPECT_NEAR(logits[i], g.logits_codebook2_row0[i], kLogitTolerance) << i;
  }
}

TEST_P(Parity, CodecSamples) {
  for (const CodecGolden& g : kCodecGoldens) {
    SCOPED_TRACE(g.n_frames);
    Codes codes{8, g.n_frames, {}};
    for (int64_t c = 0; c < 8; ++c)
      for (int64_t t = 0; t < g.n_frames; ++t)
        codes.ids.push_back(
            static_cast<int32_t>((17 * t * t + 41 * t * (c + 1) + 97 * c + 5) % 1024));
    std::vector<float> pcm;
    run_codec(stages(Rules::Suno, nullptr), codes,
              [&](const float* p, int64_t n) { pcm.insert(pcm.end(), p, p + n); });
    ASSERT_EQ(static_cast<int64_t>(pcm.size()), 320 * g.n_frames);
    for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(pcm[i], g.first8[i], kAudioTolerance) << i;
    for (size_t i = 0; i < 4; ++i)
      EXPECT_NEAR(pcm[pcm.size() - 4 + i], g.last4[i], kAudioTolerance) << i;
    double sum = 0, squares = 0, most = 0;
    for (const float s : pcm) {
      sum += s;
      squares += static_cast<double>(s) * s;
      most = std::max<double>(most, std::fabs(s));
    }
    EXPECT_NEAR(sum, g.sum, 5e-7 * static_cast<double>(pcm.size()) + 1e-6);
    EXPECT_NEAR(squares, g.sum_squares, 1e-5 * g.sum_squares);
    EXPECT_NEAR(most, g.abs_max, kAudioTolerance);
  }
}

}  // namespace
}  // namespace barkrt::test
