#include "cpu/scratch.h"

#include <algorithm>

#include "error.h"
#include "memory.h"

namespace barkrt {

void ScratchPool::Free::operator()(void* p) const { free_pages(p, bytes); }

ScratchPool::Lease::~Lease() {
  if (pool_) pool_->give_back(std::move(block_));
}

ScratchPool::Lease ScratchPool::take(int64_t bytes) {
  if (bytes <= 0) return {};
  Block block;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The smallest that is large enough, else the largest, which then grows.
    auto best = blocks_.end();
    for (auto b = blocks_.begin(); b != blocks_.end(); ++b)
      if (best == blocks_.end() ||
          (b->bytes() >= bytes ? best->bytes() < bytes || b->bytes() < best->bytes()
                               : b->bytes() > best->bytes() && best->bytes() < bytes))
        best = b;
    if (best != blocks_.end()) {
      block = std::move(*best);
      blocks_.erase(best);
    }
  }
  if (block.bytes() < bytes) {
    const int64_t size = buffer_bytes(std::max(bytes, 2 * block.bytes()));
    block = {};
    block.data = {allocate_pages(size), Free{size}};
    if (!block.data)
      fail(Status::OutOfMemory,
           "cpu: cannot allocate %lld bytes of working memory; free memory, "
           "then try again",
           static_cast<long long>(size));
  }
  return Lease(*this, std::move(block));
}

void ScratchPool::give_back(Block block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  blocks_.push_back(std::move(block));
}

}  // namespace barkrt
