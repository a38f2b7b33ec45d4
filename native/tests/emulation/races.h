// races.h: who last read and wrote each piece of memory, and whether a barrier lies between.
//
// Time is counted in barriers: every barrier of a block, __syncwarp, grid.sync and launch makes it
// later by one. An access of the past is ordered before one of now when a launch, a grid.sync, a
// barrier of the common block or a __syncwarp of the common warp has happened since it; or when the
// same thread made it. Between blocks of a launch, what a block did before a barrier is handed over
// by a thread's __threadfence() and then an atomic; whose atomic at the same place comes later
// takes it at its __threadfence(), and its block at the barrier after that. Threads really run one
// after another, so a pair that is not ordered is a race wherever it happens to run first.
#pragma once

#include <cstdint>

#include "execution.h"

namespace emulation {

struct Access {
  uint32_t time = 0;  // 0: never
  uint32_t who = 0;   // block * 1024 + thread; kAtomic and kLanes are marks on it
};
constexpr uint32_t kAtomic = 1u << 31;  // the write was atomic
constexpr uint32_t kLanes = 1u << 30;   // other lanes of the warp read since its last barrier too
constexpr uint32_t kHostTime = 1;       // of copies and fills

struct Cell {
  Access written;
  Access read[2];  // the last one, and the last one before it of another warp
};

enum class Found { Nothing, Undefined, Race };

// `oldest`: what was written before is undefined.
Found note_read(Cell& cell, const Thread& t, uint32_t oldest);
Found note_write(Cell& cell, const Thread& t, uint32_t oldest, bool atomic);
void note_atomic(const void* p, Thread& t);
void note_fence(Thread& t);
void note_barrier(Block& block);

}  // namespace emulation
