#include "races.h"

#include <algorithm>

namespace emulation {
namespace {

uint32_t id_of(const Thread& t) { return t.block->number * 1024 + static_cast<uint32_t>(t.number); }
bool same_warp(uint32_t a, uint32_t b) { return a / 32 == b / 32; }

void merge(Handed& into, const Handed& from) {
  for (const auto& [block, time] : from) into[block] = std::max(into[block], time);
}

bool was_handed(const Handed& taken, uint32_t block, uint32_t time) {
  const auto found = taken.find(block);
  return found != taken.end() && time < found->second;
}

bool ordered(const Access& a, const Thread& t, uint32_t oldest) {
  const uint32_t who = a.who & ~(kAtomic | kLanes), me = id_of(t);
  const Block& block = *t.block;
  if (a.time < oldest || a.time < block.grid_time) return true;
  if (who == me && (a.who & kLanes) == 0) return true;
  if (who / 1024 == block.number && a.time < block.barrier_time) return true;
  if (same_warp(who, me) && a.time < block.warps[me % 1024 / 32].barrier_time) return true;
  return was_handed(t.taken, who / 1024, a.time) || was_handed(block.taken, who / 1024, a.time);
}

}  // namespace

Found note_read(Cell& cell, const Thread& t, uint32_t oldest) {
  const uint32_t me = id_of(t);
  const Access last = cell.read[0];
  if (last.time == now() && last.who == me)
    return Found::Nothing;  // and a store since looked at it
  const uint32_t before = last.who & ~kLanes;
  cell.read[0] = {now(), me};
  if (last.time != 0 && same_warp(before, me)) {
    if (!ordered(last, t, oldest)) cell.read[0].who |= kLanes;
  } else {
    cell.read[1] = last;
  }
  if (cell.written.time < oldest || cell.written.time == 0) return Found::Undefined;
  return ordered(cell.written, t, oldest) ? Found::Nothing : Found::Race;
}

Found note_write(Cell& cell, const Thread& t, uint32_t oldest, bool atomic) {
  bool race = false;
  if (!(atomic && (cell.written.who & kAtomic) != 0))
    race = !ordered({cell.written.time, cell.written.who & ~kAtomic}, t, oldest);
  for (const Access& read : cell.read) race = race || !ordered(read, t, oldest);
  const bool undefined = atomic && (cell.written.time < oldest || cell.written.time == 0);
  cell.written = {now(), id_of(t) | (atomic ? kAtomic : 0)};
  return race ? Found::Race : undefined ? Found::Undefined : Found::Nothing;
}

void note_atomic(const void* p, Thread& t) {
  static std::map<const void*, Handed> places;  // times of earlier launches order nothing
  Handed& handed = places[p];
  merge(t.offered, handed);
  if (t.fence_time < t.block->barrier_time) return;
  merge(handed, t.block->taken);
  handed[t.block->number] = t.block->barrier_time;
}

void note_fence(Thread& t) {
  t.fence_time = now();
  merge(t.taken, t.offered);
}

void note_barrier(Block& block) {
  for (const auto& t : block.threads) merge(block.taken, t->taken);
}

}  // namespace emulation
