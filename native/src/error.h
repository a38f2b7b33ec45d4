// error.h: the one exception type of the library; capi.cc turns it into a barkrt_status and a text.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace barkrt {

// Values equal barkrt_status of barkrt.h.
enum class Status : int32_t {
  Ok = 0,
  InvalidArgument = 1,
  NotFound = 2,
  BadModel = 3,
  OutOfMemory = 4,
  Device = 5,
  Unsupported = 6,
  Busy = 7,
  Cancelled = 8,
  Internal = 9,
};

class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

// printf-style text of an Error: fail(Status::BadModel, "tensor %s has %lld rows", ...). Does not
// return.
[[noreturn]] void fail(Status status, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// Overflow-checked products and sums for sizes that a file or a user supplied; throw
// InvalidArgument.
int64_t checked_mul(int64_t a, int64_t b);
int64_t checked_add(int64_t a, int64_t b);

// Log lines to the sink of barkrt_set_log; level is a barkrt_log_level: one of these.
constexpr int32_t kLogDebug = 0, kLogInfo = 1, kLogWarn = 2;
void log_line(int32_t level, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Where log_line writes: barkrt_set_log. NULL discards. A line being written may still reach the
// previous sink.
void set_log_sink(void (*fn)(void* user, int32_t level, const char* text), void* user);

}  // namespace barkrt

// A programmer's promise, checked in every build: a violation is Status::Internal, never an abort.
#define BARKRT_CHECK(condition)                                                                 \
  do {                                                                                          \
    if (!(condition))                                                                           \
      ::barkrt::fail(::barkrt::Status::Internal, "%s:%d: %s does not hold", __FILE__, __LINE__, \
                     #condition);                                                               \
  } while (0)
