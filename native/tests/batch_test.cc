// batch_test.cc: requests of one model side by side: each gets, bit for bit, what it gets alone,
// whatever happens to the others.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include "decode.h"
#include "error.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

struct Output {
  Status status = Status::Ok;
  std::string text;
  std::vector<float> pcm;
  std::vector<std::vector<int32_t>> tokens;

  bool operator==(const Output& o) const {
    return status == o.status && tokens == o.tokens && pcm == o.pcm;
  }
};

using Hook = std::function<bool(Stage)>;

Output synthesize(Session& session, const Request& r, const Hook& hook = {}) {
  Output out;
  Sink sink;
  if (hook) sink.progress = [&](Stage stage, int64_t, int64_t) { return hook(stage); };
  sink.audio = [&](const float* pcm, int64_t n) {
    out.pcm.insert(out.pcm.end(), pcm, pcm + n);
    return true;
  };
  sink.tokens = [&](Stage, const int32_t* ids, int64_t rows, int64_t cols) {
    out.tokens.emplace_back(ids, ids + rows * cols);
    return true;
  };
  try {
    session.synthesize(r, sink);
  } catch (const Error& e) {
    out.status = e.status();
    out.text = e.what();
  }
  return out;
}

// A model and requests that differ in everything.
class Crowd {
 public:
  Crowd(const char* device, const Config& config, DType matrices, int64_t n) {
    SyntheticOptions options;
    options.matrices = matrices, options.instruction_set = device;
    model_ = synthetic_model(config, 2, options);
    voice_ = synthetic_voice(config, 30, config.coarse.n_codebook == 2 ? 45 : 46);
    static const char* const texts[] = {"hello", "abc", "a b c d e f g h i j", "zzz", "who is it"};
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      Request r;
      r.text = texts[i % std::size(texts)];
      r.seed = i;
      r.voice = i % 3 == 1 ? &voice_ : nullptr;
      r.rules = i % 4 == 3 ? Rules::Hf : Rules::Suno;
      r.semantic =
          r.coarse = {i % 7 == 6 ? 0 : 0.7f, i % 5 == 2 ? 0.9f : 1, i % 5 == 3 ? 20 : 0, 0};
      r.fine = {0.5f, 1, 0, 0};
      r.max_semantic_tokens = static_cast<int64_t>(1 + 5 * i % 31);
      r.want_tokens = true;
      requests_.push_back(r);
      const DType kv = i % 6 == 5 ? DType::F32 : i % 6 == 3 ? DType::I8 : DType::F16;
      sessions_.push_back(std::make_unique<Session>(model_.model, kv));
      expected_.push_back(synthesize(*sessions_[i], r));
      EXPECT_EQ(expected_[i].status, Status::Ok) << expected_[i].text;
    }
  }

  // Runs act(i) for every request, each on a thread of its own; none begins before all wait.
  void all_at_once(const std::function<void(size_t)>& act) {
    std::vector<std::thread> threads;
    {
      Engine& engine = model_.model->engine();
      const Engine::Turn held(engine, engine.ticket({}));
      for (size_t i = 0; i < requests_.size(); ++i) threads.emplace_back([&, i] { act(i); });
      while (engine.n_waiting() != static_cast<int64_t>(requests_.size()))
        std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
  }

  SyntheticModel model_;
  Voice voice_;
  std::vector<Request> requests_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Output> expected_;
};

class Batch : public reference::EveryDevice {};
BARKRT_EVERY_DEVICE(Batch);

TEST_P(Batch, EveryRequestGetsWhatItGetsAlone) {
  for (const Config& config : {small_config(), odd_config()})
    for (const DType type : {DType::F32, DType::BF16, DType::I8}) {
      if (is_cuda() && (type != DType::I8 || config.name == odd_config().name)) continue;
      Crowd crowd(GetParam(), config, type, on_each(20, 6));
      crowd.all_at_once([&](size_t i) {
        for (int round = 0; round < on_each(2, 1); ++round)
          EXPECT_TRUE(synthesize(*crowd.sessions_[i], crowd.requests_[i]) == crowd.expected_[i])
              << config.name << " " << dtype_name(type) << " request " << i;
      });
    }
}

TEST(BatchOfTiles, EveryRequestGetsWhatItGetsAlone) {
  for (const DType type : {DType::I8Tiles, DType::I4}) {
    Crowd crowd("", tiled_config(), type, 20);
    crowd.all_at_once([&](size_t i) {
      EXPECT_TRUE(synthesize(*crowd.sessions_[i], crowd.requests_[i]) == crowd.expected_[i]) << i;
    });
  }
}

