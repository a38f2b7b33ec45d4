// parallel_test.cc: loops over threads, alone and in chains: coverage, order, several callers,
// exceptions.
#include "cpu/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace barkrt {
namespace {

using Chain = ThreadPool::Chain;

// A chain of one loop.
template <class F>
void run_loop(ThreadPool& pool, int64_t n, int64_t grain, const F& fn) {
  Chain chain(pool, 1);
  chain.parallel_for(n, grain, fn);
  chain.finish();
}
template <class F>
void run_stretches(ThreadPool& pool, int64_t n, int64_t multiple, const F& fn,
                   const Ahead& ahead = {}) {
  Chain chain(pool, 1);
  chain.for_stretches(n, multiple, fn, ahead);
  chain.finish();
}

TEST(ThreadPool, EveryIndexIsVisitedOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 7, 100, 1000})
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        run_loop(pool, n, grain, [&](int64_t begin, int64_t end) {
          EXPECT_TRUE(begin < end && end <= n && end - begin <= grain && begin % grain == 0);
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const std::atomic<int>& count : visits) ASSERT_EQ(count.load(), 1);
      }
  }
}

TEST(ThreadPool, StretchesCoverEveryIndexOnce) {
  const std::vector<char> memory(1 << 20);
  for (const int threads : {1, 2, 3, 8, 70}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 7, 100, 1000})
      for (const int64_t multiple : {1, 3, 64, 5000}) {
        const int64_t stretch = pool.stretch(n, multiple);
        EXPECT_TRUE(stretch >= multiple && stretch % multiple == 0 && stretch * threads >= n);
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        run_stretches(pool, n, multiple,
                      [&](int64_t begin, int64_t end) {
                        EXPECT_TRUE(begin < end && end <= n && begin % multiple == 0);
                        EXPECT_EQ(begin / stretch, (end - 1) / stretch);
                        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
                      },
                      {memory.data(), static_cast<int64_t>(memory.size()), 100000});
        for (const std::atomic<int>& count : visits) ASSERT_EQ(count.load(), 1);
      }
  }
}

// Nobody takes another's stretch while its thread is about.
TEST(ThreadPool, ThreadsBeginWithTheirOwnStretch) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::vector<std::thread::id> first(kThreads);
  for (int round = 0; round < 50; ++round) {
    std::mutex mutex;
    std::condition_variable met;
    int inside = 0;
    std::vector<std::thread::id> by(kThreads);
    run_stretches(pool, kThreads, 1, [&](int64_t i, int64_t) {
      std::unique_lock<std::mutex> lock(mutex);
      by[static_cast<size_t>(i)] = std::this_thread::get_id();
      ++inside;
      met.notify_all();
      met.wait(lock, [&] { return inside == kThreads; });
    });
    if (round == 0) first = by;
    EXPECT_EQ(by, first);
  }
}

// When all meet in one loop.
TEST(ThreadPool, NoTwoThreadsInALoopHaveTheSameNumber) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const bool own_stretches : {false, true}) {
      std::mutex mutex;
      std::condition_variable met;
      std::vector<int> inside, numbers;
      for (int t = 0; t < threads; ++t) numbers.push_back(t);
      const auto meet = [&](int64_t, int64_t, Taker taker) {
        std::unique_lock<std::mutex> lock(mutex);
        EXPECT_TRUE(taker.begins);
        inside.push_back(taker.thread);
        met.notify_all();
        met.wait(lock, [&] { return inside.size() == numbers.size(); });
      };
      if (own_stretches)
        run_stretches(pool, threads, 1, meet);
      else
        run_loop(pool, threads, 1, meet);
      std::sort(inside.begin(), inside.end());
      EXPECT_EQ(inside, numbers);
    }
  }
}

// Of two threads one stays in the front of its stretch until the other has done all else.
TEST(ThreadPool, WhoeverIsEarlyTakesTheLastEighths) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::mutex mutex;
    std::condition_variable done;
    std::map<int64_t, int> thread_of;
    std::atomic<int> begun{0};
    run_stretches(pool, 160, 2, [&](int64_t begin, int64_t end, Taker taker) {
      std::unique_lock<std::mutex> lock(mutex);
      if (taker.begins) ++begun;
      thread_of[begin] = taker.thread;
      EXPECT_EQ(end - begin, begin % 80 == 0 ? 70 : 10);
      done.notify_all();
      if (begin == 0) done.wait(lock, [&] { return thread_of.size() == 4; });
    });
    EXPECT_EQ(thread_of.size(), 4u);
    EXPECT_EQ(begun.load(), 2);
    EXPECT_EQ(thread_of[70], thread_of[80]);
    EXPECT_EQ(thread_of[150], thread_of[80]);
    EXPECT_NE(thread_of[0], thread_of[80]);
  }
}

