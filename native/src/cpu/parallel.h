// parallel.h: the CPU backend's threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace barkrt {

// A fixed set of threads that help callers through loops. Several callers may have loops running at
// once: each works on its own, and idle threads join any loop with work left. Who waits looks
// around for some tens of microseconds, in which the next loop of a running model comes, and then
// sleeps.
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
  // The first exception ends the loop early and is thrown here.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, const F& fn) {
    run(n, grain, {&fn, [](const void* f, int64_t begin, int64_t end) {
                     (*static_cast<const F*>(f))(begin, end);
                   }});
  }

 private:
  struct Body {
    const void* fn;
    void (*call)(const void* fn, int64_t begin, int64_t end);
  };
  struct Loop;

  void run(int64_t n, int64_t grain, const Body& body);
  void work();
  Loop* enter();
  void join(Loop& loop);
  void leave(Loop& loop);
  void stop();

  std::mutex mutex_;          // guards loops_, n_asleep_, stopping_, and entering a loop
  std::vector<Loop*> loops_;  // those that may have pieces left
  int n_asleep_ = 0;
  bool stopping_ = false;
  std::condition_variable wake_;       // a loop was listed
  std::condition_variable left_;       // a loop's last guest has left
  std::atomic<uint32_t> n_listed_{0};  // loops ever listed: what idle threads watch
  std::atomic<int> n_waiting_{0};      // callers asleep on left_
  std::vector<std::thread> workers_;
};

}  // namespace barkrt
