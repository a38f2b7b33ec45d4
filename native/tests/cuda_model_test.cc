// cuda_model_test.cc: models on emulated CUDA devices, from the load to the loss of the device.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "barkrt.h"
#include "cuda/device.h"
#include "decode.h"
#include "emulation.h"
#include "error.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

// Indices of barkrt's devices: "cuda:0", and "cuda:1", which a test loses.
constexpr int kDevice = 1, kToLose = 2;

std::shared_ptr<const Gguf> open(const Image& image) {
  return Gguf::from_memory(image.data(), image.bytes());
}
Image image_of(const Config& config, DType matrices = DType::F32) {
  SyntheticOptions options;
  options.matrices = matrices;
  return Image(synthetic_writer(config, options).build());
}

struct Output {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<float> pcm;
  bool operator==(const Output& o) const { return tokens == o.tokens && pcm == o.pcm; }
};

Output speak(const std::shared_ptr<const Model>& model, const Request& request,
             const std::function<void(Stage)>& hook = {}) {
  Session session(model, DType::F32);
  Output out;
  Sink sink;
  if (hook)
    sink.progress = [&](Stage stage, int64_t, int64_t) {
      hook(stage);
      return true;
    };
  sink.audio = [&](const float* pcm, int64_t n) {
    out.pcm.insert(out.pcm.end(), pcm, pcm + n);
    return true;
  };
  sink.tokens = [&](Stage, const int32_t* ids, int64_t rows, int64_t cols) {
    out.tokens.emplace_back(ids, ids + rows * cols);
    return true;
  };
  session.synthesize(request, sink);
  return out;
}

Request greedy(const char* text) {
  Request r;
  r.text = text;
  r.max_semantic_tokens = 10;
  r.want_tokens = true;
  return r;
}

// The first one here: the others use the devices.
TEST(CudaDevices, AreDescribedWithoutAContext) {
  ASSERT_EQ(barkrt_device_count(), 3);
  for (int32_t i = 1; i < 3; ++i) {
    barkrt_device device{};
    device.struct_size = sizeof device;
    barkrt_error error{};
    ASSERT_EQ(barkrt_device_describe(i, &device, &error), BARKRT_OK) << error.text;
    EXPECT_EQ(device.total_bytes, int64_t{1} << 30);
    int64_t returned = -1;
    ASSERT_EQ(barkrt_trim(i, &returned, &error), BARKRT_OK) << error.text;
    EXPECT_EQ(returned, 0);
    EXPECT_FALSE(emulation::has_context(i - 1)) << device.id;
  }
  int64_t free = 0, total = 0;
  device_memory(kDevice, &free, &total);
  EXPECT_TRUE(emulation::has_context(kDevice - 1));
}

TEST(CudaModel, SpeaksAsOnTheCpu) {
  const Image image = image_of(small_config());
  const Output expected = speak(Model::load(open(image), 0, 2, {}), greedy("hello"));
  const Output out = speak(Model::load(open(image), kDevice, 0, {}), greedy("hello"));
  EXPECT_EQ(out.tokens, expected.tokens);
  ASSERT_EQ(out.pcm.size(), expected.pcm.size());
  ASSERT_GT(out.pcm.size(), 0u);
  for (size_t i = 0; i < out.pcm.size(); ++i) ASSERT_NEAR(out.pcm[i], expected.pcm[i], 1e-4) << i;
}

TEST(CudaModel, IsReachedThroughTheAbi) {
  const Image image = image_of(small_config());
  barkrt_device device{};
  device.struct_size = sizeof device;
  barkrt_error error{};
  ASSERT_EQ(barkrt_device_describe(kDevice, &device, &error), BARKRT_OK) << error.text;
  EXPECT_STREQ(device.id, "cuda:0");
  EXPECT_STREQ(device.kind, "cuda");
  EXPECT_EQ(std::string(device.detail).rfind("UUID GPU-", 0), 0u) << device.detail;
  barkrt_model_params params;
  barkrt_model_params_init(&params);
  params.device = kDevice, params.data = image.data(), params.data_bytes = image.bytes();
  barkrt_memory estimate{}, need{}, live{};
  barkrt_session_params eight_bits;
  barkrt_session_params_init(&eight_bits);
  eight_bits.kv_type = BARKRT_KV_I8;
  ASSERT_EQ(
      barkrt_model_estimate(&params, &eight_bits, &estimate, &need, nullptr, 0, nullptr, &error),
      BARKRT_OK)
      << error.text;
  barkrt_model* model = nullptr;
  ASSERT_EQ(barkrt_model_load(&params, &model, &error), BARKRT_OK) << error.text;
  barkrt_session* session = nullptr;
  ASSERT_EQ(barkrt_session_new(model, &eight_bits, &session, &error), BARKRT_OK) << error.text;
  ASSERT_EQ(barkrt_live(kDevice, &live, &error), BARKRT_OK);
  EXPECT_EQ(live.total_bytes, estimate.total_bytes + need.total_bytes);
  barkrt_request request;
  ASSERT_EQ(barkrt_request_init(model, BARKRT_RULES_SUNO, &request, &error), BARKRT_OK);
  request.text = "hello", request.text_bytes = 5, request.max_semantic_tokens = 8;
  barkrt_stats stats{};
  stats.struct_size = sizeof stats;
  EXPECT_EQ(barkrt_synthesize(session, &request, nullptr, nullptr, &stats, &error), BARKRT_OK)
      << error.text;
  EXPECT_GT(stats.n_samples, 0);
  barkrt_session_free(session);
  barkrt_model_free(model);
  EXPECT_EQ(barkrt_live_handles(), 0);
  ASSERT_EQ(barkrt_live(kDevice, &live, &error), BARKRT_OK);
  EXPECT_EQ(live.total_bytes, 0);
}

