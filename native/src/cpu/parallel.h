// parallel.h: the CPU backend's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace barkrt {

// Memory that the next loop reads, cut into the stretches of its threads: thread i begins at byte
// i * stretch. Whether and how much of it is fetched changes no result.
struct Ahead {
  const void* data = nullptr;
  int64_t bytes = 0;
  int64_t stretch = 0;

  // Where thread i begins; NULL when nothing is its.
  const char* of(int64_t i) const {
    return i * stretch < bytes ? static_cast<const char*>(data) + i * stretch : nullptr;
  }
};

// Who takes a piece of a loop.
struct Taker {
  int thread;   // below n_threads(), and nobody else's in this loop
  bool begins;  // whether it is this thread's first piece of the loop
};

// A fixed set of threads that help callers through loops. Several callers may have loops running at
// once: each works on its own, and idle threads join any loop with work left. Who waits looks
// around for some tens of microseconds, in which the next loop of a running model comes, and then
// sleeps.
//
// What is read by the loop after this one can be named: then those who wait fetch the beginning of
// their stretch of it into their caches.
class ThreadPool {
 public:
  // n_threads counts the caller: n_threads - 1 are started. Throws Device when one cannot be.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(begin, end) over consecutive pieces of [0, n), `grain` long but for the last; returns
  // when all are done. Which thread gets which piece is open, so a result must not depend on it.
  // The first exception ends the loop early and is thrown here. An fn that takes a third argument
  // gets its Taker, for memory that was shared out before: a lock in each piece costs more than
  // small ones take.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, const F& fn, const Ahead& ahead = {}) {
    run(n, grain, body_of(fn), ahead, false);
  }

  // As parallel_for with the pieces of stretch(n, multiple): each thread begins with its own, which
  // is the same one in every loop, and takes another's only if nobody has begun it. The last eighth
  // of a stretch, in whole multiples, is a piece of its own, which whoever is early takes: threads
  // that read as much seldom end together.
  template <class F>
  void for_stretches(int64_t n, int64_t multiple, const F& fn, const Ahead& ahead = {}) {
    const int64_t piece = stretch(n, multiple);
    run(n, piece, body_of(fn), ahead, true, piece / 8 / multiple * multiple);
  }

  // Length of the pieces that share [0, n) out evenly, a multiple of `multiple`.
  int64_t stretch(int64_t n, int64_t multiple) const {
    const int64_t even = (n + n_threads() - 1) / n_threads();
    return std::max<int64_t>((even + multiple - 1) / multiple * multiple, multiple);
  }

 private:
  struct Body {
    const void* fn;
    void (*call)(const void* fn, int64_t begin, int64_t end, Taker taker);
  };
  template <class F>
  static Body body_of(const F& fn) {
    return {&fn, [](const void* f, int64_t begin, int64_t end, Taker taker) {
              if constexpr (std::is_invocable_v<const F&, int64_t, int64_t, Taker>)
                (*static_cast<const F*>(f))(begin, end, taker);
              else
                (*static_cast<const F*>(f))(begin, end);
            }};
  }
  struct Loop;

  void run(int64_t n, int64_t grain, const Body& body, const Ahead& ahead, bool own_first,
           int64_t tail = 0);
  void work(int me);
  Loop* find() const;
  Loop* enter();
  void join(Loop& loop, int me);
  void leave(Loop& loop);
  void stop();

  std::mutex mutex_;       // guards loops_, n_asleep_, stopping_, and entering a loop
  Loop* loops_ = nullptr;  // those that may have pieces left, a list: the oldest one
  int n_asleep_ = 0;
  bool stopping_ = false;
  std::condition_variable wake_;       // a loop was listed
  std::condition_variable left_;       // a loop's last guest has left
  std::atomic<uint32_t> n_listed_{0};  // loops ever listed: what idle threads watch
  std::atomic<int> n_waiting_{0};      // callers asleep on left_
  std::vector<std::thread> workers_;
};

}  // namespace barkrt
