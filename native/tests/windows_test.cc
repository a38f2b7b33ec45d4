// windows_test.cc: the procedures around the transformers: prefixes, windows, lengths, histories,
// legal ids. No weights.
#include <gtest/gtest.h>

#include <cmath>

#include "error.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

Codes constant_codes(int64_t n_codebook, int64_t n_frames) {
  return {n_codebook, n_frames, std::vector<int32_t>(n_codebook * n_frames, 5)};
}

Voice plain_voice(int64_t n_semantic, int64_t n_frames) {
  return {std::vector<int32_t>(n_semantic, 7), constant_codes(2, n_frames),
          constant_codes(8, n_frames)};
}

TEST(SemanticPrefix, PadsTextAndHistoryOnTheRightAndMergesThem) {
  const SemanticConfig c = golden_config().semantic;
  Voice voice;
  voice.semantic = {1, 2, 3};
  const std::vector<int32_t> ids = semantic_prefix(c, {0, 5}, &voice);
  ASSERT_EQ(ids.size(), 2u * 257);
  EXPECT_EQ(ids[0], 10048);
  EXPECT_EQ(ids[1], 10053);
  EXPECT_EQ(ids[2], 129595);
  EXPECT_EQ(ids[255], 129595);
  EXPECT_EQ(ids[256], 129599);
  EXPECT_EQ(ids[257], 1);
  EXPECT_EQ(ids[259], 3);
  EXPECT_EQ(ids[260], 10000);
  EXPECT_EQ(ids[512], 10000);
  EXPECT_EQ(ids[513], -1);  // nothing is added to the infer token
}

TEST(SemanticPrefix, KeepsTheFirst256TextTokensAndTheLast256OfTheVoice) {
  const SemanticConfig c = golden_config().semantic;
  std::vector<int32_t> text(300);
  Voice voice;
  for (int32_t i = 0; i < 300; ++i) {
    text[i] = i;
    voice.semantic.push_back(i);
  }
  const std::vector<int32_t> ids = semantic_prefix(c, text, &voice);
  EXPECT_EQ(ids[255], 10048 + 255);
  EXPECT_EQ(ids[257], 44);
  EXPECT_EQ(ids[512], 299);
}

TEST(SemanticPrefix, RefusesATextTokenOutsideTheTable) {
  EXPECT_THROW(semantic_prefix(golden_config().semantic, {129600 - 10048}, nullptr), Error);
}

TEST(CoarseSteps, EqualTheExactFractionForBarksRates) {
  const Config c = golden_config();
  for (int64_t n = 0; n < 3000; ++n) {
    ASSERT_EQ(coarse_steps(c, Rules::Suno, n), 2 * (n * 750 / 499)) << n;
    ASSERT_EQ(coarse_steps(c, Rules::Hf, n), 2 * (n * 750 / 499)) << n;
  }
}

TEST(CoarseSteps, OfTransformersAreComputedInFloat32) {
  Config c = golden_config();
  c.semantic.rate_hz = 12.3;
  c.coarse.rate_hz = 20.5;  // 9 tokens are 15 frames, a hair less in float64
  EXPECT_EQ(coarse_steps(c, Rules::Suno, 9), 28);
  EXPECT_EQ(coarse_steps(c, Rules::Hf, 9), 30);
}

struct HistoryCase {
  int64_t n_semantic, n_frames, kept_semantic, kept_coarse;
};

TEST(CoarseHistory, KeepsAlignedTailsAndDropsTheLastTwoTokens) {
  const Config c = golden_config();
  const HistoryCase cases[] = {
      {158, 237, 157, 470}, {309, 464, 209, 626}, {190, 285, 189, 566}, {400, 601, 209, 626},
      {100, 150, 99, 296},  {3, 4, 2, 4},         {2, 3, 1, 1},
  };
  for (const HistoryCase& k : cases) {
    SCOPED_TRACE(k.n_semantic);
    const Voice voice = plain_voice(k.n_semantic, k.n_frames);
    const CoarseHistory h = coarse_history(c, &voice);
    EXPECT_EQ(static_cast<int64_t>(h.semantic.size()), k.kept_semantic);
    EXPECT_EQ(static_cast<int64_t>(h.coarse.size()), k.kept_coarse);
  }
}

