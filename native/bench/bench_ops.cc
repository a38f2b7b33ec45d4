// bench_ops.cc: time of each op at the shapes of the small Bark model (n_embd 768) and the EnCodec
// decoder, beside the least time this machine could need. Prints the fastest of some runs. Usage:
// bench_ops [--device=N] [threads] [instruction set] [filter]; one JSON object per op goes to the
// file named by --json=FILE, if given.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "arguments.h"
#include "cpu/cpu_backend.h"
#include "gpt.h"
#include "roofs.h"

namespace barkrt {
namespace {

using Clock = std::chrono::steady_clock;

struct Bench {
  std::unique_ptr<Backend> backend;
  bench::Roofs roofs;
  const char* filter;
  std::FILE* json;  // NULL: none
  int in_a_row;     // calls before one waits: of a device that works asynchronously, many

  // Seconds of the fastest call, of at least five and a quarter of a second: what other programs
  // take from the processor only ever adds.
  double seconds(const std::function<void()>& call) const {
    call();  // page faults and thread start
    double best = 1e9;
    int n_calls = 0;
    constexpr int kCalls = bench::kTrial ? 1 : 5;
    constexpr double kSeconds = bench::kTrial ? 0 : 0.25;
    for (double total = 0; n_calls < kCalls || total < kSeconds; ++n_calls) {
      backend->synchronize();
      const Clock::time_point start = Clock::now();
      for (int i = 0; i < in_a_row; ++i) call();
      backend->synchronize();
      const double s = std::chrono::duration<double>(Clock::now() - start).count();
      best = std::min(best, s / in_a_row);
      total += s;
    }
    return best;
  }

