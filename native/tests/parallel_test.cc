// parallel_test.cc: loops over threads: coverage, several callers, exceptions.
#include "cpu/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <stdexcept>
#include <thread>
#include <vector>

namespace barkrt {
namespace {

TEST(ThreadPool, EveryIndexIsVisitedOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 7, 100, 1000})
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
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
        pool.for_stretches(n, multiple,
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
    pool.for_stretches(kThreads, 1, [&](int64_t i, int64_t) {
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
        pool.for_stretches(threads, 1, meet);
      else
        pool.parallel_for(threads, 1, meet);
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
    pool.for_stretches(160, 2, [&](int64_t begin, int64_t end, Taker taker) {
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
  pool.parallel_for(kThreads, 1, [&](int64_t, int64_t) {
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
        pool.parallel_for(50, 1 + static_cast<int64_t>(c), [&](int64_t begin, int64_t end) {
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
    pool.parallel_for(2, 1, [&](int64_t, int64_t) {
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
  pool.parallel_for(10, 1, [&](int64_t, int64_t) { ++shared; });
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
  pool.parallel_for(8, 1, [&](int64_t, int64_t) {
    pool.parallel_for(8, 1, [&](int64_t, int64_t) { ++visits; });
  });
  EXPECT_EQ(visits, 64);
}

TEST(ThreadPool, FirstExceptionReachesTheCallerAndThePoolGoesOn) {
  for (const int threads : {1, 2, 8}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      try {
        pool.parallel_for(100, 1, [&](int64_t begin, int64_t) {
          if (begin == 3 || begin == 40) throw std::runtime_error("piece");
        });
        FAIL() << "no exception";
      } catch (const std::runtime_error& e) {
        EXPECT_STREQ(e.what(), "piece");
      }
      EXPECT_THROW(
          pool.for_stretches(100, 1, [](int64_t, int64_t) { throw std::runtime_error("piece"); }),
          std::runtime_error);
      std::atomic<int> visits{0};
      pool.parallel_for(20, 1, [&](int64_t, int64_t) { ++visits; });
      ASSERT_EQ(visits, 20);
    }
  }
}

}  // namespace
}  // namespace barkrt
