// parallel.cc: chains of loops shared by threads that look around for a while and then sleep.
#include "cpu/parallel.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <system_error>

#include "error.h"

namespace barkrt {
namespace {

// Longer than what lies between two chains of a model at work (sampling included), far shorter than
// a time slice: a thread whose partner was descheduled gives its core away.
constexpr std::chrono::microseconds kLookAround{60};
// Before it yields to other programs' threads at every look.
constexpr std::chrono::microseconds kAlone{15};
constexpr int kLooksPerTime = 16;  // reading the clock costs about as much
constexpr int64_t kCacheLine = 64;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
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

// What a waiting thread still has to fetch of Ahead.
class ThreadPool::Fetch {
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
  static constexpr int64_t kMostFetched = 384 << 10;  // a part of a second-level cache
  static constexpr int kLinesPerLook = 4;

  const char* next_ = nullptr;
  int64_t left_ = 0;  // lines
};

// But for `next` it does not change once it is added.
struct alignas(kCacheLine) ThreadPool::Loop {
  // Has its lines come, for who will run it.
  void fetch() const {
    for (size_t i = 0; i < sizeof *this; i += kCacheLine)
      __builtin_prefetch(reinterpret_cast<const char*>(this) + i);
  }

  int64_t n, grain, n_pieces;
  int64_t done_at;  // the chain's done_ when it is done
  int64_t tail;     // of a piece, with own_first
  Ahead ahead;
  Chain::Call call;
  void (*destroy)(void* fn);
  bool own_first;
  alignas(kCacheLine) std::atomic<int64_t> next;  // first number not taken; without own_first
  alignas(kCacheLine) std::byte fn[Chain::kFunctionBytes];
};

// What of one thread's stretch was taken: twice the number of its loop, plus 1 when that is all of
// it and not only its front. It only rises, so that who is late finds nothing. Touched by its
// thread for the most part, and so near it.
struct alignas(kCacheLine) ThreadPool::Chain::Claim {
  std::atomic<int64_t> taken{-1};
};

// --- a chain, as its caller sees it. Order of events:
//   1. the caller lists the chain and wakes sleeping workers, before or after it adds loops;
//   2. a worker that finds it listed enters (n_inside_ + 1, under the pool's mutex) and goes
//   through
//      the loops: takes pieces until none is left, waits until the loop is done, goes on. It leaves
//      when no loop comes, and may come again;
//   3. the caller says that no more loops come and does the same, then unlists the chain: nobody
//      enters any more;
//   4. the caller waits until n_inside_ is 0. A worker's last touch is to lower it.
// Whether a caller sleeps, or a worker that a loop could use, is learnt from the pool's counts: of
// "what it waits for happens" and "the count rises" one comes first, and whoever comes second sees
// the other.

ThreadPool::Chain::Chain(ThreadPool& pool, int64_t capacity)
    : pool_(pool),
      capacity_(capacity),
      loops_(pool.n_threads() > 1 ? new Loop[capacity] : nullptr),
      claims_(pool.n_threads() > 1 ? new Claim[pool.n_threads()] : nullptr) {
  BARKRT_CHECK(capacity > 0);
}

ThreadPool::Chain::~Chain() {
  failed_ = true;
  try {
    finish();
  } catch (...) {
  }
}

void* ThreadPool::Chain::place(int64_t n, int64_t grain, const Ahead& ahead, bool own_first,
                               int64_t tail) {
  BARKRT_CHECK(grain > 0);
  if (n_added() == capacity_) finish();
  const int64_t i = n_added();
  Loop& loop = loops_[i];
  loop.n = n, loop.grain = grain, loop.n_pieces = (n + grain - 1) / grain;
  loop.done_at = n + (i > 0 ? loops_[i - 1].done_at : 0);
  loop.tail = tail, loop.ahead = ahead;
  loop.own_first = own_first;
  loop.next.store(0, std::memory_order_relaxed);
  return loop.fn;
}

void ThreadPool::Chain::publish(Call call, void (*destroy)(void*)) {
  const int64_t i = n_added();
  loops_[i].call = call, loops_[i].destroy = destroy;
  added_.fetch_add(2);
  if (!begun_ && early_) return begin();
  if (begun_ && at() == i) pool_.call(*this, loops_[i]);
}

// With one loop at least.
void ThreadPool::Chain::begin() {
  begun_ = true;
  pool_.list(*this);
}

void ThreadPool::Chain::finish() {
  const int64_t count = n_added();
  if (count == 0) return;
  if (!begun_) {
    const bool alone = std::all_of(loops_.get(), loops_.get() + count,
                                   [](const Loop& loop) { return loop.n_pieces == 1; });
    if (alone) {
      for (int64_t i = 0; i < count; ++i) take_pieces(i, 0);
      return clear();
    }
    begin();
  }
  added_.fetch_add(1);
  Fetch fetch = pool_.join(*this, 0);
  pool_.unlist(*this);
  const auto all_left = [&] { return n_inside_.load() == 0; };
  pool_.await(0, all_left, fetch);
  clear();
}

// Forgets the loops; throws the error of one.
void ThreadPool::Chain::clear() {
  for (int64_t i = 0; i < n_added(); ++i) loops_[i].destroy(loops_[i].fn);
  begun_ = false;
  failed_ = false;
  added_ = 0, done_ = 0;
  for (int i = 0; claims_ && i < pool_.n_threads(); ++i) claims_[i].taken = -1;
  if (const std::exception_ptr error = std::exchange(error_, nullptr))
    std::rethrow_exception(error);
}

// The first loop that is not done, if it is there.
int64_t ThreadPool::Chain::at() const {
  const int64_t done = done_.load(), count = n_added();
  int64_t i = 0;
  while (i < count && loops_[i].done_at <= done) ++i;
  return i;
}

// Whether somebody who enters would find something to do.
bool ThreadPool::Chain::has_pieces() const {
  const int64_t i = at();
  if (i == n_added()) return false;
  const Loop& loop = loops_[i];
  if (!loop.own_first) return loop.next.load(std::memory_order_relaxed) < loop.n;
  for (int64_t k = 0; k < loop.n_pieces; ++k)
    if (claims_[k].taken.load(std::memory_order_relaxed) < 2 * i + 1) return true;
  return false;
}

// The front of a thread's stretch of loop i, or the rest of it.
bool ThreadPool::Chain::take(int64_t owner, int64_t i, bool front) {
  std::atomic<int64_t>& taken = claims_[owner].taken;
  int64_t before = taken.load(std::memory_order_relaxed);
  const int64_t after = 2 * i + (front ? 0 : 1);
  return before < after && taken.compare_exchange_strong(before, after, std::memory_order_relaxed);
}

// Of loop i; returns how many numbers were done.
int64_t ThreadPool::Chain::take_pieces(int64_t i, int me) {
  Loop& loop = loops_[i];
  Taker taker{me, true};
  int64_t count = 0;
  const auto do_piece = [&](int64_t begin, int64_t end) {
    if (begin >= end) return;
    count += end - begin;
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      loop.call(loop.fn, begin, end, taker);
    } catch (...) {
      failed_ = true;
      const std::lock_guard<std::mutex> lock(pool_.mutex_);
      if (!error_) error_ = std::current_exception();
    }
    taker.begins = false;
  };
  if (!loop.own_first) {
    for (;;) {
      const int64_t begin = loop.next.fetch_add(loop.grain, std::memory_order_relaxed);
      if (begin >= loop.n) return count;
      do_piece(begin, std::min(begin + loop.grain, loop.n));
    }
  }
  for (int64_t k = 0; k < loop.n_pieces; ++k) {
    const int64_t owner = (me + k) % loop.n_pieces;
    const int64_t begin = owner * loop.grain, end = std::min(begin + loop.grain, loop.n);
    const int64_t cut = std::min(begin + loop.grain - loop.tail, end);
    if (take(owner, i, true)) do_piece(begin, cut);
    if (take(owner, i, false)) do_piece(cut, end);
  }
  return count;
}

// --- the pool ---

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

// A chain with something to do, or NULL. Under mutex_.
ThreadPool::Chain* ThreadPool::find() const {
  Chain* chain = chains_;
  while (chain && !chain->has_pieces()) chain = chain->listed_next_;
  return chain;
}

// The same, entered.
ThreadPool::Chain* ThreadPool::enter() {
  const std::unique_lock<std::mutex> lock = lock_soon(mutex_);
  Chain* const chain = find();
  if (chain) chain->n_inside_.fetch_add(1);
  return chain;
}

void ThreadPool::list(Chain& chain) {
  {
    const std::unique_lock<std::mutex> lock = lock_soon(mutex_);
    Chain** end = &chains_;
    while (*end) end = &(*end)->listed_next_;
    *end = &chain;
  }
  call(chain, chain.loops_[0]);  // now that who comes finds the lock free
}

void ThreadPool::unlist(Chain& chain) {
  const std::unique_lock<std::mutex> lock = lock_soon(mutex_);
  Chain** at = &chains_;
  while (*at != &chain) at = &(*at)->listed_next_;
  *at = chain.listed_next_;
  chain.listed_next_ = nullptr;
}

// Has those come who are elsewhere, and of those who sleep as many as the loop can use beside one.
void ThreadPool::call(const Chain& chain, const Loop& loop) {
  if (chain.n_inside_.load() == static_cast<int>(workers_.size())) return;
  n_calls_.fetch_add(1);
  int64_t to_wake = std::min<int64_t>(n_asleep_.load(), loop.n_pieces - 1);
  if (to_wake <= 0) return;
  { const std::lock_guard<std::mutex> lock(mutex_); }  // not between a look and the sleep after it
  for (; to_wake > 0; --to_wake) wake_.notify_one();
}

void ThreadPool::tell_callers() {
  if (n_waiting_.load() == 0) return;
  { const std::lock_guard<std::mutex> lock(mutex_); }
  moved_.notify_all();
}

// Waits until happened(). A worker waits for some time only, and then returns false.
template <class F>
bool ThreadPool::await(int me, const F& happened, Fetch& fetch) {
  if (happened()) return true;
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    for (int i = 0; i < kLooksPerTime; ++i) {
      if (happened()) return true;
      if (!fetch.some()) pause();
    }
    const auto elapsed = std::chrono::steady_clock::now() - start;
    if (elapsed > kLookAround) break;
    if (elapsed > kAlone) std::this_thread::yield();
  }
  if (me > 0) return false;
  std::unique_lock<std::mutex> lock(mutex_);
  n_waiting_.fetch_add(1);
  moved_.wait(lock, happened);
  n_waiting_.fetch_sub(1);
  return true;
}

