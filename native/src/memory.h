// memory.h: owned device buffers and the exact byte counters behind barkrt_memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace barkrt {

class Backend;

enum class Category : int32_t { Weights, Tables, Kv, Activations };
constexpr int kCategoryCount = 4;

// Live and peak bytes of one owner (a model or a session). Thread-safe; counts what it is told by
// Buffer and by the mapping of weights, so the numbers are the allocator's own.
class MemoryAccount {
 public:
  void add(Category c, int64_t bytes);
  void remove(Category c, int64_t bytes);
  int64_t live(Category c) const {
    return live_[static_cast<int>(c)].load(std::memory_order_relaxed);
  }
  int64_t total() const { return total_.load(std::memory_order_relaxed); }
  int64_t peak() const { return peak_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> live_[kCategoryCount] = {};
  std::atomic<int64_t> total_{0};
  std::atomic<int64_t> peak_{0};
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
