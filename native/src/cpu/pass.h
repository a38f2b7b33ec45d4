// pass.h: the loops of an op, or of all ops of a pass, and the working memory that they share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace barkrt {

// Ops add their loops, which run by the end of finish(). So what a loop's function reads is copied
// into it, or lives as long. One thread's.
class Pass {
 public:
  Pass(ThreadPool& pool, ScratchPool& scratch, int64_t n_loops)
      : scratch_(scratch), chain(pool, n_loops) {}

  // Working memory for the loops that an op adds now; the next op's overwrite it. An op may have
  // two areas at once. Throws OutOfMemory.
  std::byte* area(int which, int64_t bytes) {
    Area& area = areas_[which];
    if (area.bytes < bytes) {
      leases_.push_back(scratch_.take(bytes));
      area = {static_cast<std::byte*>(leases_.back().data()), bytes};
    }
    return area.data;
  }

  void finish() {
    chain.finish();
    areas_[0] = areas_[1] = {};
    leases_.clear();
  }

 private:
  struct Area {
    std::byte* data = nullptr;
    int64_t bytes = 0;
  };

  ScratchPool& scratch_;
  Area areas_[2];
  std::vector<ScratchPool::Lease> leases_;  // those that were too small too: earlier loops use them

 public:
  ThreadPool::Chain chain;  // ends before its memory
};

}  // namespace barkrt
