// bench_batch.cc: requests side by side: tokens per second of decode steps that 1, 4 and 16
// requests share, and whole generations at once beside one after the other. Usage: bench_batch
// [--device=N] [--kv=i8] MODEL.gguf [threads] [semantic tokens] [requests ...]; --kv=i8 takes a
// cache of 8 bits; one JSON object per number of requests goes to the file named by --json=FILE.
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
  if (file) std::fclose(file);
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
