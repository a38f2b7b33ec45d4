// graph.cu: recording and playing.
#include "cuda/graph.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cuda/common.cuh"
#include "error.h"

namespace barkrt::cuda {
namespace {

// A stream that records for a scope. Only this thread's calls are restricted meanwhile.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
  }
  Capture(const Capture&) = delete;
  ~Capture() {
    if (stream_) end();
    if (graph_) cudaGraphDestroy(graph_);
    cudaGetLastError();
  }
  cudaGraphExec_t finish() {
    check(end(), "cudaStreamEndCapture");
    cudaGraphExec_t exec = nullptr;
    check(cudaGraphInstantiate(&exec, graph_, 0), "cudaGraphInstantiate");
    return exec;
  }

 private:
  cudaError_t end() { return cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph_); }

  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
};

}  // namespace

Repeats::Pass* Repeats::find(const std::vector<uint64_t>& key) {
  const auto found = passes_.find(key);
  if (found != passes_.end()) return &found->second;
  if (passes_.size() == kMostPasses)
    passes_.erase(std::min_element(
        passes_.begin(), passes_.end(),
        [](const auto& a, const auto& b) { return a.second.last_run < b.second.last_run; }));
  return &passes_[key];
}

void Repeats::issue_once(const HostBlock& block, const std::function<void()>& issue,
                         bool recording) {
  const size_t n_in = static_cast<size_t>(block.input_bytes);
  const size_t n_out = static_cast<size_t>(block.bytes) - n_in;
  std::byte* const device = lane_->block();
  std::byte* const pinned = lane_->pinned_block();
  check(cudaMemcpyAsync(device, pinned, n_in, cudaMemcpyHostToDevice, lane_->handle()),
        "cudaMemcpyAsync");
  {
    const BoundLane bound(*lane_, block, recording);
    issue();
  }
  if (n_out > 0)
    check(cudaMemcpyAsync(pinned + n_in, device + n_in, n_out, cudaMemcpyDeviceToHost,
                          lane_->handle()),
          "cudaMemcpyAsync");
}

void Repeats::record(Pass* pass, const HostBlock& block, const std::function<void()>& issue) {
  try {
    Capture capture(lane_->handle());
    issue_once(block, issue, true);
    pass->graph.reset(capture.finish());
  } catch (const Error& error) {
    if (device_.is_lost()) throw;
    pass->is_refused = true;
    log_line(kLogDebug, "%s: a pass cannot be recorded: %s", device_.id().c_str(), error.what());
  }
}

void Repeats::run(const std::vector<uint64_t>& key, const HostBlock& block,
                  const std::function<void()>& issue) {
  BARKRT_CHECK(block.input_bytes > 0 && block.input_bytes <= block.bytes);
  if (block.bytes > Lane::kBlockBytes) return issue();
  if (!lane_) lane_ = &device_.next_step_lane();
  const LaneUse use(device_, *lane_);
  // What the thread has issued in its own lane comes first.
  device_.lane_of_thread().order_before(lane_->handle());
  std::memcpy(lane_->pinned_block(), block.data, static_cast<size_t>(block.input_bytes));

  Pass* const pass = find(key);
  if (pass->last_run > 0 && !pass->graph && !pass->is_refused) record(pass, block, issue);
  if (pass->graph) {
    check(cudaGraphLaunch(pass->graph.get(), lane_->handle()), "cudaGraphLaunch");
    ++n_played_;
  } else {
    issue_once(block, issue, false);
  }
  pass->last_run = ++n_runs_;
  lane_->wait();
  std::memcpy(block.data + block.input_bytes, lane_->pinned_block() + block.input_bytes,
              static_cast<size_t>(block.bytes - block.input_bytes));
}

}  // namespace barkrt::cuda