TEST(CoarseHistory, InterleavesCodebooksWithTheirOffsetsAndEndsOnTheLast) {
  const Config c = golden_config();
  const Voice voice = synthetic_voice(c, 40, 60);
  const CoarseHistory h = coarse_history(c, &voice);
  const int64_t last = 58;  // frame 59 is dropped
  EXPECT_EQ(h.coarse.back(), 11024 + voice.coarse.at(1, last));
  EXPECT_EQ(h.coarse[h.coarse.size() - 2], 10000 + voice.coarse.at(0, last));
  EXPECT_EQ(h.semantic.back(), voice.semantic.back());
}

TEST(CoarseHistory, OfOneSemanticTokenKeepsEverything) {
  const Voice voice = plain_voice(1, 40);  // Python's x[-0:]
  const CoarseHistory h = coarse_history(golden_config(), &voice);
  EXPECT_EQ(h.semantic.size(), 1u);
  EXPECT_EQ(h.coarse.size(), 78u);
}

struct WindowRow {
  int64_t done, start, real, pads, history;
};
struct WindowCase {
  int64_t n_semantic, base, n_history, n_steps;
  std::vector<WindowRow> rows;
};

TEST(CoarseWindows, FollowTheReferenceTables) {
  const Config c = golden_config();
  const WindowCase cases[] = {
      {40, 0, 0, 120, {{0, 0, 40, 216, 0}, {60, 0, 40, 216, 60}}},
      {100,
       209,
       626,
       300,
       {{0, 0, 256, 0, 626},
        {60, 20, 256, 0, 630},
        {120, 40, 256, 0, 630},
        {180, 60, 249, 7, 630},
        {240, 80, 229, 27, 630}}},
      {300,
       0,
       0,
       900,
       {{540, 0, 256, 0, 540},
        {600, 0, 256, 0, 600},
        {660, 11, 256, 0, 630},
        {840, 70, 230, 26, 630}}},
      {25, 157, 470, 74, {{0, 0, 182, 74, 470}, {60, 0, 182, 74, 530}}},
  };
  for (const WindowCase& k : cases) {
    SCOPED_TRACE(k.n_semantic);
    EXPECT_EQ(coarse_steps(c, Rules::Suno, k.n_semantic), k.n_steps);
    std::vector<int32_t> semantic;
    for (int64_t i = 0; i < k.base + k.n_semantic; ++i) semantic.push_back(static_cast<int32_t>(i));
    for (const WindowRow& w : k.rows) {
      const std::vector<int32_t> coarse(k.n_history + w.done, 10001);
      const std::vector<int32_t> prompt = coarse_prompt(c, semantic, k.base, coarse, w.done);
      ASSERT_EQ(static_cast<int64_t>(prompt.size()), 257 + w.history) << w.done;
      EXPECT_EQ(prompt[0], w.start) << w.done;
      EXPECT_EQ(prompt[w.real - 1], w.start + w.real - 1) << w.done;
      for (int64_t i = w.real; i < 256; ++i) EXPECT_EQ(prompt[i], 12048) << w.done << " " << i;
      EXPECT_EQ(w.pads, 256 - w.real);
      EXPECT_EQ(prompt[256], 12050);
    }
  }
}

TEST(CoarseLegalIds, AreOneCodebookUnderSunoAndOpenAboveUnderHf) {
  const Config c = golden_config();
  for (const int64_t step : {0, 2, 60}) {
    EXPECT_EQ(coarse_legal(c, Rules::Suno, step).first, 10000);
    EXPECT_EQ(coarse_legal(c, Rules::Hf, step).first, 10000);
    EXPECT_EQ(coarse_legal(c, Rules::Hf, step).count, 1024);
  }
  EXPECT_EQ(coarse_legal(c, Rules::Suno, 61).first, 11024);
  EXPECT_EQ(coarse_legal(c, Rules::Suno, 61).count, 1024);
  EXPECT_EQ(coarse_legal(c, Rules::Hf, 61).first, 11024);
  EXPECT_EQ(coarse_legal(c, Rules::Hf, 61).count, 1072);
}