// Goes through the loops of `chain`, the caller (0) to their end. Returns what the thread may
// fetch.
ThreadPool::Fetch ThreadPool::join(Chain& chain, int me) {
  Fetch fetch;
  for (int64_t i = chain.at();; ++i) {
    const auto added = [&] { return chain.added_.load() > 2 * i; };
    if (!await(me, added, fetch) || chain.n_added() == i) return fetch;
    const Loop& loop = chain.loops_[i];
    const int64_t count = chain.take_pieces(i, me);
    fetch = Fetch(loop.ahead, me);
    if (chain.is_last(i)) return fetch;
    if (count > 0 && chain.done_.fetch_add(count) + count == loop.done_at) {
      tell_callers();
      if (chain.n_added() > i + 1) call(chain, chain.loops_[i + 1]);
      continue;
    }
    if (chain.n_added() > i + 1) chain.loops_[i + 1].fetch();
    const auto done = [&] { return chain.done_.load() >= loop.done_at || chain.is_last(i); };
    if (!await(me, done, fetch) || chain.is_last(i)) return fetch;
  }
}

void ThreadPool::work(int me) {
  Fetch fetch;
  for (;;) {
    const uint32_t seen = n_calls_.load();
    if (Chain* chain = enter()) {
      fetch = join(*chain, me);
      if (chain->n_inside_.fetch_sub(1) == 1) tell_callers();
      continue;
    }
    const auto called = [&] { return n_calls_.load(std::memory_order_relaxed) != seen; };
    if (await(me, called, fetch)) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    n_asleep_.fetch_add(1);
    wake_.wait(lock, [&] { return stopping_ || n_calls_.load() != seen || find(); });
    n_asleep_.fetch_sub(1);
    if (stopping_) return;
  }
}

}  // namespace barkrt
