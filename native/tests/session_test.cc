// session_test.cc: whole requests: determinism, cancel, events, reuse after failure.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include "error.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

// Everything a request put out.
struct Output {
  Status status = Status::Ok;
  std::string text;
  Stats stats;
  std::vector<float> pcm;
  std::vector<std::vector<int32_t>> tokens;
};

Request request(std::string_view text = "hello") {
  Request r;
  r.text = text;
  r.seed = 7;
  r.semantic = r.coarse = {0.7f, 1, 0, 0};
  r.fine = {0.5f, 1, 0, 0};
  r.want_tokens = true;
  return r;
}

using Hook = std::function<bool(Stage, int64_t done, int64_t total)>;

Output synthesize(Session& session, const Request& r, const Hook& hook = {}) {
  Output out;
  Sink sink;
  sink.progress = hook;
  sink.audio = [&](const float* pcm, int64_t n) {
    out.pcm.insert(out.pcm.end(), pcm, pcm + n);
    return true;
  };
  sink.tokens = [&](Stage, const int32_t* ids, int64_t rows, int64_t cols) {
    out.tokens.emplace_back(ids, ids + rows * cols);
    return true;
  };
  try {
    out.stats = session.synthesize(r, sink);
  } catch (const Error& e) {
    out.status = e.status();
    out.text = e.what();
  }
  return out;
}

TEST(Session, SpeaksWithEveryShapeRuleAndVoice) {
  for (const Config& config : {small_config(), odd_config()}) {
    SyntheticOptions options;
    const SyntheticModel m = synthetic_model(config, 2, options);
    Session session(m.model, DType::F16);
    const Voice voice = synthetic_voice(config, 30, config.coarse.n_codebook == 2 ? 45 : 46);
    for (const Rules rules : {Rules::Suno, Rules::Hf})
      for (const Voice* v : {static_cast<const Voice*>(nullptr), &voice}) {
        Request r = request();
        r.rules = rules;
        r.voice = v;
        const Output out = synthesize(session, r);
        ASSERT_EQ(out.status, Status::Ok) << out.text;
        EXPECT_EQ(out.stats.n_text_tokens, 5);
        EXPECT_FALSE(out.stats.text_truncated);
        EXPECT_EQ(out.stats.n_coarse, coarse_steps(config, rules, out.stats.n_semantic));
        EXPECT_EQ(out.stats.n_samples, out.stats.n_frames * config.codec.hop_length());
        EXPECT_EQ(static_cast<int64_t>(out.pcm.size()), out.stats.n_samples);
        ASSERT_EQ(out.tokens.size(), 3u);
        EXPECT_EQ(static_cast<int64_t>(out.tokens[0].size()), out.stats.n_semantic);
        EXPECT_EQ(static_cast<int64_t>(out.tokens[1].size()),
                  out.stats.n_frames * config.coarse.n_codebook);
        EXPECT_EQ(static_cast<int64_t>(out.tokens[2].size()),
                  out.stats.n_frames * config.fine.n_fine_codebook);
      }
  }
}

class SessionOnEach : public reference::EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(SessionOnEach);

TEST_P(SessionOnEach, GivesTheSameAudioForTheSameSeedWhateverTheThreads) {
  for (const DType matrices : {DType::F32, DType::BF16, DType::I8, DType::I8Tiles, DType::I4}) {
    if (!backend->has_weight_type(matrices)) continue;
    const Config config = has_tiles(matrices) ? tiled_config() : small_config();
    SyntheticOptions options;
    options.matrices = matrices, options.instruction_set = GetParam();
    std::vector<float> first;
    for (const int n_threads : {1, 2, 5}) {
      const SyntheticModel m = synthetic_model(config, n_threads, options);
      Session session(m.model, DType::F16);
      const Output a = synthesize(session, request()), b = synthesize(session, request());
      ASSERT_GT(a.pcm.size(), 100u);
      EXPECT_EQ(a.pcm, b.pcm);
      if (first.empty()) first = a.pcm;
      EXPECT_EQ(a.pcm, first) << dtype_name(matrices) << ", " << n_threads << " threads";
    }
  }
}

