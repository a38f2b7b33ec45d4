// engine_test.cc: whose turn it is: sharing, order, cancel and failure, with runs that only note
// who was in them.
#include "engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <random>
#include <set>
#include <thread>

#include "decode.h"
#include "error.h"

namespace barkrt {
namespace {

using CausalStage = Engine::CausalStage;

// One thread waits, another one opens.
class Gate {
 public:
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

void wait_for(const Engine& engine, int64_t n_waiting) {
  while (engine.n_waiting() != n_waiting) std::this_thread::yield();
}

class EngineTest : public ::testing::Test {
 protected:
  // Runs of steps, each with the ids in it.
  Engine::Run noting() {
    return [this](Step* const* steps, int64_t count) {
      std::vector<int32_t> ids;
      for (int64_t i = 0; i < count; ++i) {
        ids.push_back(steps[i]->id);
        steps[i]->token = 10 * steps[i]->id;
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      runs_.push_back(ids);
    };
  }
  void note(int32_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    runs_.push_back({id});
  }
  // A thread with one step of its own.
  void add_step(int32_t id, CausalStage stage = CausalStage::Semantic) {
    threads_.emplace_back([this, id, stage] {
      Engine::Member member(engine_, stage, engine_.ticket({}));
      Step step;
      step.id = id;
      engine_.step(member, step, noting());
      EXPECT_EQ(step.token, 10 * id);
    });
  }
  void join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  Engine engine_;
  std::mutex mutex_;  // guards runs_
  std::vector<std::vector<int32_t>> runs_;
  std::vector<std::thread> threads_;
};

TEST_F(EngineTest, RowsThatWaitTogetherShareOneRun) {
  {
    const Engine::Turn held(engine_, engine_.ticket({}));
    for (int32_t i = 0; i < 5; ++i) add_step(i);
    wait_for(engine_, 5);
  }
  join();
  ASSERT_EQ(runs_.size(), 1u);
  EXPECT_EQ(std::set<int32_t>(runs_[0].begin(), runs_[0].end()),
            (std::set<int32_t>{0, 1, 2, 3, 4}));
}

TEST_F(EngineTest, StagesShareNoRun) {
  {
    const Engine::Turn held(engine_, engine_.ticket({}));
    for (int32_t i = 0; i < 4; ++i)
      add_step(i, i % 2 ? CausalStage::Coarse : CausalStage::Semantic);
    wait_for(engine_, 4);
  }
  join();
  ASSERT_EQ(runs_.size(), 2u);
  for (const std::vector<int32_t>& run : runs_) {
    ASSERT_EQ(run.size(), 2u);
    EXPECT_EQ(run[0] % 2, run[1] % 2);
  }
}

TEST_F(EngineTest, ARunHasNoMoreRowsThanItsLimitAndTheFirstComeFirst) {
  {
    const Engine::Turn held(engine_, engine_.ticket({}));
    for (int32_t i = 0; i < 20; ++i) {
      add_step(i);
      wait_for(engine_, i + 1);
    }
  }
  join();
  ASSERT_GE(runs_.size(), 2u);
  ASSERT_EQ(runs_[0].size(), 16u);
  EXPECT_EQ(*std::max_element(runs_[0].begin(), runs_[0].end()), 15);
}

TEST_F(EngineTest, AMemberThatIsAwayDelaysNobodyForLong) {
  Gate stepped, done;
  threads_.emplace_back([&] {
    Engine::Member member(engine_, CausalStage::Semantic, engine_.ticket({}));
    Step step;
    engine_.step(member, step, noting());
    stepped.open();
    done.wait();  // a sink that blocks
  });
  stepped.wait();
  for (const CausalStage stage : {CausalStage::Semantic, CausalStage::Coarse}) {
    Engine::Member member(engine_, stage, engine_.ticket({}));
    for (int i = 0; i < 50; ++i) {
      Step step;
      engine_.step(member, step, noting());
      Engine::Turn pass(engine_, engine_.ticket({}));
      pass.pass_on();
    }
  }
  done.open();
  join();
}

TEST_F(EngineTest, AFailedRunIsRepeatedAloneAndFailsWhomItConcerns) {
  std::atomic<int> n_failed{0}, n_shared{0};
  const auto run = [&](Step* const* steps, int64_t count) {
    if (count > 1) ++n_shared;
    for (int64_t i = 0; i < count; ++i) {
      if (steps[i]->id == 2) fail(Status::OutOfMemory, "of row 2");
      steps[i]->token = 1;
    }
  };
  {
    const Engine::Turn held(engine_, engine_.ticket({}));
    for (int32_t i = 0; i < 5; ++i)
      threads_.emplace_back([&, i] {
        Engine::Member member(engine_, CausalStage::Semantic, engine_.ticket({}));
        Step step;
        step.id = i;
        try {
          engine_.step(member, step, run);
          EXPECT_EQ(step.token, 1);
          EXPECT_NE(i, 2);
        } catch (const Error& e) {
          EXPECT_EQ(e.status(), Status::OutOfMemory);
          EXPECT_EQ(i, 2);
          ++n_failed;
        }
      });
    wait_for(engine_, 5);
  }
  join();
  EXPECT_EQ(n_failed, 1);
  EXPECT_EQ(n_shared, 1);
}

// Whoever waits learns of its cancel when any turn ends, not only when its own would have come.
TEST_F(EngineTest, WhoWaitsIsCancelledWhileOthersHaveTheTurn) {
  std::atomic<bool> flag{false};
  std::atomic<int> n_cancelled{0};
  Engine::Turn held(engine_, engine_.ticket({}));
  const auto expect_cancelled = [&](const std::function<void(const Ticket&)>& wait) {
    try {
      wait(engine_.ticket({&flag}));
      ADD_FAILURE() << "had its turn";
    } catch (const Error& e) {
      EXPECT_EQ(e.status(), Status::Cancelled);
      ++n_cancelled;
    }
  };
  threads_.emplace_back([&] {
    expect_cancelled([&](const Ticket& ticket) {
      Engine::Member member(engine_, CausalStage::Semantic, ticket);
      Step step;
      engine_.step(member, step, noting());
    });
  });
  threads_.emplace_back([&] {
    expect_cancelled([&](const Ticket& ticket) {
      Engine::Member member(engine_, CausalStage::Coarse, ticket);
      const Engine::Turn turn(member);
    });
  });
  threads_.emplace_back([&] {
    expect_cancelled([&](const Ticket& ticket) { const Engine::Turn turn(engine_, ticket); });
  });
  wait_for(engine_, 3);
  flag = true;
  held.pass_on();
  join();
  EXPECT_EQ(n_cancelled, 3);
  EXPECT_TRUE(runs_.empty());
  const std::atomic<bool> set{true};
  EXPECT_THROW(Engine::Turn(engine_, engine_.ticket({&set})), Error) << "set before, backend taken";
}

TEST_F(EngineTest, PassesOfTheOldestRequestComeFirst) {
  std::vector<Ticket> tickets;
  for (int i = 0; i < 6; ++i) tickets.push_back(engine_.ticket({}));
  {
    const Engine::Turn held(engine_, engine_.ticket({}));
    for (const int32_t i : {3, 0, 5, 1, 4, 2}) {
      threads_.emplace_back([this, i, &tickets] {
        Engine::Turn turn(engine_, tickets[static_cast<size_t>(i)]);
        note(i);
        turn.pass_on();
        note(i);
      });
    }
    wait_for(engine_, 6);
  }
  join();
  std::vector<std::vector<int32_t>> expected;
  for (int32_t i = 0; i < 6; ++i) expected.insert(expected.end(), 2, {i});
  EXPECT_EQ(runs_, expected);
}

TEST_F(EngineTest, PrefillsComeBeforeStepsButNotForEver) {
  {
    const Engine::Turn held(engine_, engine_.ticket({}));
    add_step(100);
    for (int32_t i = 0; i < 20; ++i)
      threads_.emplace_back([this, i] {
        Engine::Member member(engine_, CausalStage::Semantic, engine_.ticket({}));
        Engine::Turn turn(member);
        note(i);
        turn.pass_on();
      });
    wait_for(engine_, 21);
  }
  join();
  ASSERT_EQ(runs_.size(), 21u);
  EXPECT_EQ(runs_[16], std::vector<int32_t>{100});
}

// Each side goes on until the other one had its turn a hundred times.
TEST_F(EngineTest, PassesAndStepsBothGetOn) {
  std::atomic<int> n_pieces{0}, n_steps{0};
  threads_.emplace_back([&] {
    Engine::Turn pass(engine_, engine_.ticket({}));
    while (n_steps < 100) ++n_pieces, pass.pass_on();
    n_pieces = 100;
  });
  for (int i = 0; i < 3; ++i)
    threads_.emplace_back([&] {
      Engine::Member member(engine_, CausalStage::Semantic, engine_.ticket({}));
      while (n_pieces < 100) {
        Step step;
        engine_.step(member, step, noting());
        ++n_steps;
      }
      n_steps = 100;
    });
  join();
}

// Requests that come, go, block, fail and are cancelled as they like. Only one has the turn, no row
// is lost or computed twice, and everybody comes to an end.
TEST_F(EngineTest, SurvivesEverythingAtOnce) {
  constexpr int kThreads = 24, kRequests = 40;
  std::atomic<int> n_inside{0};
  std::atomic<int64_t> n_cancelled{0}, n_failed{0}, n_done{0};
  std::vector<std::atomic<bool>> flags(kThreads);
  const auto alone = [&](const std::function<void()>& work) {
    EXPECT_EQ(n_inside.fetch_add(1), 0);
    work();
    n_inside.fetch_sub(1);
  };
  const auto request = [&](int thread, std::mt19937& random) {
    const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
    const auto stage = chance(50) ? CausalStage::Semantic : CausalStage::Coarse;
    const Ticket ticket = engine_.ticket({&flags[static_cast<size_t>(thread)]});
    Engine::Member member(engine_, stage, ticket);
    for (auto windows = 1 + random() % 3; windows-- > 0;) {
      {
        Engine::Turn turn(member);
        for (int i = 0; i < 3; ++i) alone([] {}), turn.pass_on();
      }
      for (auto steps = random() % 20; steps-- > 0;) {
        Step step;
        step.id = static_cast<int32_t>(random() % 1000) + (chance(1) ? 1000 : 0);
        engine_.step(member, step, [&](Step* const* rows, int64_t count) {
          EXPECT_LE(count, Engine::kMaxBatch);
          bool fails = false;
          alone([&] {
            for (int64_t i = 0; i < count; ++i) {
              fails |= rows[i]->id >= 1000;
              if (!fails) rows[i]->token += rows[i]->id + 1;
            }
            if (fails)
              for (int64_t i = 0; i < count; ++i) rows[i]->token = 0;
          });
          if (fails) fail(Status::OutOfMemory, "row");
        });
        EXPECT_EQ(step.token, step.id + 1);
        if (chance(2)) std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
      }
    }
    Engine::Turn pass(engine_, ticket);
    for (int i = 0; i < 4; ++i) alone([] {}), pass.pass_on();
  };
  for (int t = 0; t < kThreads; ++t)
    threads_.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < kRequests; ++i) {
        flags[static_cast<size_t>(t)] = false;
        try {
          request(t, random);
          ++n_done;
        } catch (const Error& e) {
          ++(e.status() == Status::Cancelled ? n_cancelled : n_failed);
        }
        flags[random() % kThreads] = random() % 4 == 0;
      }
    });
  join();
  EXPECT_EQ(n_done + n_cancelled + n_failed, kThreads * kRequests);
  EXPECT_GT(n_done, 0);
  EXPECT_GT(n_failed, 0);
  EXPECT_GT(n_cancelled, 0);
  EXPECT_EQ(engine_.n_waiting(), 0);
}

}  // namespace
}  // namespace barkrt
