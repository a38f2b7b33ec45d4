// bench_speech.cc: whole generations, stage by stage, beside the least time this machine could need
// for them. Usage: bench_speech [--device=N] [--isa=NAME] MODEL.gguf [threads] [semantic tokens
// ...], where 649v is 649 tokens in a full voice; one JSON object per run goes to the file named by
// --json=FILE, if given.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "arguments.h"
#include "bounds.h"
#include "cpu/cpu_backend.h"
#include "error.h"
#include "gguf.h"
#include "roofs.h"
#include "session.h"

namespace barkrt::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Row {
  const char* name;
  double seconds, bound;
};

// Time between two reports of a stage: a token each, and with the first token of a window also the
// window's prefill.
struct Watch {
  Clock::time_point last = Clock::now();
  double prefill = 0, decode = 0;

  void note(bool first_of_window) {
    const Clock::time_point now = Clock::now();
    (first_of_window ? prefill : decode) += std::chrono::duration<double>(now - last).count();
    last = now;
  }
};

struct Length {
  int64_t n_semantic = 0;
  bool voice = false;
};

struct Run {
  std::vector<Row> rows;
  double seconds = 0, audio = 0, bound = 0, peak_bytes = 0;
  int64_t n_semantic = 0, n_frames = 0;
  bool voice = false;
};

// What a process has had in memory at most since the last reset, its mapped weights included.
void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << 5; }

double peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    double kilobytes = 0;
    if (key == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// Long enough that no stage leaves room beside it; the codes do not matter.
Voice full_voice(const Config& config) {
  const double ratio = config.coarse.rate_hz / config.semantic.rate_hz;
  const double for_fine = std::ceil(static_cast<double>(config.fine.history_length) / ratio);
  const int64_t n = std::max(config.semantic.max_input_length, static_cast<int64_t>(for_fine));
  const int64_t n_frames = std::llround(static_cast<double>(n) * ratio);
  const auto codes = [](int64_t count, int64_t below) {
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i)
      ids[static_cast<size_t>(i)] = static_cast<int32_t>(i * 7919 % below);
    return ids;
  };
  const int64_t n_coarse = config.coarse.n_codebook, n_fine = config.fine.n_fine_codebook;
  return {codes(n, config.semantic.vocab_size),
          {n_coarse, n_frames, codes(n_coarse * n_frames, config.codebook_size)},
          {n_fine, n_frames, codes(n_fine * n_frames, config.codebook_size)}};
}

Run measure(Session& session, const Length& length, const Voice& voice) {
  const Config& config = session.model().config();
  reset_peak_memory();
  Request request;
  request.text = "Hello, my name is Suno.";
  request.seed = 1;
  request.semantic.temperature = request.coarse.temperature = 0.7f;
  request.fine.temperature = 0.5f;
  request.max_semantic_tokens = length.n_semantic;
  request.voice = length.voice ? &voice : nullptr;
  Watch semantic, coarse;
  Sink sink;
  sink.progress = [&](Stage stage, int64_t done, int64_t) {
    if (stage == Stage::Semantic) semantic.note(done == 1), coarse.last = semantic.last;
    if (stage == Stage::Coarse) coarse.note((done - 1) % config.coarse.window_length == 0);
    return true;
  };
  const Clock::time_point start = Clock::now();
  semantic.last = start;
  const Stats stats = session.synthesize(request, sink);
  Run run;
  run.seconds = seconds_since(start);
  run.peak_bytes = peak_memory_bytes();
  run.voice = length.voice;
  run.n_semantic = stats.n_semantic, run.n_frames = stats.n_frames;
  run.audio = static_cast<double>(stats.n_samples) / static_cast<double>(config.codec.sample_rate);
  run.rows = {{"semantic prefill", semantic.prefill, 0}, {"semantic decode", semantic.decode, 0},
              {"coarse prefill", coarse.prefill, 0},     {"coarse decode", coarse.decode, 0},
              {"fine", stats.stage_ms[2] * 1e-3, 0},     {"codec", stats.stage_ms[3] * 1e-3, 0}};
  return run;
}

void add_bounds(Run& run, const Model& model, const Roofs& roofs, const Voice& voice) {
  const StageBounds b =
      stage_bounds(model, roofs, run.n_semantic, run.n_frames, run.voice ? &voice : nullptr);
  const double bounds[] = {
      b.semantic_prefill, b.semantic_decode, b.coarse_prefill, b.coarse_decode, b.fine, b.codec};
  for (size_t i = 0; i < run.rows.size(); ++i) {
    run.rows[i].bound = bounds[i];
    run.bound += bounds[i];
  }
}

void print(const Run& run) {
  std::printf("%lld semantic tokens%s, %.2f s of audio, at most %.0f MB in memory\n",
              static_cast<long long>(run.n_semantic), run.voice ? " in a full voice" : "",
              run.audio, run.peak_bytes * 1e-6);
  std::printf("  %-18s %9s %9s %7s\n", "", "time", "bound", "ratio");
  for (const Row& row : run.rows)
    std::printf("  %-18s %7.3f s %7.3f s %7.2f\n", row.name, row.seconds, row.bound,
                row.seconds / row.bound);
  std::printf("  %-18s %7.3f s %7.3f s %7.2f   real-time factor %.3f (bound %.3f)\n", "whole",
              run.seconds, run.bound, run.seconds / run.bound, run.seconds / run.audio,
              run.bound / run.audio);
}

