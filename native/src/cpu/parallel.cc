// parallel.cc: loops shared by threads that look around for a while and then sleep.
#include "cpu/parallel.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <system_error>

#include "error.h"

namespace barkrt {
namespace {

// Longer than what lies between two loops of a pass (sampling included), far shorter than a time
// slice: a thread whose partner was descheduled gives its core away.
constexpr std::chrono::microseconds kLookAround{60};
// Before it yields to other programs' threads at every look.
constexpr std::chrono::microseconds kAlone{15};
constexpr int kLooksPerTime = 16;  // reading the clock costs about as much

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// What a waiting thread still has to fetch of Ahead.
class Fetch {
 public:
  Fetch() = default;
  Fetch(const Ahead& ahead, int thread) {
    next_ = ahead.of(thread);
    if (!next_) return;
    left_ =
        std::min({ahead.stretch, ahead.bytes - thread * ahead.stretch, kMostFetched}) / kCacheLine;
  }

  // Asks for some lines; false when there are none left.
  bool some() {
    if (left_ <= 0) return false;
    for (int i = 0; i < kLinesPerLook; ++i, next_ += kCacheLine) __builtin_prefetch(next_, 0, 2);
    left_ -= kLinesPerLook;
    return true;
  }

 private:
  static constexpr int64_t kCacheLine = 64;
  static constexpr int64_t kMostFetched = 384 << 10;  // a part of a second-level cache
  static constexpr int kLinesPerLook = 4;

  const char* next_ = nullptr;
  int64_t left_ = 0;  // lines
};

// False when `happened` stayed false.
template <class F>
bool look_around(const F& happened, Fetch& fetch) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    for (int i = 0; i < kLooksPerTime; ++i) {
      if (happened()) return true;
      if (!fetch.some()) pause();
    }
    const auto elapsed = std::chrono::steady_clock::now() - start;
    if (elapsed > kLookAround) return false;
    if (elapsed > kAlone) std::this_thread::yield();
  }
}

// Held for a few instructions only: worth some attempts before the kernel is asked.
std::unique_lock<std::mutex> lock_soon(std::mutex& mutex) {
  for (int i = 0; i < 100; ++i) {
    std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    if (lock) return lock;
    pause();
  }
  return std::unique_lock<std::mutex>(mutex);
}

}  // namespace

// Lives on its caller's stack. Order of events:
//   1. the caller lists the loop and wakes sleeping workers;
//   2. a worker that finds it listed enters (n_inside + 1, under mutex_) and takes pieces until
//      none is left;
//   3. the caller does the same, then unlists the loop: nobody enters any more;
//   4. the caller waits until n_inside is 0. A worker's last touch is to lower it; whether a caller
//      sleeps it learns from the pool: of "n_inside falls" and "n_waiting_ rises" one comes first,
//      and whoever comes second sees the other.
struct ThreadPool::Loop {
  Loop(int64_t count, int64_t piece, const Body& of, const Ahead& reads_next, bool own,
       int64_t last_part)
      : n(count),
        grain(piece),
        n_pieces((n + grain - 1) / grain),
        body(of),
        ahead(reads_next),
        own_first(own && n_pieces <= kMostOwned),
        tail(last_part) {}