TEST(CoarseLegalIds, OfTransformersAlternateFromTheWindowsStartForAnyNumberOfCodebooks) {
  const Config c = odd_config();  // 3 codebooks, windows of 9
  EXPECT_EQ(coarse_legal(c, Rules::Suno, 8).first, 120 + 2 * 48);
  EXPECT_EQ(coarse_legal(c, Rules::Hf, 8).first, 120);
  EXPECT_EQ(coarse_legal(c, Rules::Hf, 9).first, 120);  // a new window
  EXPECT_EQ(coarse_legal(c, Rules::Hf, 10).first, 168);
  EXPECT_EQ(coarse_legal(c, Rules::Hf, 10).count, 277 - 168);
}

TEST(CoarseCodes, WrapIdsAboveTheLastCodebook) {
  const Codes codes = coarse_codes(golden_config(), {10003, 11024, 10004, 12060});
  EXPECT_EQ(codes.n_frames, 2);
  EXPECT_EQ(codes.ids, (std::vector<int32_t>{3, 4, 0, 12}));
}

struct FineCase {
  int64_t n_frames, n_history;
  std::vector<std::vector<int64_t>> windows;  // start, fill, relative
};

TEST(FineWindows, FollowTheReferenceTable) {
  const FineConfig c = golden_config().fine;
  const FineCase cases[] = {
      {300, 0, {{0, 0, 0}}},
      {1024, 0, {{0, 0, 0}}},
      {1025, 0, {{0, 0, 0}, {1, 512, 511}}},
      {1154, 0, {{0, 0, 0}, {130, 512, 382}}},
      {1536, 0, {{0, 0, 0}, {512, 512, 0}}},
      {1537, 0, {{0, 0, 0}, {512, 512, 0}, {513, 1024, 511}}},
      {300, 464, {{0, 464, 464}}},
      {512, 512, {{0, 512, 512}}},
      {513, 512, {{0, 512, 512}, {1, 513, 512}}},
      {600, 512, {{0, 512, 512}, {88, 600, 512}}},
  };
  for (const FineCase& k : cases) {
    SCOPED_TRACE(k.n_frames);
    const std::vector<FineWindow> windows = fine_windows(c, k.n_history, k.n_frames);
    ASSERT_EQ(windows.size(), k.windows.size());
    for (size_t i = 0; i < windows.size(); ++i) {
      EXPECT_EQ(windows[i].start, k.windows[i][0]);
      EXPECT_EQ(windows[i].fill, k.windows[i][1]);
      EXPECT_EQ(windows[i].relative, k.windows[i][2]);
    }
  }
}

TEST(FineWindows, PredictEveryFrameForAnyLength) {
  const FineConfig c = golden_config().fine;
  for (const int64_t h : {0, 1, 250, 511, 512})
    for (int64_t frames = 1; frames < 2600; frames += 7) {
      const int64_t n = std::max<int64_t>(1024, h + frames);
      int64_t covered = h;
      for (const FineWindow& w : fine_windows(c, h, frames)) {
        ASSERT_GE(w.start, 0);
        ASSERT_LE(w.start + 1024, n);
        ASSERT_LE(w.fill, covered);
        covered = w.start + 1024;
      }
      ASSERT_GE(covered, h + frames);
    }
}

TEST(FineChunks, PredictEveryFrameWithContextOnBothSides) {
  const FineConfig c = golden_config().fine;
  for (const int64_t h : {0, 1, 512})
    for (const int64_t chunk : {1, 75, 400, 5000})
      for (int64_t frames = 1; frames < 2600; frames += 97) {
        const std::vector<FineWindow> windows = fine_chunks(c, h, frames, chunk);
        int64_t covered = h;
        for (size_t i = 0; i < windows.size(); ++i) {
          const FineWindow& w = windows[i];
          ASSERT_GE(w.start, 0);
          ASSERT_LE(w.n_rows, 1024);
          ASSERT_LE(w.fill, covered);
          ASSERT_EQ(w.start, std::max<int64_t>(0, w.fill - kFineLeft));
          ASSERT_EQ(w.relative, w.fill - w.start);
          const int64_t end = w.start + w.n_rows;
          ASSERT_LE(end, h + frames);
          if (i + 1 < windows.size()) {
            ASSERT_EQ(end, windows[i + 1].fill + kFineRight);
          }
          ASSERT_GT(end, covered);
          covered = end;
        }
        ASSERT_EQ(covered, h + frames);
      }
}

}  // namespace
}  // namespace barkrt::test