void write_json(std::FILE* file, const std::string& model, double load, const Roofs& roofs,
                const Run& run) {
  std::fprintf(file,
               "{\"model\":\"%s\",\"device\":\"%s\",\"threads\":%d,\"f32_flops\":%.4g,"
               "\"f16_flops\":%.4g,\"bf16_flops\":%.4g,\"i8_ops\":%.4g,\"read\":[",
               model.c_str(), roofs.device.c_str(), roofs.threads, roofs.f32, roofs.f16, roofs.bf16,
               roofs.i8);
  for (size_t i = 0; i < roofs.reads.size(); ++i)
    std::fprintf(file, "%s[%.4g,%.4g]", i ? "," : "", roofs.reads[i].bytes,
                 roofs.reads[i].bytes_per_s);
  std::fprintf(file,
               "],\"load_s\":%.4g,\"voice\":%s,\"peak_bytes\":%.4g,\"audio_s\":%.4g,"
               "\"seconds\":%.4g,\"bound_s\":%.4g,\"stages\":{",
               load, run.voice ? "true" : "false", run.peak_bytes, run.audio, run.seconds,
               run.bound);
  for (size_t i = 0; i < run.rows.size(); ++i)
    std::fprintf(file, "%s\"%s\":{\"seconds\":%.4g,\"bound_s\":%.4g}", i ? "," : "",
                 run.rows[i].name, run.rows[i].seconds, run.rows[i].bound);
  std::fprintf(file, "}}\n");
}

// What was promised before the load, what the books hold after it, and what the device has less.
void print_memory(const std::string& path, int device, int64_t free_before) {
  Config config;
  const ModelBytes model = Model::estimate(*Gguf::open(path), &config);
  const Session::Bytes session = Session::estimate(config, DType::F16);
  const auto account = device_account(device);
  const int64_t tables = account->live(Category::Tables);
  int64_t free_bytes = 0, total_bytes = 0;
  device_memory(device, &free_bytes, &total_bytes);
  std::printf("device memory: estimated %.1f MB, counted %.1f MB, taken from the device %.1f MB\n",
              static_cast<double>(model.weights + session.kv + session.activations) * 1e-6,
              static_cast<double>(account->total() - tables) * 1e-6,
              static_cast<double>(free_before - free_bytes) * 1e-6);
}

// Two generations of each length; the faster one counts. Roofs are measured before and after, and
// the higher one counts: neighbours on the host come and go.
void bench(const std::string& path, int device, int threads, const std::string& isa,
           const std::vector<Length>& lengths, const char* json) {
  Roofs roofs = measure_roofs(device, threads);
  int64_t free_bytes = 0, total_bytes = 0;
  device_memory(device, &free_bytes, &total_bytes);
  const Clock::time_point start = Clock::now();
  Session session(Model::load(Gguf::open(path), device, threads, {}, isa), DType::F16);
  const double load = seconds_since(start);
  std::printf("%s: loaded in %.4f s\n", path.c_str(), load);
  if (device > 0) print_memory(path, device, free_bytes);
  const Voice voice = full_voice(session.model().config());
  std::FILE* file = json ? std::fopen(json, "a") : nullptr;
  if (json && !file) fail(Status::NotFound, "cannot write %s", json);
  std::vector<Run> runs;
  for (const Length& length : lengths) {
    runs.push_back(measure(session, length, voice));
    Run again = measure(session, length, voice);
    if (again.seconds < runs.back().seconds) runs.back() = std::move(again);
  }
  roofs.raise_to(measure_roofs(device, threads));
  print_roofs(roofs);
  for (Run& run : runs) {
    add_bounds(run, session.model(), roofs, voice);
    print(run);
    if (file) write_json(file, path, load, roofs, run);
  }
  if (file) std::fclose(file);
}

}  // namespace
}  // namespace barkrt::bench

int main(int argc, char** argv) {
  const barkrt::bench::Arguments arguments(argc, argv);
  if (arguments.rest.empty()) {
    std::fprintf(stderr,
                 "usage: bench_speech [--device=N] [--isa=NAME] MODEL.gguf [threads] [semantic "
                 "tokens ...]\n");
    return 2;
  }
  const int threads = static_cast<int>(arguments.number(1, 0));
  std::vector<barkrt::bench::Length> lengths;
  for (size_t i = 2; i < arguments.rest.size(); ++i)
    lengths.push_back({arguments.number(i, 0), std::strchr(arguments.rest[i], 'v') != nullptr});
  if (lengths.empty()) lengths = {{250, false}, {649, false}};
  try {
    barkrt::bench::bench(arguments.rest[0], arguments.device,
                         threads > 0 ? threads : barkrt::cpu_usable_cores(), arguments.isa, lengths,
                         arguments.json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