TEST(Session, GivesOtherAudioForAnotherSeed) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  Request other = request();
  other.seed = 8;
  EXPECT_NE(synthesize(session, request()).tokens, synthesize(session, other).tokens);
}

TEST(Session, IgnoresTheSeedWhenEveryStageIsGreedy) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  Request a = request();
  a.semantic = a.coarse = a.fine = {};
  Request b = a;
  b.seed = 99;
  EXPECT_EQ(synthesize(session, a).pcm, synthesize(session, b).pcm);
}

TEST(Session, IsUndisturbedByOthersOfTheSameModel) {
  const SyntheticModel m = synthetic_model(small_config());
  Session alone(m.model, DType::F16);
  const std::vector<float> expected = synthesize(alone, request()).pcm;
  std::vector<std::vector<float>> found(3);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&, i] {
      Session session(m.model, DType::F16);
      Request other = request("abc");
      other.seed = static_cast<uint64_t>(i);
      synthesize(session, other);
      found[i] = synthesize(session, request()).pcm;
    });
  for (std::thread& t : threads) t.join();
  for (const std::vector<float>& pcm : found) EXPECT_EQ(pcm, expected);
}

// The order in which a request's coarse frames and audio came.
struct Course {
  int64_t coarse_total = 0;
  int64_t coarse_before_audio = 0;  // steps
};

Output synthesize_watched(Session& session, const Request& r, Course& course) {
  int64_t coarse = 0;
  bool heard = false;
  return synthesize(session, r, [&](Stage stage, int64_t done, int64_t total) {
    if (stage == Stage::Coarse) {
      coarse = done;
      course.coarse_total = total;
    }
    if (stage == Stage::Codec && !heard) {
      heard = true;
      course.coarse_before_audio = coarse;
    }
    return true;
  });
}

// The request with a seed that makes it talk to the model's limit, or nearly.
Request long_request(Session& session, const Voice* voice) {
  Request r = request();
  r.voice = voice;
  for (r.seed = 0; r.seed < 200; ++r.seed)
    if (synthesize(session, r).stats.n_semantic >= 38) return r;
  ADD_FAILURE() << "no seed makes it talk";
  return r;
}

TEST(Session, SpeaksWhatNoLaterWindowChangesBeforeTheRestIsMade) {
  int n_early[2] = {};
  for (const Config& config : {small_config(), odd_config()}) {
    const SyntheticModel m = synthetic_model(config);
    Session session(m.model, DType::F16);
    const Voice voice = synthetic_voice(config, 30, config.coarse.n_codebook == 2 ? 45 : 46);
    for (const Voice* v : {static_cast<const Voice*>(nullptr), &voice}) {
      const Request r = long_request(session, v);
      Course course;
      const Output out = synthesize_watched(session, r, course);
      ASSERT_EQ(out.status, Status::Ok) << out.text;
      const int64_t n_history = v ? std::min(config.fine.history_length, v->fine.n_frames) : 0;
      const std::vector<FineWindow> windows =
          fine_windows(config.fine, n_history, out.stats.n_frames);
      bool early = false;  // a chunk of the codec is ready while the next window lacks its frames
      for (size_t i = 0; i + 1 < windows.size(); ++i)
        early |= windows[i + 1].fill - n_history >= kCodecChunkFrames &&
                 windows[i].start + windows[i].n_rows - n_history + 10 < out.stats.n_frames;
      if (early) {
        EXPECT_LT(course.coarse_before_audio, course.coarse_total);
      }
      ++n_early[early];
      // Stage by stage it is the same, bit for bit.
      Session other(m.model, DType::F16);
      const StageRun run = other.run(r);
      const Codes coarse = coarse_codes(config, run_coarse(run, out.tokens[0], r.coarse));
      const Codes fine = run_fine(run, coarse, r.fine);
      std::vector<float> pcm;
      run_codec(run, fine, [&](const float* p, int64_t n) { pcm.insert(pcm.end(), p, p + n); });
      EXPECT_EQ(out.tokens[1], coarse.ids);
      EXPECT_EQ(out.tokens[2], fine.ids);
      EXPECT_EQ(out.pcm, pcm);
    }
  }
  EXPECT_GT(n_early[true], 0);
}

