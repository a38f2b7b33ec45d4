// parallel.cc: loops shared by threads that sleep when there is nothing to do.
#include "cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>

#include "error.h"

namespace barkrt {

// Lives on its caller's stack. Order of events, all under mutex_ but for the taking of pieces:
//   1. the caller lists the loop and wakes idle workers;
//   2. a worker that finds it listed enters (n_inside + 1) and takes pieces until none is left;
//   3. the caller does the same, then unlists the loop: nobody enters any more;
//   4. the caller waits until n_inside is 0, so nobody touches the loop after parallel_for returns.
struct ThreadPool::Loop {
  Loop(int64_t count, int64_t piece, const std::function<void(int64_t, int64_t)>& body)
      : n(count), grain(piece), fn(body) {}

  const int64_t n;
  const int64_t grain;
  const std::function<void(int64_t, int64_t)>& fn;
  std::atomic<int64_t> next{0};
  int n_inside = 0;
  std::exception_ptr error;  // the first one
  std::condition_variable left;
};

ThreadPool::ThreadPool(int n_threads) {
  workers_.reserve(static_cast<size_t>(std::max(n_threads - 1, 0)));
  try {
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error& e) {
    const int started = static_cast<int>(workers_.size());
    stop();
    fail(Status::Device, "cannot start thread %d of %d: %s; ask for fewer threads", started + 2,
         n_threads, e.what());
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

// Takes pieces of `loop` until none is left. An exception takes the rest away from everybody.
void ThreadPool::join(Loop& loop) {
  try {
    for (;;) {
      const int64_t begin = loop.next.fetch_add(loop.grain, std::memory_order_relaxed);
      if (begin >= loop.n) return;
      loop.fn(begin, std::min(begin + loop.grain, loop.n));
    }
  } catch (...) {
    loop.next.store(loop.n, std::memory_order_relaxed);
    std::lock_guard<std::mutex> lock(mutex_);
    if (!loop.error) loop.error = std::current_exception();
  }
}

void ThreadPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Loop* loop = nullptr;
    for (Loop* candidate : loops_)
      if (candidate->next.load(std::memory_order_relaxed) < candidate->n) {
        loop = candidate;
        break;
      }
    if (loop == nullptr) {
      if (stopping_) return;
      ++n_idle_;
      wake_.wait(lock);
      --n_idle_;
      continue;
    }
    ++loop->n_inside;
    lock.unlock();
    join(*loop);
    lock.lock();
    if (--loop->n_inside == 0) loop->left.notify_one();
  }
}

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              const std::function<void(int64_t, int64_t)>& fn) {
  BARKRT_CHECK(grain > 0);
  if (n <= 0) return;
  if (n <= grain || workers_.empty()) {
    for (int64_t begin = 0; begin < n; begin += grain) fn(begin, std::min(begin + grain, n));
    return;
  }
  Loop loop(n, grain, fn);
  int64_t to_wake = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    loops_.push_back(&loop);
    to_wake = std::min<int64_t>(n_idle_, (n + grain - 1) / grain - 1);
  }
  for (; to_wake > 0; --to_wake) wake_.notify_one();
  join(loop);
  std::unique_lock<std::mutex> lock(mutex_);
  loops_.erase(std::find(loops_.begin(), loops_.end(), &loop));
  loop.left.wait(lock, [&] { return loop.n_inside == 0; });
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace barkrt
