// engine.h: whose turn it is. The running requests of a model take turns on its backend, and those
// that wait with a decode step at the same time share one pass over the weights. DESIGN.md has the
// protocol.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace barkrt {

// A request's wish to stop. check() throws Cancelled once the flag is set.
struct StopFlag {
  const std::atomic<bool>* flag = nullptr;  // NULL: never

  bool is_set() const { return flag && flag->load(std::memory_order_relaxed); }
  void check() const;
};

// A running request in line; the lower number came earlier.
struct Ticket {
  uint64_t number = 0;
  StopFlag stop;
};

struct Step;  // decode.h: one request's row of a decode step

// Any thread may call.
class Engine {
  struct Waiter;

 public:
  static constexpr int64_t kMaxBatch = 16;                // rows of one decode step
  enum class CausalStage : int32_t { Semantic, Coarse };  // whose decode steps are shared
  static constexpr int kCausalStages = 2;

  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Ticket ticket(const StopFlag& stop) { return {n_tickets_.fetch_add(1), stop}; }

  // A request's place in the steps of a stage, for as long as it generates there.
  class Member {
   public:
    Member(Engine& engine, CausalStage stage, const Ticket& ticket);
    ~Member();
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   private:
    friend class Engine;
    Engine& engine_;
    const CausalStage stage_;
    const Ticket ticket_;
    bool expected_ = false;  // back in a moment: the next step waits for it; guarded by mutex_
  };

  // The backend to oneself, for a scope. The constructors wait; Cancelled when the request is
  // stopped meanwhile.
  class Turn {
   public:
    Turn(Engine& engine, const Ticket& ticket);  // for a pass of the stages that are not causal
    explicit Turn(Member& member);               // for a prefill
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // Between two parts of the work: Cancelled when the request is stopped; lets others have the
    // backend first if it is their turn.
    void pass_on();

   private:
    void wait(std::unique_lock<std::mutex>& lock);

    Engine& engine_;
    const std::unique_ptr<Waiter> waiter_;
    bool held_ = false;
  };

  // Computes the rows of all `steps`: sets each one's result or error, or throws what concerns all.
  using Run = std::function<void(Step* const* steps, int64_t count)>;
  // Returns when `step` was part of a run, by this thread or by the thread of another member. A run
  // of several rows that throws is repeated for each row alone, by its own thread, and what that
  // throws is thrown here: a failure reaches those whom it concerns. Cancelled when the request is
  // stopped before its row was taken.
  void step(Member& member, Step& step, const Run& run);

  // Those who wait in step() for a run, or for a turn.
  int64_t n_waiting() const;

 private:
  using Clock = std::chrono::steady_clock;
  using Lock = std::unique_lock<std::mutex>;
  enum class Answer : int32_t;
  struct Meeting {
    std::vector<Member*> members;
    std::vector<Waiter*> waiting;  // rows for the next steps, first come first served
    int64_t n_expected = 0;
    Clock::time_point until;    // for the expected ones
    uint64_t last_granted = 0;  // number of its last step among all steps
    bool is_ready() const;
    void forget_expected();
  };

  Meeting& meeting(const Member& member) { return meetings_[static_cast<int>(member.stage_)]; }
  std::vector<Waiter*>& queue_of(const Waiter& waiter);
  void enter_queue(Waiter& waiter);
  void leave_queue(Waiter& waiter);
  Answer wait(Lock& lock, Waiter& waiter);
  Answer lead(Waiter& leader, const Run& run);
  void expect(Member& member, bool expected);
  void end_turn(const Waiter& waiter);
  void dispatch(const Waiter* self);
  void refuse_cancelled();
  void begin_turn(Waiter& waiter);
  void begin_step(Meeting& meeting, const Waiter* self);
  void call_watcher();

  std::atomic<uint64_t> n_tickets_{0};
  mutable std::mutex mutex_;  // guards what follows
  bool running_ = false;      // somebody has the turn
  Clock::time_point begun_;   // that turn
  Meeting meetings_[kCausalStages];
  std::vector<Waiter*> prefills_, passes_;  // the lowest ticket is first served
  // What passes had more than prefills and steps since both last wanted the backend.
  Clock::duration owed_{0};
  int64_t n_prefills_ = 0;  // begun since the last step
  uint64_t n_steps_ = 0;
  bool gathering_ = false;  // nobody has the turn because expected members are waited for
  Clock::time_point gather_until_;
  const Waiter* watcher_ = nullptr;  // who looks at that time
};

}  // namespace barkrt
