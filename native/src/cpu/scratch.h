// scratch.h: working memory of running ops, kept from one to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace barkrt {

// 64-byte aligned; what is large is pages of its own, which free_pages gives back to the system.
// NULL when there is no memory.
void* allocate_pages(int64_t bytes);
void free_pages(void* p, int64_t bytes) noexcept;

// Hands out blocks of at least the bytes asked for, 64-byte aligned, contents undefined. As many
// exist as were ever out at once, each as large as anybody needed: no op waits for the kernel to
// clear pages, but for the first of its size. Any thread.
class ScratchPool {
  struct Free {
    int64_t bytes;
    void operator()(void* p) const;
  };
  struct Block {
    std::unique_ptr<void, Free> data;
    int64_t bytes() const { return data ? data.get_deleter().bytes : 0; }
  };

 public:
  // A block for a scope.
  class Lease {
   public:
    Lease() = default;
    Lease(ScratchPool& pool, Block block) : pool_(&pool), block_(std::move(block)) {}
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), block_(std::move(other.block_)) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease();

    void* data() const { return block_.data.get(); }

   private:
    ScratchPool* pool_ = nullptr;
    Block block_;
  };

  // Throws OutOfMemory.
  Lease take(int64_t bytes);

 private:
  void give_back(Block block);

  std::mutex mutex_;  // guards blocks_
  std::vector<Block> blocks_;
};

}  // namespace barkrt
