// memory.cc: buffers and their accounts.
#include "memory.h"

#include <utility>

#include "backend.h"
#include "error.h"

namespace barkrt {

void MemoryAccount::add(Category c, int64_t bytes) noexcept {
  if (parent_) parent_->add(c, bytes);
  live_[static_cast<int>(c)].fetch_add(bytes, std::memory_order_relaxed);
  const int64_t now = total_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t seen = peak_.load(std::memory_order_relaxed);
  while (seen < now && !peak_.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
  }
}

void MemoryAccount::remove(Category c, int64_t bytes) noexcept {
  live_[static_cast<int>(c)].fetch_sub(bytes, std::memory_order_relaxed);
  total_.fetch_sub(bytes, std::memory_order_relaxed);
  if (parent_) parent_->remove(c, bytes);
}

Buffer::Buffer(Backend& backend, MemoryAccount& account, Category category, int64_t bytes)
    : backend_(&backend), account_(&account), category_(category), bytes_(bytes) {
  BARKRT_CHECK(bytes >= 0);
  if (bytes == 0) return;
  data_ = backend.alloc(buffer_bytes(bytes));
  account.add(category, buffer_bytes(bytes));
}

Buffer::Buffer(Buffer&& other) noexcept
    : backend_(other.backend_),
      account_(other.account_),
      category_(other.category_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  release();
  backend_ = other.backend_;
  account_ = other.account_;
  category_ = other.category_;
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

Buffer::~Buffer() { release(); }

void Buffer::release() {
  if (data_ == nullptr) return;
  backend_->free(data_, buffer_bytes(bytes_));
  account_->remove(category_, buffer_bytes(bytes_));
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace barkrt