TEST(Session, SpeaksSoonerInChunksOfTheFineStage) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  Session session(m.model, DType::F16);
  const Voice voice = synthetic_voice(config, 30, 45);
  for (const Voice* v : {static_cast<const Voice*>(nullptr), &voice}) {
    Request r = long_request(session, v);
    const Output exact = synthesize(session, r);
    for (const int64_t chunk : {1, 7, 16, 1000}) {
      r.fine_chunk = chunk;
      Course course;
      const Output out = synthesize_watched(session, r, course);
      ASSERT_EQ(out.status, Status::Ok) << out.text;
      EXPECT_EQ(out.tokens[0], exact.tokens[0]);
      EXPECT_EQ(out.tokens[1], exact.tokens[1]) << "the coarse stage is as it was";
      EXPECT_EQ(out.pcm.size(), exact.pcm.size());
      EXPECT_EQ(out.pcm, synthesize(session, r).pcm);
      EXPECT_LT(course.coarse_before_audio, course.coarse_total);
    }
  }
}

TEST(Session, EndsWithNoSamplesWhenTheFirstTokenIsTheEnd) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  for (const Rules rules : {Rules::Suno, Rules::Hf}) {
    Request r = request();
    r.rules = rules;
    r.semantic.min_eos_p = 1e-30f;
    const Output out = synthesize(session, r);
    EXPECT_EQ(out.status, Status::Ok);
    EXPECT_EQ(out.stats.n_semantic, 0);
    EXPECT_EQ(out.stats.n_samples, 0);
    EXPECT_TRUE(out.pcm.empty());
    EXPECT_EQ(out.tokens.size(), 3u);
  }
}

TEST(Session, SaysThatALongTextWasCut) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  const Output cut = synthesize(session, request("abcdefghijklmnopqrst"));
  EXPECT_EQ(cut.stats.n_text_tokens, 20);
  EXPECT_TRUE(cut.stats.text_truncated);
  EXPECT_EQ(synthesize(session, request("abcdefghijklmnop")).pcm, cut.pcm);
}

TEST(Session, HonoursTheLimitOfSemanticTokens) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  Request r = request();
  r.max_semantic_tokens = 2;
  EXPECT_EQ(synthesize(session, r).stats.n_semantic, 2);
}

TEST(Session, ReportsEveryStageUpToItsTotal) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  int64_t last[kStageCount] = {}, total[kStageCount] = {};
  const Output out = synthesize(session, request(), [&](Stage s, int64_t done, int64_t of) {
    EXPECT_GT(done, last[static_cast<int>(s)]);
    last[static_cast<int>(s)] = done;
    total[static_cast<int>(s)] = of;
    EXPECT_LE(done, of);
    return true;
  });
  EXPECT_EQ(last[0], out.stats.n_semantic);
  EXPECT_EQ(last[1], total[1]);
  EXPECT_EQ(last[2], total[2]);
  EXPECT_EQ(last[3], out.stats.n_frames);
}

TEST(Session, RefusesAVoiceOfTheWrongRatioUnderSunoAlone) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  Session session(m.model, DType::F16);
  const Voice voice = synthetic_voice(config, 30, 30);
  Request r = request();
  r.voice = &voice;
  const Output refused = synthesize(session, r);
  EXPECT_EQ(refused.status, Status::InvalidArgument);
  EXPECT_NE(refused.text.find("30 semantic tokens"), std::string::npos) << refused.text;
  r.rules = Rules::Hf;
  EXPECT_EQ(synthesize(session, r).status, Status::Ok);
}

TEST(Session, RefusesInvalidUtf8AndEmptyTextOfSuno) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  EXPECT_EQ(synthesize(session, request("a\xff")).status, Status::InvalidArgument);
  EXPECT_EQ(synthesize(session, request("")).status, Status::InvalidArgument);
  Request empty = request("");
  empty.rules = Rules::Hf;
  EXPECT_EQ(synthesize(session, empty).status, Status::Ok);
}

