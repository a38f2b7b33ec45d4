// staging.cu: the ring.
#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "cuda/common.cuh"
#include "cuda/device.h"

namespace barkrt::cuda {

std::byte* pin(int64_t bytes) {
  void* pinned = nullptr;
  check(cudaHostAlloc(&pinned, static_cast<size_t>(bytes), cudaHostAllocDefault),
        "pinning host memory");
  return static_cast<std::byte*>(pinned);
}

void Staging::open() {
  std::call_once(opened_, [&] {
    // A second try after one that failed keeps what the first has made.
    if (!stream_)
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    if (!ordered_)
      check(cudaEventCreateWithFlags(&ordered_, cudaEventDisableTiming), "cudaEventCreate");
    for (Piece& piece : pieces_) {
      if (!piece.copied)
        check(cudaEventCreateWithFlags(&piece.copied, cudaEventDisableTiming), "cudaEventCreate");
      if (!piece.pinned) piece.pinned = pin(kPieceBytes);
    }
    is_open_.store(true, std::memory_order_release);
  });
}

void Staging::upload(cudaStream_t stream, void* dst, const void* host, int64_t bytes) {
  open();
  for (int64_t at = 0; at < bytes; at += kPieceBytes) {
    const size_t n = static_cast<size_t>(std::min(bytes - at, kPieceBytes));
    Piece& piece = pieces_[next_.fetch_add(1) % kPieces];
    const std::lock_guard<std::mutex> lock(piece.mutex);
    check(cudaEventSynchronize(piece.copied), "cudaEventSynchronize");
    std::memcpy(piece.pinned, static_cast<const std::byte*>(host) + at, n);
    check(cudaMemcpyAsync(static_cast<std::byte*>(dst) + at, piece.pinned, n,
                          cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
    check(cudaEventRecord(piece.copied, stream), "cudaEventRecord");
  }
}

void Staging::upload(void* dst, const void* host, int64_t bytes) {
  open();
  upload(stream_, dst, host, bytes);
}

void Staging::wait() {
  if (is_open_.load(std::memory_order_acquire))
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

void Staging::order_before(cudaStream_t stream) {
  if (!is_open_.load(std::memory_order_acquire)) return;
  const std::lock_guard<std::mutex> lock(order_mutex_);
  check(cudaEventRecord(ordered_, stream_), "cudaEventRecord");
  check(cudaStreamWaitEvent(stream, ordered_, 0), "cudaStreamWaitEvent");
}

}  // namespace barkrt::cuda
