// graphs.cc: capture of streams into graphs, and their launches. A graph's works run in the order
// in which they were captured, which their dependencies allow.
#include <algorithm>

#include "report.h"
#include "runtime.h"

struct CUgraph_st {
  std::vector<emulation::Capture::Node> nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<emulation::Capture::Node>> nodes;
};

namespace emulation {
namespace {

std::set<cudaGraph_t>& graphs() {
  static std::set<cudaGraph_t> all;
  return all;
}
std::set<cudaGraphExec_t>& execs() {
  static std::set<cudaGraphExec_t> all;
  return all;
}
thread_local int n_thread_captures = 0;
int n_global_captures = 0;

cudaError_t begin(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (handle == nullptr) return cudaErrorStreamCaptureUnsupported;
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  stream->capture = std::make_shared<Capture>();
  stream->capture->mode = mode;
  stream->capture->origin = handle;
  stream->capture->streams = {stream};
  stream->last_nodes.clear();
  if (mode == cudaStreamCaptureModeGlobal) ++n_global_captures;
  if (mode != cudaStreamCaptureModeRelaxed) ++n_thread_captures;
  return cudaSuccess;
}

// Every node must come before the end of the stream that began.
bool all_joined(const Capture& capture, const std::vector<size_t>& last) {
  std::vector<bool> reached(capture.nodes.size(), false);
  std::vector<size_t> next = last;
  while (!next.empty()) {
    const size_t node = next.back();
    next.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    next.insert(next.end(), capture.nodes[node].after.begin(), capture.nodes[node].after.end());
  }
  return std::find(reached.begin(), reached.end(), false) == reached.end();
}

cudaError_t end(cudaStream_t handle, cudaGraph_t* graph) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (graph == nullptr) return cudaErrorInvalidValue;
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != handle) return invalidate(*capture, cudaErrorStreamCaptureUnmatched);
  if (capture->mode == cudaStreamCaptureModeGlobal) --n_global_captures;
  if (capture->mode != cudaStreamCaptureModeRelaxed) --n_thread_captures;
  const bool joined = all_joined(*capture, stream->last_nodes);
  for (const auto& of : capture->streams) {
    of->capture = nullptr;
    of->last_nodes.clear();
  }
  capture->streams.clear();
  if (capture->invalid != cudaSuccess) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{capture->nodes};
  graphs().insert(*graph);
  return cudaSuccess;
}

cudaError_t update(CUgraphExec_st& exec, const CUgraph_st& graph,
                   cudaGraphExecUpdateResultInfo* info) {
  const auto refuse = [&](cudaGraphExecUpdateResult why) {
    if (info != nullptr) *info = {why, nullptr, nullptr};
    return cudaErrorGraphExecUpdateFailure;
  };
  if (exec.nodes->size() != graph.nodes.size())
    return refuse(cudaGraphExecUpdateErrorTopologyChanged);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Capture::Node &was = (*exec.nodes)[i], &is = graph.nodes[i];
    if (was.after != is.after) return refuse(cudaGraphExecUpdateErrorTopologyChanged);
    if (was.work.kind != is.work.kind) return refuse(cudaGraphExecUpdateErrorNodeTypeChanged);
  }
  exec.nodes = std::make_shared<const std::vector<Capture::Node>>(graph.nodes);
  if (info != nullptr) *info = {cudaGraphExecUpdateSuccess, nullptr, nullptr};
  return cudaSuccess;
}

cudaError_t launch_graph(const CUgraphExec_st& exec, cudaStream_t handle) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr)
    return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
  Device& device = *runtime().devices[static_cast<size_t>(stream->device)];
  return enqueue(stream, {Work::Kind::Graph, nullptr, [nodes = exec.nodes, &device] {
                            ++device.counters.graph_launches;
                            for (const Capture::Node& node : *nodes)
                              if (device.lost == cudaSuccess) node.work.run();
                          }});
}

}  // namespace

cudaError_t invalidate(Capture& capture, cudaError_t error) {
  capture.invalid = error;
  return error;
}

void forget_graphs() {
  for (const cudaGraph_t graph : graphs()) delete graph;
  for (const cudaGraphExec_t exec : execs()) delete exec;
  graphs().clear();
  execs().clear();
  n_global_captures = n_thread_captures = 0;
}

bool any_capture(cudaStreamCaptureMode) { return n_global_captures > 0 || n_thread_captures > 0; }

}  // namespace emulation

using namespace emulation;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCapture", kCurrent, [&] { return begin(stream, mode); });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call("cudaStreamEndCapture", kNone, [&] { return end(stream, graph); });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call("cudaStreamIsCapturing", kCurrent, [&] {
    const auto stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    *status = stream->capture == nullptr                ? cudaStreamCaptureStatusNone
              : stream->capture->invalid == cudaSuccess ? cudaStreamCaptureStatusActive
                                                        : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call("cudaGraphGetNodes", kNone, [&] {
    // Nodes have no handles here: only their number can be asked for.
    if (graphs().count(graph) == 0 || count == nullptr || nodes != nullptr)
      return cudaErrorInvalidValue;
    *count = graph->nodes.size();
    return cudaSuccess;
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call("cudaGraphInstantiate", kCurrent, [&] {
    if (exec == nullptr || graphs().count(graph) == 0) return cudaErrorInvalidValue;
    *exec = new CUgraphExec_st{std::make_shared<const std::vector<Capture::Node>>(graph->nodes)};
    execs().insert(*exec);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  return call("cudaGraphExecUpdate", kCurrent, [&] {
    if (execs().count(exec) == 0 || graphs().count(graph) == 0) return cudaErrorInvalidValue;
    return update(*exec, *graph, info);
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t) {
  return call("cudaGraphUpload", kCurrent,
              [&] { return execs().count(exec) == 0 ? cudaErrorInvalidValue : cudaSuccess; });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call("cudaGraphLaunch", kCurrent, [&] {
    return execs().count(exec) == 0 ? cudaErrorInvalidValue : launch_graph(*exec, stream);
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call("cudaGraphExecDestroy", kNone, [&] {
    if (execs().erase(exec) == 0) return cudaErrorInvalidValue;
    delete exec;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call("cudaGraphDestroy", kNone, [&] {
    if (graphs().erase(graph) == 0) return cudaErrorInvalidValue;
    delete graph;
    return cudaSuccess;
  });
}