TEST(Session, IsBusyWhileItRuns) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  Status second = Status::Ok;
  const Output first = synthesize(session, request(), [&](Stage, int64_t, int64_t) {
    if (second == Status::Ok) second = synthesize(session, request()).status;
    return true;
  });
  EXPECT_EQ(second, Status::Busy);
  EXPECT_EQ(first.status, Status::Ok);
}

TEST(Session, StopsWhenItsSinkSaysSoAndWorksAgain) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  const std::vector<float> expected = synthesize(session, request()).pcm;
  for (int s = 0; s < kStageCount; ++s) {
    const Output stopped = synthesize(session, request(), [&](Stage stage, int64_t, int64_t) {
      return static_cast<int>(stage) != s;
    });
    EXPECT_EQ(stopped.status, Status::Cancelled) << s;
    EXPECT_EQ(synthesize(session, request()).pcm, expected) << s;
  }
}

// Another thread sets the flag while the stage waits inside its progress call:
//   request: reports progress of the stage, signals "here", waits for "set"
//   other:   waits for "here", sets the flag, signals "set"
//   request: returns from the report; no further report may come
// The clip is longer than one codec chunk, so that the codec too has something left to stop.
TEST(Session, IsCancelledFromAnotherThreadWithinOneStepOfEachStage) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  for (int s = 0; s < kStageCount; ++s) {
    std::atomic<bool> flag{false};
    std::mutex mutex;
    std::condition_variable changed;
    bool here = false;
    std::atomic<bool> set{false};
    std::thread other([&] {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait(lock, [&] { return here; });
      flag.store(true);
      set = true;
      changed.notify_all();
    });
    Request r = request();
    r.cancel = &flag;
    int64_t reports_after = 0;
    const Output out = synthesize(session, r, [&](Stage stage, int64_t, int64_t) {
      if (set) ++reports_after;
      if (static_cast<int>(stage) != s || set) return true;
      std::unique_lock<std::mutex> lock(mutex);
      here = true;
      changed.notify_all();
      changed.wait(lock, [&] { return set.load(); });
      return true;
    });
    {
      std::unique_lock<std::mutex> lock(mutex);
      here = true;
      changed.notify_all();
    }
    other.join();
    EXPECT_EQ(out.status, Status::Cancelled) << s;
    EXPECT_EQ(reports_after, 0) << s;
  }
  EXPECT_EQ(synthesize(session, request()).status, Status::Ok);
}

TEST(Session, WithACancelAlreadySetDoesNothing) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  const std::atomic<bool> flag{true};
  Request r = request();
  r.cancel = &flag;
  EXPECT_EQ(synthesize(session, r,
                       [](Stage, int64_t, int64_t) {
                         ADD_FAILURE();
                         return true;
                       })
                .status,
            Status::Cancelled);
}

TEST(Session, AllocatesNothingAfterItIsMade) {
  const SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  const int64_t before = session.account().peak();
  synthesize(session, request());
  EXPECT_EQ(session.account().peak(), before);
}

TEST(Session, OfAModelWithNaNWeightsFailsWithATextAndNoCrash) {
  GgufWriter w = synthetic_metadata(small_config());
  Config config = small_config();
  add_synthetic_tensors(w, config, {});
  Image image = w.build();
  const auto gguf = Gguf::from_memory(image.data(), image.bytes());
  const GgufTensor* t = gguf->find("semantic.ln_f.weight");
  auto* values = reinterpret_cast<float*>(image.data() + t->offset);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  Session session(Model::load(gguf, 0, 1, {}), DType::F16);
  const Output out = synthesize(session, request());
  EXPECT_NE(out.status, Status::Ok);
  EXPECT_NE(out.text.find("NaN"), std::string::npos) << out.text;
}

TEST(Session, OutlivesTheModelsOwnHandle) {
  SyntheticModel m = synthetic_model(small_config());
  Session session(m.model, DType::F16);
  m.model.reset();
  EXPECT_EQ(synthesize(session, request()).status, Status::Ok);
}

}  // namespace
}  // namespace barkrt::test