TEST(CudaModel, TakesOfTheDeviceWhatItsAccountCounts) {
  const Image image = image_of(small_config());
  cuda::Pool& pool = cuda::Device::at(kDevice - 1).pool();
  speak(Model::load(open(image), kDevice, 0, {}), greedy("a"));  // makes this thread's lanes
  const int64_t before = pool.live_bytes();
  int64_t last = -1, whole = 0;
  auto model = Model::load(open(image), kDevice, 0, [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    last = done, whole = total;
    return true;
  });
  EXPECT_EQ(last, whole);
  Config config;
  const ModelBytes bytes = Model::estimate(*open(image), &config);
  EXPECT_EQ(pool.live_bytes() - before, bytes.weights + bytes.activations);
  EXPECT_EQ(model->account().live(Category::Weights), bytes.weights);
  {
    const Session session(model, DType::F16);
    const Session::Bytes need = Session::estimate(config, DType::F16);
    EXPECT_EQ(pool.live_bytes() - before,
              bytes.weights + bytes.activations + need.kv + need.activations);
  }
  model.reset();
  EXPECT_EQ(pool.live_bytes(), before);
  EXPECT_EQ(device_account(kDevice)->total(), 0);
}

TEST(CudaModel, OfTilesIsThatOfRows) {
  const Image rows = image_of(tiled_config(), DType::I8);
  const Image tiles = image_of(tiled_config(), DType::I8Tiles);
  const auto model = Model::load(open(tiles), kDevice, 0, {});
  EXPECT_EQ(model->weights().coarse.blocks[0].c_fc.weight.type, DType::I8);
  const Output out = speak(model, greedy("hello"));
  EXPECT_GT(out.pcm.size(), 0u);
  EXPECT_TRUE(out == speak(Model::load(open(rows), kDevice, 0, {}), greedy("hello")));
}

TEST(CudaModel, OfFourBitsIsRefusedBeforeAnythingIsPlaced) {
  const Image image = image_of(tiled_config(), DType::I4);
  const int64_t before = device_account(kDevice)->total();
  try {
    Model::load(open(image), kDevice, 0, {});
    FAIL() << "a device without 4-bit products took them";
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Unsupported);
    EXPECT_NE(std::string(e.what()).find("--type q8"), std::string::npos) << e.what();
  }
  EXPECT_EQ(device_account(kDevice)->total(), before);
}

TEST(CudaModel, LeavesNothingBehindWhenItsLoadIsStopped) {
  const Image image = image_of(small_config());
  cuda::Pool& pool = cuda::Device::at(kDevice - 1).pool();
  const int64_t before = pool.live_bytes();
  for (const int calls : {1, 2, 17, 40}) {
    int left = calls;
    try {
      Model::load(open(image), kDevice, 0, [&](int64_t, int64_t) { return --left > 0; });
      ADD_FAILURE() << "loaded";
    } catch (const Error& e) {
      EXPECT_EQ(e.status(), Status::Cancelled);
    }
    EXPECT_EQ(pool.live_bytes(), before) << calls;
  }
}

