// memory.h: owned device buffers and the exact byte counters behind barkrt_memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace barkrt {

class Backend;

// Shared: weights that models hold in common (component.h), counted once.
enum class Category : int32_t { Weights, Tables, Kv, Activations, Shared };
constexpr int kCategoryCount = 5;

// Live and peak bytes of one owner. Thread-safe; counts what it is told by Buffer and Charge, so
// the numbers are the allocator's own. Each byte is counted in all accounts above, too:
//   device <- model with its sessions and voices <- model, session, voice
//   device <- component
// An account lives as long as anybody asks it, so it can tell that what it counted is gone.
class MemoryAccount {
 public:
  MemoryAccount() = default;
  explicit MemoryAccount(std::shared_ptr<MemoryAccount> parent) : parent_(std::move(parent)) {}
  MemoryAccount(const MemoryAccount&) = delete;

  void add(Category c, int64_t bytes) noexcept;
  void remove(Category c, int64_t bytes) noexcept;
  int64_t live(Category c) const {
    return live_[static_cast<int>(c)].load(std::memory_order_relaxed);
  }
  int64_t total() const { return total_.load(std::memory_order_relaxed); }
  int64_t peak() const { return peak_.load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<MemoryAccount> parent_;
  std::atomic<int64_t> live_[kCategoryCount] = {};
  std::atomic<int64_t> total_{0};
  std::atomic<int64_t> peak_{0};
};

// Counts bytes that are no Buffer (mapped weights, host tables) until it goes. Declare it before
// what it counts, so that the account reads zero only when the memory is gone.
class Charge {
 public:
  Charge(std::shared_ptr<MemoryAccount> account, Category category)
      : account_(std::move(account)), category_(category) {}
  Charge(const Charge&) = delete;
  ~Charge() { account_->remove(category_, bytes_); }

  void add(int64_t bytes) noexcept {
    account_->add(category_, bytes);
    bytes_ += bytes;
  }

 private:
  std::shared_ptr<MemoryAccount> account_;
  Category category_;
  int64_t bytes_ = 0;
};

// Owns bytes on a device: 64-byte aligned, contents undefined until written. Move-only; the account
// and the backend must outlive it. Throws OutOfMemory with device and size in the text.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Backend& backend, MemoryAccount& account, Category category, int64_t bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  void* data() const { return data_; }
  float* f32() const { return static_cast<float*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void release();

  Backend* backend_ = nullptr;
  MemoryAccount* account_ = nullptr;
  Category category_ = Category::Activations;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Bytes a Buffer of `bytes` really takes (rounded up to the alignment): what estimate() adds up.
constexpr int64_t buffer_bytes(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace barkrt
