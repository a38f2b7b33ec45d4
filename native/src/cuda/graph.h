// graph.h: passes that come again, as CUDA graphs: one copy in, one launch, one copy out.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "backend.h"
#include "cuda/device.h"

namespace barkrt::cuda {

// Backend::repeat() of one backend. A pass is run the first time, which also loads its kernels,
// recorded the second, and played from then on. What cannot be recorded is run each time.
class Repeats {
 public:
  // The least recently used goes first. A graph of a pass takes some hundred kilobytes of the
  // device, beside what accounts count.
  static constexpr size_t kMostPasses = 64;

  explicit Repeats(Device& device) : device_(device) {}
  Repeats(const Repeats&) = delete;

  void run(const std::vector<uint64_t>& key, const HostBlock& block,
           const std::function<void()>& issue);

  int64_t n_played() const { return n_played_; }  // launches of graphs, for tests

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  using Graph = std::unique_ptr<CUgraphExec_st, Destroy>;
  struct Pass {
    Graph graph;
    bool is_refused = false;  // by the recording
    uint64_t last_run = 0;
  };

  Pass* find(const std::vector<uint64_t>& key);
  void record(Pass* pass, const HostBlock& block, const std::function<void()>& issue);
  void issue_once(const HostBlock& block, const std::function<void()>& issue, bool recording);

  Device& device_;
  Lane* lane_ = nullptr;  // since the first run; the graphs have its addresses
  std::map<std::vector<uint64_t>, Pass> passes_;
  uint64_t n_runs_ = 0;
  int64_t n_played_ = 0;
};

}  // namespace barkrt::cuda