  bool has_pieces() const {
    if (!own_first) return next.load(std::memory_order_relaxed) < n;
    return fronts.load(std::memory_order_relaxed) != all_taken() ||
           tails.load(std::memory_order_relaxed) != all_taken();
  }
  void take_all() {
    next.store(n, std::memory_order_relaxed);
    if (!own_first) return;
    fronts.store(all_taken(), std::memory_order_relaxed);
    tails.store(all_taken(), std::memory_order_relaxed);
  }
  uint64_t all_taken() const { return (uint64_t{1} << n_pieces) - 1; }
  static bool take(std::atomic<uint64_t>& pieces, int64_t piece) {
    const uint64_t bit = uint64_t{1} << piece;
    return (pieces.load(std::memory_order_relaxed) & bit) == 0 &&
           (pieces.fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
  }
  void do_piece(int64_t begin, int64_t end, Taker& taker) const {
    if (begin >= end) return;
    body.call(body.fn, begin, end, taker);
    taker.begins = false;
  }
  // What is left of piece i, whose thread may have more of it in hand.
  void do_stretch(int64_t i, Taker& taker) {
    const int64_t begin = i * grain, end = std::min(begin + grain, n);
    const int64_t cut = std::min(begin + grain - tail, end);
    if (take(fronts, i)) do_piece(begin, cut, taker);
    if (take(tails, i)) do_piece(cut, end, taker);
  }

  static constexpr int64_t kMostOwned = 63;  // bits of `fronts`

  const int64_t n;
  const int64_t grain;
  const int64_t n_pieces;
  const Body body;
  const Ahead ahead;
  const bool own_first;
  const int64_t tail;                         // of a piece, with own_first
  std::atomic<int64_t> next{0};               // first number not taken; without own_first
  std::atomic<uint64_t> fronts{0}, tails{0};  // taken ones, a bit each; with own_first
  std::atomic<int> n_inside{0};
  std::exception_ptr error;     // the first one; guarded by mutex_
  Loop* listed_next = nullptr;  // guarded by mutex_
};

ThreadPool::ThreadPool(int n_threads) {
  workers_.reserve(static_cast<size_t>(std::max(n_threads - 1, 0)));
  try {
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { work(i); });
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

// A listed loop with pieces left, or NULL. Under mutex_.
ThreadPool::Loop* ThreadPool::find() const {
  Loop* loop = loops_;
  while (loop && !loop->has_pieces()) loop = loop->listed_next;
  return loop;
}

// The same, entered.
ThreadPool::Loop* ThreadPool::enter() {
  const std::unique_lock<std::mutex> lock = lock_soon(mutex_);
  Loop* const loop = find();
  if (loop) loop->n_inside.fetch_add(1);
  return loop;
}

// Takes pieces of `loop` until none is left. An exception takes the rest away from everybody.
void ThreadPool::join(Loop& loop, int me) {
  Taker taker{me, true};
  try {
    if (loop.own_first) {
      for (int64_t i = 0; i < loop.n_pieces; ++i) loop.do_stretch((me + i) % loop.n_pieces, taker);
      return;
    }
    for (;;) {
      const int64_t begin = loop.next.fetch_add(loop.grain, std::memory_order_relaxed);
      if (begin >= loop.n) return;
      loop.do_piece(begin, std::min(begin + loop.grain, loop.n), taker);
    }
  } catch (...) {
    loop.take_all();
    std::lock_guard<std::mutex> lock(mutex_);
    if (!loop.error) loop.error = std::current_exception();
  }
}

void ThreadPool::leave(Loop& loop) {
  if (loop.n_inside.fetch_sub(1) != 1 || n_waiting_.load() == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  left_.notify_all();
}

void ThreadPool::work(int me) {
  Fetch fetch;
  for (;;) {
    const uint32_t seen = n_listed_.load();
    if (Loop* loop = enter()) {
      fetch = Fetch(loop->ahead, me);
      join(*loop, me);
      leave(*loop);
      continue;
    }
    const auto listed = [&] { return n_listed_.load(std::memory_order_relaxed) != seen; };
    if (look_around(listed, fetch)) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    ++n_asleep_;
    wake_.wait(lock, [&] { return stopping_ || n_listed_.load() != seen || find(); });
    --n_asleep_;
    if (stopping_) return;
  }
}

void ThreadPool::run(int64_t n, int64_t grain, const Body& body, const Ahead& ahead, bool own_first,
                     int64_t tail) {
  BARKRT_CHECK(grain > 0);
  if (n <= 0) return;
  if (n <= grain || workers_.empty()) {
    for (int64_t begin = 0; begin < n; begin += grain)
      body.call(body.fn, begin, std::min(begin + grain, n), {0, begin == 0});
    return;
  }
  Loop loop(n, grain, body, ahead, own_first, tail);
  int64_t to_wake = 0;
  {
    const std::unique_lock<std::mutex> lock = lock_soon(mutex_);
    Loop** end = &loops_;
    while (*end) end = &(*end)->listed_next;
    *end = &loop;
    to_wake = std::min<int64_t>(n_asleep_, loop.n_pieces - 1);
  }
  n_listed_.fetch_add(1);  // now that who sees it finds the lock free
  for (; to_wake > 0; --to_wake) wake_.notify_one();
  join(loop, 0);
  {
    const std::unique_lock<std::mutex> lock = lock_soon(mutex_);
    Loop** at = &loops_;
    while (*at != &loop) at = &(*at)->listed_next;
    *at = loop.listed_next;
  }
  const auto all_left = [&] { return loop.n_inside.load() == 0; };
  Fetch fetch(ahead, 0);
  if (!look_around(all_left, fetch)) {
    std::unique_lock<std::mutex> lock(mutex_);
    n_waiting_.fetch_add(1);
    left_.wait(lock, all_left);
    n_waiting_.fetch_sub(1);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace barkrt