TEST(ThreadPool, CountsTheCallerAsAThread) {
  EXPECT_EQ(ThreadPool(1).n_threads(), 1);
  EXPECT_EQ(ThreadPool(4).n_threads(), 4);
}

// All threads of the pool meet inside one loop: nobody stays idle while pieces wait.
TEST(ThreadPool, AllThreadsTakePart) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::mutex mutex;
  std::condition_variable met;
  int inside = 0;
  run_loop(pool, kThreads, 1, [&](int64_t, int64_t) {
    std::unique_lock<std::mutex> lock(mutex);
    ++inside;
    met.notify_all();
    met.wait(lock, [&] { return inside == kThreads; });
  });
  EXPECT_EQ(inside, kThreads);
}

TEST(ThreadPool, SeveralCallersRunTheirOwnLoops) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(6);
  for (size_t c = 0; c < sums.size(); ++c)
    callers.emplace_back([&, c] {
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> sum{0};
        run_loop(pool, 50, 1 + static_cast<int64_t>(c), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum += i;
        });
        sums[c] += sum;
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const int64_t sum : sums) EXPECT_EQ(sum, 200 * 1225);
}

// While every thread of the pool is stuck in one caller's loop, another caller gets through its
// own: it works on it itself.
TEST(ThreadPool, CallerNeverWaitsForBusyWorkers) {
  ThreadPool pool(2);
  std::mutex mutex;
  std::condition_variable changed;
  bool blocked = false, finished = false;
  std::thread first([&] {
    run_loop(pool, 2, 1, [&](int64_t, int64_t) {
      std::unique_lock<std::mutex> lock(mutex);
      blocked = true;
      changed.notify_all();
      changed.wait(lock, [&] { return finished; });
    });
  });
  {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return blocked; });
  }
  std::atomic<int> shared{0};
  run_loop(pool, 10, 1, [&](int64_t, int64_t) { ++shared; });
  EXPECT_EQ(shared, 10);
  {
    std::lock_guard<std::mutex> lock(mutex);
    finished = true;
  }
  changed.notify_all();
  first.join();
}

TEST(ThreadPool, LoopsMayBeNested) {
  ThreadPool pool(3);
  std::atomic<int> visits{0};
  run_loop(pool, 8, 1,
           [&](int64_t, int64_t) { run_loop(pool, 8, 1, [&](int64_t, int64_t) { ++visits; }); });
  EXPECT_EQ(visits, 64);
}

TEST(ThreadPool, FirstExceptionReachesTheCallerAndThePoolGoesOn) {
  for (const int threads : {1, 2, 8}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      try {
        run_loop(pool, 100, 1, [&](int64_t begin, int64_t) {
          if (begin == 3 || begin == 40) throw std::runtime_error("piece");
        });
        FAIL() << "no exception";
      } catch (const std::runtime_error& e) {
        EXPECT_STREQ(e.what(), "piece");
      }
      EXPECT_THROW(
          run_stretches(pool, 100, 1, [](int64_t, int64_t) { throw std::runtime_error("piece"); }),
          std::runtime_error);
      std::atomic<int> visits{0};
      run_loop(pool, 20, 1, [&](int64_t, int64_t) { ++visits; });
      ASSERT_EQ(visits, 20);
    }
  }
}

// Of 40 loops each finds what the one before left, all of it; with less room than loops, and when
// threads begin early.
TEST(Chain, NoLoopBeginsBeforeTheOneBeforeItIsDone) {
  constexpr int64_t kNumbers = 100;
  for (const int threads : {1, 2, 3, 8, 70}) {
    ThreadPool pool(threads);
    for (const int64_t room : {1, 7, 64})
      for (const bool early : {false, true}) {
        Chain chain(pool, room);
        if (early) chain.begin_early();
        std::vector<int64_t> numbers(kNumbers, 0), sums(kNumbers, 0);
        for (int loop = 0; loop < 40; ++loop) {
          const auto fn = [&, loop](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              std::vector<int64_t>& to = loop % 2 == 0 ? sums : numbers;
              const std::vector<int64_t>& from = loop % 2 == 0 ? numbers : sums;
              to[static_cast<size_t>(i)] = 1 + *std::min_element(from.begin(), from.end());
            }
          };
          switch (loop % 3) {
            case 0:
              chain.parallel_for(kNumbers, 9, fn);
              break;
            case 1:
              chain.for_stretches(kNumbers, 1, fn);
              break;
            default:
              chain.parallel_for(kNumbers, kNumbers, fn);
          }
        }
        chain.finish();
        EXPECT_EQ(numbers, std::vector<int64_t>(kNumbers, 40)) << threads << " threads";
      }
  }
}

