// bench_batch.cc: requests side by side: tokens per second of decode steps that 1, 4 and 16
// requests share, and whole generations at once beside one after the other; and what a request that
// is alone pays for it, beside the same steps without an engine. Usage: bench_batch [--device=N]
// [--kv=i8] MODEL.gguf [threads] [semantic tokens] [requests ...]; --kv=i8 takes a cache of 8 bits;
// one JSON object per number of requests, and one of the request alone, goes to the file named by
// --json=FILE.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "arguments.h"
#include "cpu/cpu_backend.h"
#include "decode.h"
#include "error.h"
#include "gguf.h"
#include "session.h"

namespace barkrt::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

using Sessions = std::vector<std::unique_ptr<Session>>;

// Calls run(i) on n threads and returns the seconds until the last one is done.
double side_by_side(size_t n, const std::function<void(size_t)>& run) {
  const Clock::time_point start = Clock::now();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < n; ++i) threads.emplace_back([&, i] { run(i); });
  for (std::thread& thread : threads) thread.join();
  return seconds_between(start, Clock::now());
}

// Lets its n callers go on when all have come, and adds up the time from there until the last one
// has called leave().
class Stretch {
 public:
  explicit Stretch(size_t n) : n_(n) {}

  void meet() {
    std::unique_lock<std::mutex> lock(mutex_);
    const size_t round = round_;
    if (++n_here_ == n_) {
      n_here_ = 0;
      ++round_;
      start_ = Clock::now();
      met_.notify_all();
    }
    met_.wait(lock, [&] { return round_ != round; });
  }
  void leave() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (++n_left_ % n_ == 0) seconds_ += seconds_between(start_, Clock::now());
  }
  double seconds() const { return seconds_; }

 private:
  const size_t n_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable met_;
  size_t n_here_ = 0, n_left_ = 0, round_ = 0;
  Clock::time_point start_;
  double seconds_ = 0;
};

const Sampling kSampling = {0.7f, 1, 0, 0};

// Tokens per second of pure decode steps of one stage: the requests start each window together,
// after the last one's prefill.
double decode_rate(const Sessions& sessions, Stage stage, int64_t n_tokens) {
  const Config& config = sessions[0]->model().config();
  const int64_t window = stage == Stage::Coarse ? config.coarse.window_length : n_tokens;
  Stretch stretch(sessions.size());
  int64_t n_decoded = 0;
  side_by_side(sessions.size(), [&](size_t i) {
    Request request;
    request.seed = i;
    StageRun run = sessions[i]->run(request);
    run.progress = [&, i](Stage, int64_t done, int64_t total) {
      const int64_t in_window = (done - 1) % window + 1;
      if (in_window == 1) stretch.meet();
      if (in_window > 1 && i == 0) ++n_decoded;
      if (in_window == window || done == total) stretch.leave();
    };
    if (stage == Stage::Semantic)
      run_semantic(run, {static_cast<int32_t>(i)}, kSampling, n_tokens);
    else
      run_coarse(run, std::vector<int32_t>(static_cast<size_t>(n_tokens / 3), 100), kSampling);
  });
  return static_cast<double>(n_decoded) * static_cast<double>(sessions.size()) / stretch.seconds();
}

struct Whole {
  double seconds = 0, audio = 0;
};

Whole whole(const Sessions& sessions, int64_t n_semantic) {
  std::vector<int64_t> n_samples(sessions.size());
  Whole w;
  w.seconds = side_by_side(sessions.size(), [&](size_t i) {
    Request request;
    request.text = "Hello, my name is Suno.";
    request.seed = i;
    request.semantic = request.coarse = kSampling;
    request.fine = {0.5f, 1, 0, 0};
    request.max_semantic_tokens = n_semantic;
    n_samples[i] = sessions[i]->synthesize(request, {}).n_samples;
  });
  const int64_t rate = sessions[0]->model().config().codec.sample_rate;
  for (const int64_t n : n_samples) w.audio += static_cast<double>(n) / static_cast<double>(rate);
  return w;
}

// A request's semantic tokens by the passes that it takes, one after the other, without an engine:
// nobody is asked for a turn, and nobody could share a pass.
class PlainRun {
 public:
  // Feeds the prompt and draws the first token.
  explicit PlainRun(const Session& session) : run_(session.run({})) {
    const Matrix& head = weights_.lm_head[0];
    legal_[0] = head.slice(0, config_.vocab_size);
    legal_[1] = head.slice(config_.eos_token, 1);
    const Matrix tables[] = {weights_.wte[0], weights_.wte[0]};
    const std::vector<int32_t> prefix = semantic_prefix(config_, {0}, nullptr);
    sequence_.feed(prefix.data(), tables, 2, config_.max_input_length + 1);
    const SampleParams first = params();
    tokens_.push_back(0);
    run_.model.backend().sample(tokens_.data(), sequence_.logits(legal_, 2), &first);
  }
  void step() {
    Step step;
    step.id = tokens_.back();
    step.position = static_cast<int32_t>(sequence_.n_past());
    step.kv = &run_.memory.semantic.kv;
    step.parts = legal_;
    step.n_parts = 2;
    step.params = params();
    Step* const only = &step;
    decode_step(run_.model.backend(), weights_, run_.model.steps(Engine::CausalStage::Semantic),
                &only, 1);
    if (step.error) std::rethrow_exception(step.error);
    sequence_.note_fed();
    tokens_.push_back(step.token);
  }
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  SampleParams params() const {
    SampleParams params =
        run_.params(Stage::Semantic, kSampling, static_cast<int64_t>(tokens_.size()), 0);
    params.eos = static_cast<int32_t>(config_.vocab_size);
    return params;
  }

