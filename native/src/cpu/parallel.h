// parallel.h: the CPU backend's threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace barkrt {

// A fixed set of threads that help callers through loops. Several callers may have loops running at
// once: each works on its own, idle threads join any loop with work left, and waiting is sleeping.
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
  void parallel_for(int64_t n, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end)>& fn);

 private:
  struct Loop;

  void work();
  void join(Loop& loop);
  void stop();

  std::mutex mutex_;  // guards loops_, n_idle_, stopping_ and every Loop::n_inside
  std::condition_variable wake_;
  std::vector<Loop*> loops_;  // those that may have pieces left
  int n_idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace barkrt