// The function of a loop goes when the loop does, and may have what can be moved only.
TEST(Chain, KeepsAndDropsFunctions) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    Chain chain(pool, 4);
    const auto alive = std::make_shared<std::atomic<int>>(0);
    for (int loop = 0; loop < 10; ++loop)
      chain.parallel_for(20, 3,
                         [alive, own = std::make_unique<int>(1)](int64_t begin, int64_t end) {
                           *alive += static_cast<int>(end - begin) * *own;
                         });
    chain.finish();
    EXPECT_EQ(alive->load(), 200);
    EXPECT_EQ(alive.use_count(), 1);
  }
}

// Threads that sleep, because nobody adds a loop for some time, come for the next one.
TEST(Chain, ThreadsComeAgain) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::mutex mutex;
  std::condition_variable met;
  int insides[3] = {};
  Chain chain(pool, 8);
  chain.begin_early();
  for (int& inside : insides) {
    const auto meet = [&](int64_t, int64_t) {
      std::unique_lock<std::mutex> lock(mutex);
      ++inside;
      met.notify_all();
      met.wait(lock, [&] { return inside >= kThreads - 1; });
    };
    chain.parallel_for(kThreads, 1, meet);  // done by the others: the caller sleeps
    std::unique_lock<std::mutex> lock(mutex);
    met.wait(lock, [&] { return inside == kThreads; });
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  chain.finish();
}

TEST(Chain, AnExceptionTakesTheLoopsBehindIt) {
  for (const int threads : {1, 2, 8}) {
    ThreadPool pool(threads);
    for (const bool early : {false, true}) {
      Chain chain(pool, 8);
      if (early) chain.begin_early();
      std::atomic<int> behind{0};
      const auto add_all = [&] {
        chain.parallel_for(50, 1, [](int64_t begin, int64_t) {
          if (begin == 20) throw std::runtime_error("piece");
        });
        for (int loop = 0; loop < 5; ++loop)
          chain.for_stretches(50, 1, [&](int64_t, int64_t) { ++behind; });
        chain.finish();
      };
      EXPECT_THROW(add_all(), std::runtime_error);
      EXPECT_EQ(behind.load(), 0);
      chain.for_stretches(
          50, 1, [&](int64_t begin, int64_t end) { behind += static_cast<int>(end - begin); });
      chain.finish();
      EXPECT_EQ(behind.load(), 50);
    }
  }
}

// As when what adds the loops throws in between.
TEST(Chain, WhatIsNotFinishedIsGivenUp) {
  ThreadPool pool(3);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::atomic<int>> visits(30);
    {
      Chain chain(pool, 8);
      if (round % 2 == 0) chain.begin_early();
      for (int loop = 0; loop < 5; ++loop)
        chain.for_stretches(30, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
    }
    for (const std::atomic<int>& count : visits) EXPECT_LE(count.load(), 5);
  }
}

TEST(Chain, SeveralCallersGoThroughTheirOwn) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(5);
  for (size_t c = 0; c < sums.size(); ++c)
    callers.emplace_back([&, c] {
      Chain chain(pool, 16);
      if (c % 2 == 0) chain.begin_early();
      for (int round = 0; round < 50; ++round) {
        int64_t sum = 0;
        std::atomic<int64_t> part{0};
        for (int loop = 0; loop < 20; ++loop) {
          chain.for_stretches(50, 1 + static_cast<int64_t>(c), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) part += i;
          });
          chain.parallel_for(1, 1, [&](int64_t, int64_t) { sum += part.exchange(0); });
        }
        chain.finish();
        sums[c] += sum;
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const int64_t sum : sums) EXPECT_EQ(sum, 50 * 20 * 1225);
}

}  // namespace
}  // namespace barkrt
