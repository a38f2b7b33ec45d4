// bench_load.cc: time from a model file in the page cache to the first usable session, beside a
// plain read of the same file. Usage: bench_load [--device=N] FILE [OTHER], where the model OTHER
// (FILE itself by default) is already loaded and holds the codec.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "arguments.h"
#include "barkrt.h"

namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "bench_load: %s\n", what);
  std::exit(1);
}

// What `cat FILE >/dev/null` does: every byte, 128 KiB at a time.
double read_all(const char* path, int64_t* bytes) {
  std::vector<char> buffer(128 << 10);
  const Clock::time_point start = Clock::now();
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("cannot open the file");
  *bytes = 0;
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0) die("cannot read the file");
    if (n == 0) break;
    *bytes += n;
  }
  ::close(fd);
  return ms_since(start);
}

struct Loaded {
  barkrt_model* model = nullptr;
  barkrt_session* session = nullptr;
  double load_ms = 0, session_ms = 0;

  Loaded(const char* path, int device) {
    barkrt_error err;
    barkrt_model_params params;
    barkrt_model_params_init(&params);
    params.path = path;
    params.device = device;
    Clock::time_point start = Clock::now();
    if (barkrt_model_load(&params, &model, &err)) die(err.text);
    load_ms = ms_since(start);
    start = Clock::now();
    if (barkrt_session_new(model, nullptr, &session, &err)) die(err.text);
    session_ms = ms_since(start);
  }
  Loaded(const Loaded&) = delete;
  ~Loaded() {
    barkrt_session_free(session);
    barkrt_model_free(model);
  }
};

// The first and the fastest of some runs.
void report(const char* name, const char* path, int device, int runs) {
  double first = 0, best = 1e9, best_load = 0;
  for (int i = 0; i < runs; ++i) {
    const Loaded loaded(path, device);
    const double ms = loaded.load_ms + loaded.session_ms;
    if (i == 0) first = ms;
    if (ms < best) best = ms, best_load = loaded.load_ms;
  }
  std::printf("%-52s %8.2f ms, first %.2f ms (load %.2f, session %.2f)\n", name, best, first,
              best_load, best - best_load);
}

}  // namespace

int main(int argc, char** argv) {
  const barkrt::bench::Arguments arguments(argc, argv);
  if (arguments.rest.empty()) die("usage: bench_load [--device=N] FILE [OTHER]");
  const char* path = arguments.rest[0];
  const char* other_path = arguments.rest.size() > 1 ? arguments.rest[1] : path;
  const int device = arguments.device;
  constexpr int runs = 5;
  int64_t bytes = 0;
  read_all(other_path, &bytes);
  read_all(path, &bytes);  // into the page cache
  report("load and session", path, device, runs);
  {
    const Loaded other(other_path, device);
    report("load and session, codec compared and shared", path, device, runs);
  }
  double best = 1e9;
  for (int i = 0; i < runs; ++i) best = std::min(best, read_all(path, &bytes));
  std::printf("%-52s %8.2f ms, %.1f MB\n", "read of the same file", best,
              static_cast<double>(bytes) * 1e-6);
  return 0;
}