  // work: multiply-adds, at most `peak` operations a second; bytes: what has to be read at least,
  // of a working set of `set` bytes.
  void report(const std::string& name, double work, double peak, double bytes, double set,
              const std::function<void()>& call) const {
    if (name.find(filter) == std::string::npos) return;
    const double s = seconds(call);
    const double arithmetic = peak > 0 ? 2 * work / peak : 0, reading = bytes / roofs.read(set);
    std::printf("%-38s %9.3f ms %8.1f GFLOP/s %7.1f GB/s  %4.0f %% of %s\n", name.c_str(), s * 1e3,
                2 * work / s * 1e-9, bytes / s * 1e-9, 100 * std::max(arithmetic, reading) / s,
                arithmetic > reading ? "arithmetic" : "reading");
    if (json)
      std::fprintf(json,
                   "{\"op\":\"%s\",\"seconds\":%.4g,\"operations\":%.4g,\"peak\":%.4g,"
                   "\"bytes\":%.4g,\"read\":%.4g}\n",
                   name.c_str(), s, 2 * work, peak, bytes, roofs.read(set));
  }
};

std::vector<float> noise(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  uint32_t state = 12345;
  for (float& v : values) {
    state = state * 1664525 + 1013904223;
    v = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
  return values;
}

// Numbers in device memory: noise, or one byte throughout.
struct Area {
  Area(const Bench& b, int64_t n_floats) : buffer(*b.backend, account, {}, n_floats * 4) {
    b.backend->upload(buffer.data(), noise(n_floats).data(), buffer.bytes());
  }
  Area(const Bench& b, int64_t bytes, uint8_t byte) : buffer(*b.backend, account, {}, bytes) {
    const std::vector<uint8_t> all(static_cast<size_t>(bytes), byte);
    b.backend->upload(buffer.data(), all.data(), bytes);
  }
  float* data() const { return buffer.f32(); }

  MemoryAccount account;
  Buffer buffer;
};

// A weight of any type; its values do not matter (ordinary numbers), its bytes do.
struct Weight {
  Weight(const Bench& b, DType type, int64_t rows, int64_t cols)
      : scale(b, rows), data(b, matrix_bytes(type, rows, cols), 0x3c) {
    matrix = {data.data(), type, rows, cols,
              type == DType::I8 || type == DType::I8Tiles ? scale.data() : nullptr};
  }
  Area scale, data;
  Matrix matrix;
};

ConstView read(const Area& area, int64_t rows, int64_t cols) {
  return view(static_cast<const float*>(area.data()), rows, cols);
}

// Several copies of the weight in turn, together larger than any cache: each call reads memory.
void bench_linear(const Bench& b, DType type, int64_t t, int64_t k, int64_t n) {
  const int64_t bytes = matrix_bytes(type, n, k);
  const int64_t copies = t > 16 ? 1 : (int64_t{128} << 20) / bytes + 1;
  const std::string name = std::string("linear ") + dtype_name(type) + " T=" + std::to_string(t) +
                           " K=" + std::to_string(k) + " N=" + std::to_string(n);
  if (name.find(b.filter) == std::string::npos) return;
  const Weight weight(b, type, n * copies, k);
  const Area x(b, t * k), out(b, t * n);
  int64_t turn = 0;
  b.report(name, static_cast<double>(t * k * n), b.roofs.peak(type), static_cast<double>(bytes),
           static_cast<double>(bytes * copies), [&] {
             b.backend->linear(view(out.data(), t, n), read(x, t, k),
                               weight.matrix.slice(turn++ % copies * n, n), nullptr, {});
           });
}

void bench_attention(const Bench& b, DType type, int64_t t, int64_t past, bool causal) {
  const int64_t n_embd = 768, n_head = 12, n_ctx = 1024;
  const Area qkv(b, t * 3 * n_embd), out(b, t * n_embd);
  // Small numbers of every type, 8 bits with small scales included.
  const Area k(b, n_ctx * n_embd * 4, 0x2c), v(b, n_ctx * n_embd * 4, 0x2c);
  std::vector<int32_t> slot(static_cast<size_t>(t)), pos(static_cast<size_t>(t));
  for (int64_t i = 0; i < t; ++i) pos[static_cast<size_t>(i)] = static_cast<int32_t>(past + i);
  const double keys =
      causal ? static_cast<double>(past) + static_cast<double>(t + 1) / 2 : static_cast<double>(t);
  const std::string name = std::string("attention ") + dtype_name(type) +
                           " T=" + std::to_string(t) + " past=" + std::to_string(past) +
                           (causal ? " causal" : "");
  const double bytes = 2 * static_cast<double>((past + t) * n_embd * dtype_bytes(type));
  const KvLayer layer{k.data(), v.data(), type, n_ctx, n_embd};
  const double peak = type == DType::BF16 ? b.roofs.peak(type) : b.roofs.f32;
  b.report(name, 2 * keys * static_cast<double>(t * n_embd), peak, bytes, bytes, [&] {
    b.backend->attention(view(out.data(), t, n_embd), read(qkv, t, 3 * n_embd), &layer,
                         Rows{t, slot.data(), pos.data()}, n_head, causal);
  });
}

// Decode steps of t sequences, each with its own cache, one layer after the other: together larger
// than any cache of the processor when there are many.
void bench_batch_attention(const Bench& b, DType type, int64_t t, int64_t past) {
  const int64_t n_embd = 768, n_head = 12, n_ctx = 1024, n_layer = 12;
  const std::string name = std::string("attention ") + dtype_name(type) + " of " +
                           std::to_string(t) + " sequences past=" + std::to_string(past);
  if (name.find(b.filter) == std::string::npos) return;
  const Area qkv(b, t * 3 * n_embd), out(b, t * n_embd);
  KvCache cache{nullptr, type, n_layer, n_ctx, n_embd, n_head};
  std::deque<Area> areas;
  std::vector<KvCache> caches;
  std::vector<int32_t> slot, pos(static_cast<size_t>(t), static_cast<int32_t>(past));
  for (int32_t i = 0; i < t; ++i) {
    slot.push_back(i);
    areas.emplace_back(b, cache.bytes(), uint8_t{0x2c});
    cache.base = static_cast<std::byte*>(areas.back().buffer.data());
    caches.push_back(cache);
  }
  std::vector<KvLayer> kv(caches.size());
  const double keys = static_cast<double>(t * (past + 1));
  const double bytes = 2 * keys * static_cast<double>(n_embd * dtype_bytes(type)) +
                       (type == DType::I8 ? 8 * keys * static_cast<double>(n_head) : 0);
  int64_t layer = 0;
  b.report(name, 2 * keys * static_cast<double>(n_embd), b.roofs.f32, bytes, bytes * n_layer, [&] {
    for (size_t i = 0; i < kv.size(); ++i) kv[i] = caches[i].layer(layer);
    layer = (layer + 1) % n_layer;
    b.backend->attention(view(out.data(), t, n_embd), read(qkv, t, 3 * n_embd), kv.data(),
                         Rows{t, slot.data(), pos.data()}, n_head, true);
  });
}

void bench_rowwise(const Bench& b, int64_t t, int64_t c) {
  const Area x(b, t * c), gamma(b, c), out(b, t * c);
  const double bytes = static_cast<double>(2 * t * c * 4);
  const std::string shape = " T=" + std::to_string(t) + " C=" + std::to_string(c);
  const View y = view(out.data(), t, c);
  b.report("layernorm" + shape, 0, 0, bytes, bytes,
           [&] { b.backend->layernorm(y, read(x, t, c), gamma.data(), gamma.data()); });
  b.report("elu" + shape, 0, 0, bytes, bytes, [&] { b.backend->elu(y, read(x, t, c)); });
}

void bench_lstm(const Bench& b, int64_t t, int64_t hidden) {
  const Weight w(b, DType::F32, 4 * hidden, hidden);
  const Area gates(b, t * 4 * hidden), out(b, t * hidden), h(b, hidden), c(b, hidden);
  b.report("lstm T=" + std::to_string(t) + " H=" + std::to_string(hidden),
           static_cast<double>(4 * t * hidden * hidden), b.roofs.f32,
           static_cast<double>(16 * t * hidden * hidden), static_cast<double>(16 * hidden * hidden),
           [&] {
             b.backend->lstm(view(out.data(), t, hidden), read(gates, t, 4 * hidden), w.matrix,
                             h.data(), c.data());
           });
}

void bench_conv(const Bench& b, int64_t t, int64_t in, int64_t out, int64_t kernel) {
  const Weight w(b, DType::F32, out, kernel * in);
  const Area x(b, (t + kernel - 1) * in), y(b, t * out);
  const std::string name = "conv1d T=" + std::to_string(t) + " in=" + std::to_string(in) +
                           " out=" + std::to_string(out) + " k=" + std::to_string(kernel);
  const double bytes = static_cast<double>(t * (in + out) * 4);
  b.report(name, static_cast<double>(t * in * out * kernel), b.roofs.f32, bytes, bytes, [&] {
    b.backend->conv1d(view(y.data(), t, out), read(x, t + kernel - 1, in).slice(kernel - 1, t),
                      w.matrix, nullptr, kernel, 1);
  });
}

void bench_sample(const Bench& b, int64_t t, int64_t n) {
  const Area logits(b, t * n);
  SampleParams params;
  params.temperature = 0.7f, params.coin = 0.5;
  const std::vector<SampleParams> all(static_cast<size_t>(t), params);
  std::vector<int32_t> ids(static_cast<size_t>(t));
  const double bytes = static_cast<double>(t * n * 4);
  b.report("sample T=" + std::to_string(t) + " N=" + std::to_string(n), 0, 0, bytes, bytes,
           [&] { b.backend->sample(ids.data(), read(logits, t, n), all.data()); });
}

void run(const Bench& b) {
  for (const DType type :
       {DType::F32, DType::F16, DType::BF16, DType::I8, DType::I8Tiles, DType::I4}) {
    if (!b.backend->has_weight_type(type)) continue;
    bench_linear(b, type, 1, 768, 2304);
    bench_linear(b, type, 1, 3072, 768);
    bench_linear(b, type, 2, 768, 2304);
    bench_linear(b, type, 8, 768, 2304);
    bench_linear(b, type, 16, 768, 2304);
    bench_linear(b, type, 16, 3072, 768);
    bench_linear(b, type, 257, 768, 2304);
    bench_linear(b, type, 1024, 768, 3072);
    bench_linear(b, type, 1024, 3072, 768);
  }
  for (const DType type : {DType::F16, DType::F32, DType::I8}) {
    bench_attention(b, type, 1, 512, true);
    bench_attention(b, type, 1, 1000, true);
    bench_attention(b, type, 257, 0, true);
    bench_attention(b, type, 1024, 0, false);
  }
  for (const DType type : {DType::F16, DType::I8}) bench_batch_attention(b, type, 16, 512);
  bench_attention(b, DType::BF16, 1024, 0, false);
  bench_rowwise(b, 1, 768);
  bench_rowwise(b, 1024, 768);
  bench_rowwise(b, 1024, 3072);
  bench_sample(b, 1, 10001);
  bench_sample(b, 16, 10001);
  bench_sample(b, 1024, 1024);
  bench_lstm(b, 75, 512);
  bench_conv(b, 2400, 256, 128, 3);
  bench_conv(b, 24000, 32, 16, 3);
  bench_conv(b, 24000, 32, 1, 7);
}

}  // namespace
}  // namespace barkrt

int main(int argc, char** argv) {
  const barkrt::bench::Arguments arguments(argc, argv);
  const int threads = static_cast<int>(arguments.number(0, 0));
  const std::string isa =
      arguments.rest.size() > 1 ? arguments.rest[1] : barkrt::cpu_instruction_sets().front();
  const char* filter = arguments.rest.size() > 2 ? arguments.rest[2] : "";
  const int device = arguments.device;
  try {
    const int n = threads > 0 ? threads : barkrt::cpu_usable_cores();
    const barkrt::bench::Roofs roofs = barkrt::bench::measure_roofs(device, n);
    barkrt::bench::print_roofs(roofs);
    if (device == 0) std::printf("instruction set %s, %d threads\n", isa.c_str(), n);
    std::FILE* json = arguments.json ? std::fopen(arguments.json, "w") : nullptr;
    if (arguments.json && !json) std::perror(arguments.json), std::exit(1);
    barkrt::run({device == 0 ? barkrt::make_cpu_backend(n, isa) : barkrt::make_backend(device, n),
                 roofs, filter, json, device == 0 || barkrt::bench::kTrial ? 1 : 100});
    if (json) std::fclose(json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
