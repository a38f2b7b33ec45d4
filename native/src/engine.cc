#include "engine.h"

#include <algorithm>
#include <condition_variable>
#include <utility>

#include "error.h"

namespace barkrt {
namespace {

// How long a step waits for those who were with the last one: far longer than their host work and
// the waking of their threads take, far shorter than a step of many rows. Who misses it (a sink
// that blocks, a thread without a core) is not waited for again until it is back.
constexpr std::chrono::milliseconds kPatience{1};

[[noreturn]] void fail_cancelled() { fail(Status::Cancelled, "the request was cancelled"); }

}  // namespace

void StopFlag::check() const {
  if (is_set()) fail_cancelled();
}

// What somebody who waits is told. Look: at the state of things, again. Alone: to wait once more,
// for a run without others.
enum class Engine::Answer : int32_t { None, Look, Granted, Done, Alone, Cancelled };

// Somebody who waits. Lives until it has an answer other than Look; who gives that touches it no
// more.
struct Engine::Waiter {
  enum class Kind { Step, Prefill, Pass };

  Waiter(Kind of_kind, const Ticket& of_ticket, Member* of_member, barkrt::Step* of_step)
      : kind(of_kind), ticket(of_ticket), member(of_member), step(of_step) {}

  void answer(Answer given) {
    const std::lock_guard<std::mutex> lock(mutex);
    pending = given;
    changed.notify_one();
  }
  // None when `until` came first. NULL: never.
  Answer await(const Clock::time_point* until) {
    Lock lock(mutex);
    const auto answered = [this] { return pending != Answer::None; };
    if (until)
      changed.wait_until(lock, *until, answered);
    else
      changed.wait(lock, answered);
    return std::exchange(pending, Answer::None);
  }

  const Kind kind;
  const Ticket ticket;
  Member* const member;      // NULL for a pass
  barkrt::Step* const step;  // NULL for a turn
  // Guarded by the engine's mutex; the batch belongs to its leader once granted.
  bool is_queued = false;
  bool has_begun = false;  // a turn, which it passed on
  bool is_alone = false;   // shares no run
  Waiter* batch[kMaxBatch] = {};
  int64_t n_batch = 0;

