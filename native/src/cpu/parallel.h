// parallel.h: the CPU backend's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>
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
// once: each works on its own, and idle threads join any caller whose loop has pieces left. Who
// waits looks around for some tens of microseconds, in which the next loop of a running model
// comes, and then sleeps.
//
// What is read by the loop after this one can be named: then those who wait fetch the beginning of
// their stretch of it into their caches.
class ThreadPool {
 public:
  class Chain;

  // n_threads counts the caller: n_threads - 1 are started. Throws Device when one cannot be.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Length of the pieces that share [0, n) out evenly, a multiple of `multiple`.
  int64_t stretch(int64_t n, int64_t multiple) const {
    const int64_t even = (n + n_threads() - 1) / n_threads();
    return std::max<int64_t>((even + multiple - 1) / multiple * multiple, multiple);
  }

 private:
  struct Loop;
  class Fetch;

  void work(int me);
  Chain* find() const;
  Chain* enter();
  void list(Chain& chain);
  void unlist(Chain& chain);
  void call(const Chain& chain, const Loop& loop);
  Fetch join(Chain& chain, int me);
  template <class F>
  bool await(int me, const F& happened, Fetch& fetch);
  void tell_callers();
  void stop();

  std::mutex mutex_;         // guards chains_, stopping_, and entering a chain
  Chain* chains_ = nullptr;  // those that are under way, a list: the oldest one
  bool stopping_ = false;
  std::condition_variable wake_;      // a loop may have pieces for those who sleep
  std::condition_variable moved_;     // for callers: a loop has ended, or a guest has left
  std::atomic<uint32_t> n_calls_{0};  // loops that had room for more threads: what idle ones watch
  std::atomic<int> n_asleep_{0};      // threads asleep on wake_
  std::atomic<int> n_waiting_{0};     // callers asleep on moved_
  std::vector<std::thread> workers_;
};

// Loops of one caller that run one after the other: none begins before all pieces of the one before
// it are done. Threads go from one to the next without leaving: what lies between two loops is one
// line of memory that tells the others that the last piece is done.
//
// A loop calls fn(begin, end) over consecutive pieces of [0, n). Which thread gets which piece is
// open, so a result must not depend on it. An fn that takes a third argument gets its Taker, for
// memory that was shared out before: a lock in each piece costs more than small ones take.
//
// A chain belongs to one thread. In a pool of one thread a loop runs when it is added.
class ThreadPool::Chain {
 public:
  static constexpr size_t kFunctionBytes = 448;  // of an fn, which is kept

  // Room for `capacity` loops at a time.
  Chain(ThreadPool& pool, int64_t capacity);
  // What was not finished is given up.
  ~Chain();
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  // Pieces `grain` long but for the last. When there is no room, finishes the loops before; throws
  // what finish() does.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F fn, const Ahead& ahead = {}) {
    add(n, grain, std::move(fn), ahead, false, 0);
  }

  // Pieces of stretch(n, multiple): each thread begins with its own, which is the same one in every
  // loop, and takes another's only if nobody has begun it. The last eighth of a stretch, in whole
  // multiples, is a piece of its own, which whoever is early takes: threads that read as much
  // seldom end together.
  template <class F>
  void for_stretches(int64_t n, int64_t multiple, F fn, const Ahead& ahead = {}) {
    const int64_t piece = pool_.stretch(n, multiple);
    add(n, piece, std::move(fn), ahead, true, piece / 8 / multiple * multiple);
  }

  // From now on threads begin with a loop as soon as it is added.
  void begin_early() { early_ = true; }
  // Returns when all loops are done, and there is room for others. The first exception takes from
  // all threads what is left, and is thrown here.
  void finish();

 private:
  friend class ThreadPool;
  struct Claim;
  using Call = void (*)(const void* fn, int64_t begin, int64_t end, Taker taker);

  template <class F>
  void add(int64_t n, int64_t grain, F fn, const Ahead& ahead, bool own_first, int64_t tail);
  // Where the loop's function is to be kept.
  void* place(int64_t n, int64_t grain, const Ahead& ahead, bool own_first, int64_t tail);
  void publish(Call call, void (*destroy)(void*));
  void begin();
  void clear();

  int64_t n_added() const { return added_.load() / 2; }
  bool is_last(int64_t i) const { return added_.load() == 2 * (i + 1) + 1; }
  int64_t at() const;
  bool has_pieces() const;
  bool take(int64_t owner, int64_t loop, bool front);
  int64_t take_pieces(int64_t i, int me);

  ThreadPool& pool_;
  const int64_t capacity_;
  std::unique_ptr<Loop[]> loops_;
  std::unique_ptr<Claim[]> claims_;  // of each thread's stretches
  bool early_ = false;
  bool begun_ = false;                         // and listed
  Chain* listed_next_ = nullptr;               // guarded by the pool's mutex_
  std::exception_ptr error_;                   // the first one; guarded by the pool's mutex_
  std::atomic<bool> failed_{false};            // what is left is taken, but not done
  alignas(64) std::atomic<int64_t> added_{0};  // twice their number, plus 1: there come no more
  alignas(64) std::atomic<int64_t> done_{0};   // numbers of all loops
  alignas(64) std::atomic<int> n_inside_{0};
};

template <class F>
void ThreadPool::Chain::add(int64_t n, int64_t grain, F fn, const Ahead& ahead, bool own_first,
                            int64_t tail) {
  static_assert(sizeof(F) <= kFunctionBytes && alignof(F) <= 64);
  const Call call = [](const void* f, int64_t begin, int64_t end, Taker taker) {
    if constexpr (std::is_invocable_v<const F&, int64_t, int64_t, Taker>)
      (*static_cast<const F*>(f))(begin, end, taker);
    else
      (*static_cast<const F*>(f))(begin, end);
  };
  if (n <= 0) return;
  if (pool_.n_threads() == 1) {
    for (int64_t begin = 0; begin < n; begin += grain)
      call(&fn, begin, std::min(begin + grain, n), {0, begin == 0});
    return;
  }
  void* const kept = place(n, grain, ahead, own_first, tail);
  new (kept) F(std::move(fn));
  publish(call, [](void* f) { static_cast<F*>(f)->~F(); });
}

}  // namespace barkrt