TEST(CudaModel, LeavesNothingBehindWhenItDoesNotFit) {
  const Image image = image_of(golden_config());
  cuda::Pool& pool = cuda::Device::at(kDevice - 1).pool();
  pool.trim();
  int64_t free = 0, total = 0;
  device_memory(kDevice, &free, &total);
  const int64_t before = pool.live_bytes(), taken = free - (20 << 20);
  void* const rest = pool.allocate(taken);
  int64_t placed = 0;
  try {
    Model::load(open(image), kDevice, 0, [&](int64_t done, int64_t) {
      placed = done;
      return true;
    });
    ADD_FAILURE() << "loaded";
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::OutOfMemory) << e.what();
    EXPECT_NE(std::string(e.what()).find("cuda:0: cannot allocate"), std::string::npos) << e.what();
  }
  EXPECT_GT(placed, 0);
  EXPECT_EQ(device_account(kDevice)->total(), 0);
  pool.free(rest, taken);
  EXPECT_EQ(pool.live_bytes(), before);
  EXPECT_TRUE(Model::load(open(image), kDevice, 0, {}));
}

// Sequences of the coarse stage and working memory for steps of theirs.
struct Sequences {
  Sequences(const Model& model, int64_t n)
      : weights(model.weights().coarse), backend(model.backend()) {
    const int64_t n_layer = static_cast<int64_t>(weights.blocks.size());
    for (int64_t i = 0; i < n; ++i) {
      KvCache kv = {nullptr,        i % 3 == 1 ? DType::F16 : DType::F32,
                    n_layer,        32,
                    weights.n_embd, weights.n_head};
      memory.emplace_back(backend, account, Category::Kv, kv.bytes());
      kv.base = static_cast<std::byte*>(memory.back().data());
      caches.push_back(kv);
    }
    scratch = GptScratch::plan(weights.n_embd, n, n, weights.lm_head[0].rows);
    memory.emplace_back(backend, account, Category::Activations, scratch.bytes());
    scratch.place(static_cast<std::byte*>(memory.back().data()));
  }
  std::vector<float> logits(int64_t n) const {
    std::vector<float> host(static_cast<size_t>(n));
    backend.download(host.data(), scratch.wide, n * 4);
    return host;
  }

  const GptWeights& weights;
  Backend& backend;
  MemoryAccount account;
  std::vector<Buffer> memory;
  std::vector<KvCache> caches;
  GptScratch scratch;
};

// Twice, in two places, so that what was recorded in one must not be played in the other.
TEST(CudaSteps, GiveTheSameBitsRecordedAndNot) {
  constexpr int64_t n = 5, n_candidates = 40;
  constexpr int32_t n_steps = 6;
  for (const DType type : {DType::F32, DType::BF16, DType::I8}) {
    const Image image = image_of(small_config(), type);
    const auto model = Model::load(open(image), kDevice, 0, {});
    Sequences recorded[] = {{*model, n}, {*model, n}}, plain(*model, n);
    const Matrix head = plain.weights.lm_head[0].slice(7, n_candidates);
    emulation::reset_counters();
    for (int32_t at = 0; at < n_steps; ++at) {
      std::vector<int32_t> ids, slots, positions(n, at), tokens(n);
      std::vector<SampleParams> params;
      for (int32_t i = 0; i < n; ++i) {
        SampleParams p;
        p.temperature = i == 2 ? 0 : 0.8f;
        p.coin = random_uniform(1, 2, static_cast<uint32_t>(at), static_cast<uint32_t>(i));
        ids.push_back((31 * at + 7 * i) % 100), slots.push_back(i), params.push_back(p);
      }
      gpt_forward(plain.backend, plain.weights, plain.scratch, plain.caches,
                  {ids.data(), plain.weights.wte.data(), 1}, {n, slots.data(), positions.data()},
                  true, {0, n}, {});
      const ConstView h = gpt_final_norm(plain.backend, plain.weights, plain.scratch, 0, n);
      const ConstView logits = gpt_logits(plain.backend, plain.scratch, h, &head, 1);
      plain.backend.sample(tokens.data(), logits, params.data());
      for (const Sequences& s : recorded) {
        std::vector<Step> steps;
        std::vector<Step*> pointers;
        for (size_t i = 0; i < n; ++i)
          steps.push_back({ids[i], at, &s.caches[i], &head, 1, params[i], 0, nullptr});
        for (Step& step : steps) pointers.push_back(&step);
        decode_step(s.backend, s.weights, s.scratch, pointers.data(), n);
        ASSERT_EQ(s.logits(n * n_candidates), plain.logits(n * n_candidates)) << at;
        for (size_t i = 0; i < n; ++i) ASSERT_EQ(steps[i].token, tokens[i]) << at << " " << i;
      }
    }
    EXPECT_EQ(emulation::counters(kDevice - 1).graph_launches, 2 * (n_steps - 1))
        << dtype_name(type);
  }
}

