// lane.cu: a lane's memory, the ring of host arrays, and who uses which lane.
#include "cuda/lane.h"

#include <cstring>
#include <exception>

#include "cuda/common.cuh"
#include "cuda/device.h"
#include "error.h"

namespace barkrt::cuda {
namespace {

thread_local Lane* bound_lane = nullptr;

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

constexpr int64_t kCounterBytes = Stream::kCounters * static_cast<int64_t>(sizeof(unsigned));
constexpr int64_t kStretchBytes = 64 << 10;
constexpr int64_t kRingBytes = Lane::kStretches * kStretchBytes;
// Where parts of a lane's device memory begin. In its pinned memory the ring comes first.
constexpr int64_t kCountersAt = Stream::kScratchBytes;
constexpr int64_t kRingAt = kCountersAt + kCounterBytes;
constexpr int64_t kBlockAt = kRingAt + kRingBytes;
constexpr int64_t kMemoryBytes = kBlockAt + Lane::kBlockBytes;

}  // namespace

const Properties& Lane::properties() const { return device_.facts().properties; }

void Lane::open() {
  if (!stream_)
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority_),
          "cudaStreamCreate");
}

void Lane::need_memory() {
  if (memory_) return;
  for (cudaEvent_t& event : copied_)
    if (!event) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  if (!ordered_)
    check(cudaEventCreateWithFlags(&ordered_, cudaEventDisableTiming), "cudaEventCreate");
  if (!pinned_) pinned_ = pin(kRingBytes + kBlockBytes);
  auto* const memory = static_cast<std::byte*>(device_.pool().allocate_on(stream_, kMemoryBytes));
  const cudaError_t status =
      cudaMemsetAsync(memory + kCountersAt, 0, static_cast<size_t>(kCounterBytes), stream_);
  if (status != cudaSuccess) device_.pool().free_on(stream_, memory, kMemoryBytes);
  check(status, "cudaMemsetAsync");
  memory_ = memory;
}

void* Lane::scratch(int64_t bytes) {
  BARKRT_CHECK(bytes >= 0);
  need_memory();
  const int64_t end = scratch_used_ + round_up(bytes, 256);
  if (end <= kScratchBytes) {
    void* const p = memory_ + scratch_used_;
    scratch_used_ = end;
    return p;
  }
  BARKRT_CHECK(!recording_);
  more_scratch_.reserve(more_scratch_.size() + 1);  // so that an allocation is never lost
  more_scratch_.push_back({device_.pool().allocate_on(stream_, bytes), bytes});
  return more_scratch_.back().p;
}

void Lane::release_scratch() noexcept {
  scratch_used_ = 0;
  free_all(&more_scratch_);
}

void Lane::free_all(std::vector<Extra>* extras) noexcept {
  for (const Extra& extra : *extras) device_.pool().free_on(stream_, extra.p, extra.bytes);
  extras->clear();
}

unsigned* Lane::counters() {
  need_memory();
  return reinterpret_cast<unsigned*>(memory_ + kCountersAt);
}

std::byte* Lane::block() {
  need_memory();
  return memory_ + kBlockAt;
}

std::byte* Lane::pinned_block() {
  need_memory();
  return pinned_ + kRingBytes;
}

void Lane::bind(const HostBlock& block, bool recording) {
  BARKRT_CHECK(block.bytes <= kBlockBytes);
  bound_ = block;
  recording_ = recording;
}

void Lane::unbind() noexcept {
  bound_ = {};
  recording_ = false;
}

void* Lane::in_block(const void* host, int64_t bytes) const {
  const auto* const p = static_cast<const std::byte*>(host);
  if (bound_.data == nullptr || p < bound_.data || p >= bound_.data + bound_.bytes) return nullptr;
  const int64_t offset = p - bound_.data;
  BARKRT_CHECK(offset + bytes <= bound_.bytes);
  return memory_ + kBlockAt + offset;
}

// Stretches are used in turn; the one that comes next is waited for, which costs nothing unless the
// host is that far ahead of the device.
void* Lane::take_ring(int64_t bytes) {
  const int64_t size = round_up(bytes, 64);
  if (stretch_used_ + size > kStretchBytes) {
    check(cudaEventRecord(copied_[stretch_], stream_), "cudaEventRecord");
    stretch_ = (stretch_ + 1) % kStretches;
    stretch_used_ = 0;
    check(cudaEventSynchronize(copied_[stretch_]), "cudaEventSynchronize");
  }
  void* const p = memory_ + kRingAt + stretch_ * kStretchBytes + stretch_used_;
  stretch_used_ += size;
  return p;
}

void* Lane::room(int64_t bytes) {
  BARKRT_CHECK(bytes >= 0 && !recording_);
  need_memory();
  if (bytes <= kStretchBytes) return take_ring(bytes);
  more_room_.reserve(more_room_.size() + 1);  // so that an allocation is never lost
  more_room_.push_back({device_.pool().allocate_on(stream_, bytes), bytes});
  return more_room_.back().p;
}

const void* Lane::put(const void* host, int64_t bytes) {
  if (const void* bound = in_block(host, bytes)) return bound;
  void* const p = room(bytes);
  if (bytes > kStretchBytes) {
    device_.staging().upload(stream_, p, host, bytes);
    return p;
  }
  const int64_t at = static_cast<std::byte*>(p) - (memory_ + kRingAt);
  const size_t n = static_cast<size_t>(bytes);
  std::memcpy(pinned_ + at, host, n);
  check(cudaMemcpyAsync(p, pinned_ + at, n, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
  return p;
}

void Lane::wait() {
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  pending_ = false;
}

void Lane::get(void* host, const void* device, int64_t bytes) {
  const size_t n = static_cast<size_t>(bytes);
  void* const to = bytes <= kBlockBytes ? pinned_block() : host;
  check(cudaMemcpyAsync(to, device, n, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
  wait();
  if (to != host) std::memcpy(host, to, n);
}

void Lane::order_before(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!pending_) return;
  if (!ordered_)
    check(cudaEventCreateWithFlags(&ordered_, cudaEventDisableTiming), "cudaEventCreate");
  check(cudaEventRecord(ordered_, stream_), "cudaEventRecord");
  check(cudaStreamWaitEvent(stream, ordered_, 0), "cudaStreamWaitEvent");
}

void Lane::end_op(bool failed) noexcept {
  release_scratch();
  free_all(&more_room_);
  if (!failed || recording_ || device_.is_lost()) return;
  // What has failed is thrown already.
  if (cudaStreamSynchronize(stream_) == cudaSuccess) pending_ = false;
  cudaGetLastError();
}

LaneUse::LaneUse(Device& device)
    : LaneUse(device, bound_lane && &bound_lane->device_ == &device ? *bound_lane
                                                                    : device.lane_of_thread()) {}

LaneUse::LaneUse(Device& device, Lane& lane)
    : lane_(lane),
      lock_(&lane == bound_lane ? std::unique_lock<std::mutex>()
                                : std::unique_lock<std::mutex>(lane.mutex_)),
      n_exceptions_(std::uncaught_exceptions()) {
  device.enter();
  lane.open();
  lane.pending_ = true;
}

LaneUse::~LaneUse() { lane_.end_op(std::uncaught_exceptions() > n_exceptions_); }

BoundLane::BoundLane(Lane& lane, const HostBlock& block, bool recording) : lane_(lane) {
  lane_.bind(block, recording);
  bound_lane = &lane_;
}

BoundLane::~BoundLane() {
  bound_lane = nullptr;
  lane_.unbind();
}

}  // namespace barkrt::cuda