  const StageRun run_;
  const SemanticConfig& config_ = run_.model.config().semantic;
  const GptWeights& weights_ = run_.model.weights().semantic;
  Sequence sequence_{run_.model.backend(), weights_, run_.memory.semantic.scratch,
                     run_.memory.semantic.kv};
  Matrix legal_[2];
  std::vector<int32_t> tokens_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Medians of the seconds of a semantic step of a request that is alone.
struct Alone {
  static constexpr int kRounds = 9;
  double in_engine = 0, without = 0;
  double least = 0, most = 0;  // of the rounds' ratios
  double ratio() const { return in_engine / without; }
};

// Steps in the engine and without it take turns, so that the machine is the same to both.
Alone alone(const Session& served, const Session& plain, int64_t n_tokens) {
  std::vector<double> in_engine, without, ratios;
  for (int round = 0; round < Alone::kRounds; ++round) {
    PlainRun other(plain);
    StageRun run = served.run({});
    std::vector<double> with, bare;
    Clock::time_point start;
    run.progress = [&](Stage, int64_t done, int64_t) {
      const Clock::time_point now = Clock::now();
      if (done > 1) with.push_back(seconds_between(start, now));
      other.step();
      start = Clock::now();
      bare.push_back(seconds_between(now, start));
    };
    const std::vector<int32_t> tokens = run_semantic(run, {0}, kSampling, n_tokens);
    if (with.empty() || !std::equal(tokens.begin(), tokens.end(), other.tokens().begin()))
      fail(Status::Internal, "other tokens, or only one, without the engine");
    in_engine.insert(in_engine.end(), with.begin(), with.end());
    without.insert(without.end(), bare.begin(), bare.end());
    ratios.push_back(median(with) / median(bare));
  }
  const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  return {median(in_engine), median(without), *least, *most};
}

void bench(const std::string& path, int device, int threads, int64_t n_semantic,
           const std::vector<size_t>& counts, DType kv, const char* json) {
  const auto model = Model::load(Gguf::open(path), device, threads, {});
  std::FILE* file = json ? std::fopen(json, "a") : nullptr;
  if (json && !file) fail(Status::NotFound, "cannot write %s", json);
  std::printf("%s on %s, %d threads, %lld semantic tokens, cache of %s\n", path.c_str(),
              model->backend().device().c_str(), threads, static_cast<long long>(n_semantic),
              dtype_name(kv));
  std::printf("%9s %20s %18s %12s %20s\n", "requests", "semantic tokens/s", "coarse tokens/s",
              "whole", "audio per second");
  for (const size_t n : counts) {
    Sessions sessions;
    for (size_t i = 0; i < n; ++i) sessions.push_back(std::make_unique<Session>(model, kv));
    const double semantic = decode_rate(sessions, Stage::Semantic, n_semantic);
    const double coarse = decode_rate(sessions, Stage::Coarse, n_semantic);
    const Whole w = whole(sessions, n_semantic);
    std::printf("%9zu %20.0f %18.0f %10.2f s %18.3f s\n", n, semantic, coarse, w.seconds,
                w.audio / w.seconds);
    std::fflush(stdout);
    if (file)
      std::fprintf(
          file,
          "{\"model\":\"%s\",\"device\":\"%s\",\"threads\":%d,\"kv\":\"%s\",\"requests\":%zu,"
          "\"semantic_tokens_per_s\":%.4g,\"coarse_tokens_per_s\":%.4g,"
          "\"audio_s\":%.4g,\"seconds\":%.4g}\n",
          path.c_str(), model->backend().device().c_str(), threads, dtype_name(kv), n, semantic,
          coarse, w.audio, w.seconds);
  }
  const Alone a = alone(Session(model, kv), Session(model, kv), n_semantic);
  std::printf(
      "alone: a semantic step takes %.4f ms in the engine, %.4f ms without it, %.4f times as long "
      "(rounds: %.4f to %.4f)\n",
      1e3 * a.in_engine, 1e3 * a.without, a.ratio(), a.least, a.most);
  if (file) {
    std::fprintf(file,
                 "{\"model\":\"%s\",\"device\":\"%s\",\"threads\":%d,\"kv\":\"%s\","
                 "\"alone_step_s\":%.5g,\"alone_step_without_engine_s\":%.5g,"
                 "\"alone_ratio\":%.5g}\n",
                 path.c_str(), model->backend().device().c_str(), threads, dtype_name(kv),
                 a.in_engine, a.without, a.ratio());
    std::fclose(file);
  }
}

}  // namespace
}  // namespace barkrt::bench

int main(int argc, char** argv) {
  const barkrt::bench::Arguments arguments(argc, argv);
  if (arguments.rest.empty()) {
    std::fprintf(stderr,
                 "usage: bench_batch [--device=N] [--kv=i8] MODEL.gguf [threads] [semantic tokens] "
                 "[requests ...]\n");
    return 2;
  }
  const int threads = static_cast<int>(arguments.number(1, 0));
  std::vector<size_t> counts;
  for (size_t i = 3; i < arguments.rest.size(); ++i)
    counts.push_back(static_cast<size_t>(arguments.number(i, 0)));
  if (counts.empty()) counts = {1, 4, 16};
  try {
    barkrt::bench::bench(arguments.rest[0], arguments.device,
                         threads > 0 ? threads : barkrt::cpu_usable_cores(),
                         arguments.number(2, 250), counts,
                         arguments.kv_i8 ? barkrt::DType::I8 : barkrt::DType::F16, arguments.json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