TEST(CudaSteps, OfManyRequestsGiveEachWhatItGetsAlone) {
  const Image image = image_of(small_config(), DType::I8);
  const auto model = Model::load(open(image), kDevice, 0, {});
  std::vector<Request> requests;
  std::vector<Output> expected;
  for (uint64_t i = 0; i < 4; ++i) {
    Request r = greedy(i % 2 ? "hello" : "a b c");
    r.seed = i;
    r.semantic = r.coarse = r.fine = {0.7f, 1, 0, 0};
    r.max_semantic_tokens = static_cast<int64_t>(5 + 3 * i);
    requests.push_back(r);
    expected.push_back(speak(model, r));
  }
  emulation::reset_counters();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i)
    threads.emplace_back([&, i] { EXPECT_TRUE(speak(model, requests[i]) == expected[i]) << i; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(emulation::counters(kDevice - 1).graph_launches, 0);
}

// Runs, is recorded and is played with one row of NaN among others.
TEST(CudaSteps, WithADrawThatFailsConcernThatRowAlone) {
  const Image image = image_of(small_config());
  const auto model = Model::load(open(image), kDevice, 0, {});
  Sequences s(*model, 3);
  const std::vector<std::byte> nan(static_cast<size_t>(s.caches[2].bytes()), std::byte{0xff});
  s.backend.upload(s.caches[2].base, nan.data(), s.caches[2].bytes());
  s.backend.zero(s.caches[0].base, s.caches[0].bytes());
  s.backend.zero(s.caches[1].base, s.caches[1].bytes());
  for (int32_t at = 1; at < 6; ++at) {
    std::vector<Step> steps;
    std::vector<Step*> pointers;
    for (size_t i = 0; i < 3; ++i)
      steps.push_back({5, at, &s.caches[i], s.weights.lm_head.data(), 1, {}, -1, nullptr});
    for (Step& step : steps) pointers.push_back(&step);
    decode_step(s.backend, s.weights, s.scratch, pointers.data(), 3);
    EXPECT_FALSE(steps[0].error);
    EXPECT_FALSE(steps[1].error);
    EXPECT_GE(steps[0].token, 0);
    ASSERT_TRUE(steps[2].error);
    try {
      std::rethrow_exception(steps[2].error);
    } catch (const Error& e) {
      EXPECT_EQ(e.status(), Status::Internal);
      EXPECT_STREQ(e.what(), "the logits contain NaN");
    }
  }
}

TEST(CudaSample, SaysWhatIsWrongAsTheCpuDoes) {
  const auto backend = make_backend(kDevice, 0), cpu = make_backend(0, 1);
  const float infinite = std::numeric_limits<float>::infinity();
  for (const float bad : {NAN, infinite, -infinite}) {
    std::vector<float> logits(3 * 5, 0.5f);
    for (size_t i = 5; i < 10; ++i) logits[i] = bad;
    auto* const p = static_cast<float*>(backend->alloc(60));
    backend->upload(p, logits.data(), 60);
    std::string texts[2];
    for (int i = 0; i < 2; ++i) {
      int32_t ids[3];
      const SampleParams params[3];
      try {
        (i ? cpu : backend)->sample(ids, view(i ? logits.data() : p, 3, 5), params);
        ADD_FAILURE() << bad;
      } catch (const Error& e) {
        EXPECT_EQ(e.status(), Status::Internal);
        texts[i] = e.what();
      }
    }
    EXPECT_EQ(texts[0], texts[1]);
    backend->free(p, 60);
  }
}

TEST(CudaModel, OfALostDeviceFailsAndTheOthersGoOn) {
  const Image image = image_of(small_config());
  auto doomed = Model::load(open(image), kToLose, 0, {});
  const auto other = Model::load(open(image), kDevice, 0, {});
  const Output expected = speak(other, greedy("hello"));
  std::atomic<bool> first{true};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      try {
        speak(doomed, greedy("hello"), [&](Stage stage) {
          if (stage == Stage::Coarse && first.exchange(false))
            emulation::lose_device(kToLose - 1, cudaErrorLaunchFailure);
        });
        ADD_FAILURE() << "spoken";
      } catch (const Error& e) {
        EXPECT_EQ(e.status(), Status::Device);
        EXPECT_NE(std::string(e.what()).find("cuda:1 is lost"), std::string::npos) << e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THROW(Session(doomed, DType::F16), Error);
  int64_t free = 0, total = 0;
  EXPECT_THROW(device_memory(kToLose, &free, &total), Error);
  EXPECT_THROW(trim_device(kToLose), Error);
  EXPECT_NE(describe_device(kToLose).detail.find("is lost"), std::string::npos);
  doomed.reset();
  EXPECT_EQ(device_account(kToLose)->total(), 0);
  EXPECT_TRUE(speak(other, greedy("hello")) == expected);
}

}  // namespace
}  // namespace barkrt::test