// Requests are stopped at any point by their flag or their sink, and sinks take their time.
TEST_P(Batch, CancelsAndSlowSinksDisturbNobody) {
  Crowd crowd(GetParam(), small_config(), DType::I8, on_each(24, 4));
  std::atomic<int> n_whole{0}, n_cancelled{0};
  crowd.all_at_once([&](size_t i) {
    std::mt19937 random(static_cast<unsigned>(i));
    for (int round = 0; round < on_each(8, 2); ++round) {
      std::atomic<bool> flag{false};
      Request request = crowd.requests_[i];
      request.cancel = &flag;
      const bool stops = random() % 2 == 0, by_sink = random() % 2 == 0;
      auto left = random() % 60;
      const Output out = synthesize(*crowd.sessions_[i], request, [&](Stage) {
        if (random() % 20 == 0)
          std::this_thread::sleep_for(std::chrono::microseconds(random() % 2500));
        if (!stops || left-- > 0) return true;
        flag = !by_sink;
        return !by_sink;
      });
      if (out.status == Status::Cancelled) {
        EXPECT_TRUE(stops);
        ++n_cancelled;
      } else {
        EXPECT_TRUE(out == crowd.expected_[i]) << "request " << i << " round " << round;
        ++n_whole;
      }
    }
  });
  EXPECT_GT(n_whole, 0);
  EXPECT_GT(n_cancelled, 0);
}

TEST_P(Batch, ASinkMaySpeakWithAnotherSessionOfTheModel) {
  Crowd crowd(GetParam(), small_config(), DType::F32, on_each(4, 2));
  crowd.all_at_once([&](size_t i) {
    Session inner(crowd.model_.model, DType::F16);
    bool first[kStageCount] = {true, true, true, true};
    const Output out = synthesize(*crowd.sessions_[i], crowd.requests_[i], [&](Stage stage) {
      if (std::exchange(first[static_cast<int>(stage)], false)) {
        EXPECT_TRUE(synthesize(inner, crowd.requests_[0]) == crowd.expected_[0]);
      }
      return true;
    });
    EXPECT_TRUE(out == crowd.expected_[i]) << "request " << i;
  });
}

// One of three rows in a pass has a cache of NaN: its draw fails, and those of the others do not.
TEST_P(Batch, ADrawThatFailsConcernsItsRequestAlone) {
  SyntheticOptions options;
  options.instruction_set = GetParam();
  const SyntheticModel m = synthetic_model(small_config(), 2, options);
  const SemanticConfig& config = m.model->config().semantic;
  const GptWeights& weights = m.model->weights().semantic;
  const Matrix tables[] = {weights.wte[0], weights.wte[0]};
  const std::vector<int32_t> prefix = semantic_prefix(config, {5, 6}, nullptr);
  const int32_t id = 7;
  SampleParams params;
  params.temperature = 0.7f;
  params.coin = 0.4;
  std::vector<int32_t> alone;
  for (const bool together : {false, true}) {
    std::vector<std::thread> threads;
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<std::unique_ptr<StageRun>> runs;
    std::vector<std::unique_ptr<Generation>> generations;
    std::vector<int32_t> tokens(3, -1);
    for (size_t i = 0; i < 3; ++i) {
      sessions.push_back(std::make_unique<Session>(m.model, DType::F32));
      runs.push_back(std::make_unique<StageRun>(sessions[i]->run({})));
      const StageMemory& memory = runs[i]->memory.semantic;
      generations.push_back(std::make_unique<Generation>(
          *m.model, Engine::CausalStage::Semantic, memory.scratch, memory.kv, runs[i]->ticket));
      SampleParams first = params;
      first.coin = 0.3 * static_cast<double>(i);
      generations[i]->next({prefix.data(), tables, 2}, config.max_input_length + 1,
                           weights.lm_head.data(), 1, first);
      if (together && i == 1) {
        const std::vector<std::byte> nan(static_cast<size_t>(memory.kv.bytes()), std::byte{0xff});
        m.model->backend().upload(memory.kv.base, nan.data(), memory.kv.bytes());
        m.model->backend().synchronize();
      }
    }
    {
      Engine& engine = m.model->engine();
      const Engine::Turn held(engine, engine.ticket({}));
      for (size_t i = 0; i < 3; ++i)
        threads.emplace_back([&, i] {
          try {
            tokens[i] = generations[i]->next({&id, weights.wte.data(), 1}, 1,
                                             weights.lm_head.data(), 1, params);
          } catch (const Error& e) {
            EXPECT_TRUE(together && i == 1);
            EXPECT_NE(std::string(e.what()).find("NaN"), std::string::npos) << e.what();
          }
        });
      while (engine.n_waiting() != 3) std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    if (!together) alone = tokens;
    EXPECT_EQ(tokens[0], alone[0]);
    EXPECT_EQ(tokens[2], alone[2]);
    EXPECT_EQ(tokens[1], together ? -1 : alone[1]);
  }
}

}  // namespace
}  // namespace barkrt::test
