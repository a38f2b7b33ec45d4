// error.cc: texts of errors, checked sizes, and the log sink.
#include "error.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>

namespace barkrt {
namespace {

using LogSink = void (*)(void*, int32_t, const char*);

// One mutex for function and user pointer, so that a reader never sees half of a change.
struct SinkSlot {
  std::mutex mutex;
  LogSink fn = nullptr;
  void* user = nullptr;
};

SinkSlot& sink_slot() {
  static SinkSlot slot;
  return slot;
}

// barkrt_error holds 1020 bytes; longer texts are cut.
constexpr size_t kTextBytes = 1020;

}  // namespace

void fail(Status status, const char* format, ...) {
  char text[kTextBytes];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error(status, text);
}

int64_t checked_mul(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product))
    fail(Status::InvalidArgument, "size %lld * %lld does not fit in 64 bits",
         static_cast<long long>(a), static_cast<long long>(b));
  return product;
}

int64_t checked_add(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum))
    fail(Status::InvalidArgument, "size %lld + %lld does not fit in 64 bits",
         static_cast<long long>(a), static_cast<long long>(b));
  return sum;
}

void log_line(int32_t level, const char* format, ...) {
  SinkSlot& slot = sink_slot();
  LogSink fn = nullptr;
  void* user = nullptr;
  {
    std::lock_guard<std::mutex> lock(slot.mutex);
    fn = slot.fn;
    user = slot.user;
  }
  if (fn == nullptr) return;
  char text[kTextBytes];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fn(user, level, text);  // outside the lock: the sink may take its own
}

void set_log_sink(LogSink fn, void* user) {
  SinkSlot& slot = sink_slot();
  std::lock_guard<std::mutex> lock(slot.mutex);
  slot.fn = fn;
  slot.user = user;
}

}  // namespace barkrt