 private:
  std::mutex mutex;  // guards pending
  std::condition_variable changed;
  Answer pending = Answer::None;
};

// --- those who wait ---

bool Engine::Meeting::is_ready() const {
  if (waiting.empty()) return false;
  return waiting.front()->is_alone || n_expected == 0 ||
         static_cast<int64_t>(waiting.size()) >= kMaxBatch;
}

void Engine::Meeting::forget_expected() {
  for (Member* member : members) member->expected_ = false;
  n_expected = 0;
}

std::vector<Engine::Waiter*>& Engine::queue_of(const Waiter& waiter) {
  if (waiter.kind == Waiter::Kind::Step) return meeting(*waiter.member).waiting;
  return waiter.kind == Waiter::Kind::Prefill ? prefills_ : passes_;
}

// Throws Cancelled, before anything has changed.
void Engine::enter_queue(Waiter& waiter) {
  waiter.ticket.stop.check();
  queue_of(waiter).push_back(&waiter);
  waiter.is_queued = true;
}

void Engine::leave_queue(Waiter& waiter) {
  std::vector<Waiter*>& queue = queue_of(waiter);
  queue.erase(std::find(queue.begin(), queue.end(), &waiter));
  waiter.is_queued = false;
  if (watcher_ == &waiter) watcher_ = nullptr;
}

// Until an answer other than Look. Releases the lock.
Engine::Answer Engine::wait(Lock& lock, Waiter& waiter) {
  for (;;) {
    const bool watches = gathering_ && !watcher_ && waiter.is_queued;
    if (watches) watcher_ = &waiter;
    const Clock::time_point until = gather_until_;
    lock.unlock();
    const Answer answer = waiter.await(watches ? &until : nullptr);
    if (answer != Answer::None && answer != Answer::Look) return answer;
    lock.lock();
    if (watcher_ == &waiter) watcher_ = nullptr;
    dispatch(&waiter);
  }
}

void Engine::expect(Member& member, bool expected) {
  Meeting& m = meeting(member);
  m.n_expected += static_cast<int64_t>(expected) - static_cast<int64_t>(member.expected_);
  member.expected_ = expected;
  if (expected) m.until = Clock::now() + kPatience;
}

int64_t Engine::n_waiting() const {
  const Lock lock(mutex_);
  size_t n = prefills_.size() + passes_.size();
  for (const Meeting& m : meetings_) n += m.waiting.size();
  return static_cast<int64_t>(n);
}

// --- whose turn it is ---

// Chooses the next turn if nobody has it; called after every change that could allow one. `self` is
// the caller if it is about to wait.
void Engine::dispatch(const Waiter* self) {
  if (running_) return;
  refuse_cancelled();
  const Clock::time_point now = Clock::now();
  gathering_ = false;
  Meeting* ready = nullptr;  // of those, the one that waits longest
  bool rows_wait = false;
  for (Meeting& m : meetings_) {
    if (now >= m.until) m.forget_expected();
    rows_wait |= !m.waiting.empty();
    if (m.is_ready()) {
      if (!ready || m.last_granted < ready->last_granted) ready = &m;
    } else if (m.n_expected > 0) {
      gather_until_ = gathering_ ? std::min(gather_until_, m.until) : m.until;
      gathering_ = true;
    }
  }
  const auto first = [](const std::vector<Waiter*>& queue) -> Waiter* {
    const auto earlier = [](const Waiter* a, const Waiter* b) {
      return a->ticket.number < b->ticket.number;
    };
    return queue.empty() ? nullptr : *std::min_element(queue.begin(), queue.end(), earlier);
  };
  Waiter* const prefill = first(prefills_);
  Waiter* const pass = first(passes_);
  const bool causal = ready || prefill || gathering_;
  if (!causal || !pass) owed_ = {};
  if (pass && (!causal || owed_ < Clock::duration::zero()))
    begin_turn(*pass);
  else if (prefill && !(rows_wait && n_prefills_ >= kMaxBatch))
    begin_turn(*prefill);
  else if (ready)
    begin_step(*ready, self);
  else if (gathering_ && !watcher_ && !(self && self->is_queued))
    call_watcher();
}

// They learn it at the end of any turn, not only when theirs has come.
void Engine::refuse_cancelled() {
  const auto refuse = [this](const std::vector<Waiter*>& queue) {
    for (size_t i = queue.size(); i-- > 0;) {
      Waiter& waiter = *queue[i];
      if (!waiter.ticket.stop.is_set()) continue;
      leave_queue(waiter);
      waiter.answer(Answer::Cancelled);
    }
  };
  refuse(prefills_);
  refuse(passes_);
  for (Meeting& m : meetings_) refuse(m.waiting);
}

void Engine::begin_turn(Waiter& waiter) {
  if (waiter.is_queued) leave_queue(waiter);
  if (waiter.kind == Waiter::Kind::Prefill && !waiter.has_begun) ++n_prefills_;
  waiter.has_begun = true;
  running_ = true;
  gathering_ = false;
  begun_ = Clock::now();
  waiter.answer(Answer::Granted);
}

// Takes the first rows for one run. Led by the caller if its row is among them: it need not be
// woken.
void Engine::begin_step(Meeting& m, const Waiter* self) {
  Waiter* leader = m.waiting.front();
  Waiter* batch[kMaxBatch];
  int64_t n = 0;
  for (Waiter* waiter : m.waiting) {
    if (n == kMaxBatch || (n > 0 && leader->is_alone)) break;
    if (waiter->is_alone && n > 0) continue;
    batch[n++] = waiter;
    if (waiter == self) leader = waiter;
  }
  for (int64_t i = 0; i < n; ++i) leave_queue(*batch[i]);
  std::copy_n(batch, n, leader->batch);
  leader->n_batch = n;
  m.last_granted = ++n_steps_;
  n_prefills_ = 0;
  begin_turn(*leader);
}

void Engine::end_turn(const Waiter& waiter) {
  const Clock::duration taken = Clock::now() - begun_;
  owed_ += waiter.kind == Waiter::Kind::Pass ? taken : -taken;
  running_ = false;
  dispatch(&waiter);
}

// A waiter that sleeps without an end looks at the time from now on.
void Engine::call_watcher() {
  for (const std::vector<Waiter*>* queue :
       {&passes_, &prefills_, &meetings_[0].waiting, &meetings_[1].waiting})
    if (!queue->empty()) return queue->front()->answer(Answer::Look);
}

// --- members ---

Engine::Member::Member(Engine& engine, CausalStage stage, const Ticket& ticket)
    : engine_(engine), stage_(stage), ticket_(ticket) {
  const Lock lock(engine_.mutex_);
  engine_.meeting(*this).members.push_back(this);
}

Engine::Member::~Member() {
  const Lock lock(engine_.mutex_);
  engine_.expect(*this, false);
  std::vector<Member*>& members = engine_.meeting(*this).members;
  members.erase(std::find(members.begin(), members.end(), this));
  engine_.dispatch(nullptr);
}

void Engine::step(Member& member, barkrt::Step& step, const Run& run) {
  Waiter waiter(Waiter::Kind::Step, member.ticket_, &member, &step);
  Answer answer;
  do {
    Lock lock(mutex_);
    enter_queue(waiter);
    expect(member, false);
    dispatch(&waiter);
    answer = wait(lock, waiter);
    if (answer == Answer::Granted) answer = lead(waiter, run);
    waiter.is_alone = answer == Answer::Alone;
  } while (waiter.is_alone);
  if (answer == Answer::Cancelled) fail_cancelled();
}

// Runs a granted batch and answers those in it, but for the leader, whose answer is returned.
Engine::Answer Engine::lead(Waiter& leader, const Run& run) {
  barkrt::Step* steps[kMaxBatch];
  for (int64_t i = 0; i < leader.n_batch; ++i) steps[i] = leader.batch[i]->step;
  std::exception_ptr error;
  try {
    run(steps, leader.n_batch);
  } catch (...) {
    error = std::current_exception();
  }
  {
    const Lock lock(mutex_);
    for (int64_t i = 0; i < leader.n_batch && !error; ++i) expect(*leader.batch[i]->member, true);
    end_turn(leader);
  }
  const Answer answer = error ? Answer::Alone : Answer::Done;
  for (int64_t i = 0; i < leader.n_batch; ++i)
    if (leader.batch[i] != &leader) leader.batch[i]->answer(answer);
  if (error && leader.n_batch == 1) std::rethrow_exception(error);
  return answer;
}

// --- turns ---

Engine::Turn::Turn(Engine& engine, const Ticket& ticket)
    : engine_(engine),
      waiter_(std::make_unique<Waiter>(Waiter::Kind::Pass, ticket, nullptr, nullptr)) {
  Lock lock(engine_.mutex_);
  engine_.enter_queue(*waiter_);
  engine_.dispatch(waiter_.get());
  wait(lock);
}

Engine::Turn::Turn(Member& member)
    : engine_(member.engine_),
      waiter_(std::make_unique<Waiter>(Waiter::Kind::Prefill, member.ticket_, &member, nullptr)) {
  Lock lock(engine_.mutex_);
  engine_.enter_queue(*waiter_);
  engine_.expect(member, false);
  engine_.dispatch(waiter_.get());
  wait(lock);
}

Engine::Turn::~Turn() {
  if (!held_) return;
  const Lock lock(engine_.mutex_);
  if (waiter_->member) engine_.expect(*waiter_->member, true);
  engine_.end_turn(*waiter_);
}

void Engine::Turn::pass_on() {
  Lock lock(engine_.mutex_);
  engine_.enter_queue(*waiter_);
  held_ = false;
  engine_.end_turn(*waiter_);
  wait(lock);
}

void Engine::Turn::wait(Lock& lock) {
  if (engine_.wait(lock, *waiter_) == Answer::Cancelled) fail_cancelled();
  held_ = true;
}

}  // namespace barkrt
