// streams.cc: streams, events and host functions. A stream's works run when something waits for
// them, in the thread that waits.
#include <algorithm>

#include "report.h"
#include "runtime.h"

namespace emulation {
namespace {

// More than that and the oldest run, as a device's queue would fill.
constexpr size_t kLongestQueue = 4096;
// Queries answered "not ready" before one work runs.
constexpr int kIdleQueries = 2;

using Stream = std::shared_ptr<CUstream_st>;

void run_next(CUstream_st& stream) {
  Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  Device& device = *runtime().devices[static_cast<size_t>(stream.device)];
  if (device.lost == cudaSuccess || work.kind == Work::Kind::Wait) work.run();
  ++stream.n_done;
  stream.n_queries = 0;
}

cudaError_t lost(const CUstream_st& stream) {
  return runtime().devices[static_cast<size_t>(stream.device)]->lost;
}

// The legacy default stream waits for the blocking streams of its device.
void run_blocking(int device) {
  for (auto& [handle, stream] : runtime().streams)
    if (stream->device == device && stream->blocking) run_to(*stream, stream->end());
}

cudaError_t create(cudaStream_t* handle, unsigned flags) {
  if (handle == nullptr || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
  auto stream = std::make_shared<CUstream_st>();
  stream->device = current_device();
  stream->blocking = flags == cudaStreamDefault;
  *handle = stream.get();
  runtime().streams[*handle] = stream;
  return cudaSuccess;
}

cudaError_t wait_for_stream(cudaStream_t handle) {
  const Stream stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr)
    return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
  if (handle == nullptr) run_blocking(stream->device);
  run_to(*stream, stream->end());
  release_unused(*runtime().devices[static_cast<size_t>(stream->device)]);
  return lost(*stream);
}

// True when it is time to let the stream go one further.
bool patience_ends(int* n_queries) {
  if (++*n_queries <= kIdleQueries) return false;
  *n_queries = 0;
  return true;
}

cudaError_t query_stream(cudaStream_t handle) {
  const Stream stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr)
    return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
  if (!stream->queue.empty() && patience_ends(&stream->n_queries))
    run_to(*stream, stream->n_done + 1);
  return stream->queue.empty() ? lost(*stream) : cudaErrorNotReady;
}

cudaError_t record(cudaEvent_t event, cudaStream_t handle) {
  const Stream stream = stream_of(handle);
  if (stream == nullptr || runtime().events.count(event) == 0)
    return cudaErrorInvalidResourceHandle;
  if (stream->device != event->device) return cudaErrorInvalidResourceHandle;
  event->capture = stream->capture;
  if (stream->capture != nullptr) {
    event->nodes = stream->last_nodes;
    return cudaSuccess;
  }
  auto time = std::make_shared<std::chrono::steady_clock::time_point>();
  event->time = event->timed ? time : nullptr;
  const cudaError_t error = enqueue(
      stream, {Work::Kind::Record, nullptr, [time] { *time = std::chrono::steady_clock::now(); }});
  event->stream = stream;
  event->position = stream->end();
  return error;
}

cudaError_t join_capture(const Stream& stream, const CUevent_st& event) {
  if (event.capture->invalid != cudaSuccess) return cudaErrorStreamCaptureInvalidated;
  if (stream->capture == nullptr) {
    if (!stream->queue.empty() || stream->device < 0) run_to(*stream, stream->end());
    stream->capture = event.capture;
    stream->last_nodes.clear();
    event.capture->streams.push_back(stream);
  } else if (stream->capture != event.capture) {
    return invalidate(*stream->capture, cudaErrorStreamCaptureMerge);
  }
  auto& after = stream->last_nodes;
  for (const size_t node : event.nodes)
    if (std::find(after.begin(), after.end(), node) == after.end()) after.push_back(node);
  return cudaSuccess;
}

cudaError_t wait_for_event(cudaStream_t handle, cudaEvent_t event) {
  const Stream stream = stream_of(handle);
  if (stream == nullptr || runtime().events.count(event) == 0)
    return cudaErrorInvalidResourceHandle;
  if (event->capture != nullptr) return join_capture(stream, *event);
  if (stream->capture != nullptr)
    return invalidate(*stream->capture, cudaErrorStreamCaptureIsolation);
  if (event->stream == nullptr) return cudaSuccess;  // never recorded
  const Stream of = event->stream;
  const uint64_t position = event->position;
  return enqueue(stream, {Work::Kind::Wait, nullptr, [of, position] { run_to(*of, position); }});
}

cudaError_t event_status(CUevent_st& event, bool wait) {
  if (event.capture != nullptr) return invalidate(*event.capture, cudaErrorCapturedEvent);
  if (event.stream == nullptr) return cudaSuccess;
  CUstream_st& stream = *event.stream;
  if (wait) run_to(stream, event.position);
  if (!wait && stream.n_done < event.position && patience_ends(&event.n_queries))
    run_to(stream, stream.n_done + 1);
  if (stream.n_done < event.position) return cudaErrorNotReady;
  if (wait) release_unused(*runtime().devices[static_cast<size_t>(stream.device)]);
  return lost(stream);
}

}  // namespace

Stream stream_of(cudaStream_t handle) {
  if (handle == nullptr)
    return runtime().devices[static_cast<size_t>(current_device())]->default_stream;
  const auto found = runtime().streams.find(handle);
  return found == runtime().streams.end() ? nullptr : found->second;
}

cudaError_t enqueue(const Stream& stream, Work work) {
  if (stream->capture != nullptr) {
    Capture& capture = *stream->capture;
    if (capture.invalid != cudaSuccess) return cudaErrorStreamCaptureInvalidated;
    capture.nodes.push_back({std::move(work), stream->last_nodes});
    stream->last_nodes = {capture.nodes.size() - 1};
    return cudaSuccess;
  }
  const bool legacy =
      stream == runtime().devices[static_cast<size_t>(stream->device)]->default_stream;
  if (legacy) {
    for (auto& [handle, other] : runtime().streams)
      if (other->device == stream->device && other->blocking && other->capture != nullptr)
        return invalidate(*other->capture, cudaErrorStreamCaptureImplicit);
    run_blocking(stream->device);
  }
  stream->queue.push_back(std::move(work));
  if (legacy) run_to(*stream, stream->end());
  if (stream->queue.size() > kLongestQueue) run_to(*stream, stream->n_done + 1);
  return cudaSuccess;
}

void run_to(CUstream_st& stream, uint64_t position) {
  while (stream.n_done < position) run_next(stream);
}

void run_all(int device) {
  std::vector<Stream> all;
  for (auto& [handle, stream] : runtime().streams)
    if (stream->device == device) all.push_back(stream);
  for (const Stream& stream : all) run_to(*stream, stream->end());
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call("cudaStreamCreateWithFlags", kCurrent, [&] { return create(stream, flags); });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return call("cudaStreamCreate", kCurrent, [&] { return create(stream, cudaStreamDefault); });
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return call("cudaStreamCreateWithPriority", kCurrent, [&] { return create(stream, flags); });
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return call("cudaStreamDestroy", kCurrent, [&] {
    const auto found = runtime().streams.find(handle);
    if (found == runtime().streams.end()) return cudaErrorInvalidResourceHandle;
    const Stream stream = found->second;
    if (stream->capture != nullptr)
      return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
    run_to(*stream, stream->end());
    runtime().streams.erase(handle);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call("cudaStreamSynchronize", kCurrent, [&] { return wait_for_stream(stream); });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call("cudaStreamQuery", kCurrent, [&] { return query_stream(stream); });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call("cudaStreamWaitEvent", kCurrent, [&] { return wait_for_event(stream, event); });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  return call("cudaLaunchHostFunc", kCurrent, [&] {
    const Stream stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (function == nullptr) return cudaErrorInvalidValue;
    return enqueue(stream, {Work::Kind::HostFunction, nullptr, [function, data] {
                              in_host_function() = true;
                              function(data);
                              in_host_function() = false;
                            }});
  });
}
cudaError_t cudaDeviceSynchronize() {
  return call("cudaDeviceSynchronize", kCurrent, [&] {
    for (auto& [handle, stream] : runtime().streams)
      if (stream->device == current_device() && stream->capture != nullptr)
        return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
    Device& device = *runtime().devices[static_cast<size_t>(current_device())];
    run_all(current_device());
    release_unused(device);
    return device.lost;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call("cudaEventCreateWithFlags", kCurrent, [&] {
    if (event == nullptr) return cudaErrorInvalidValue;
    *event = new CUevent_st;
    (*event)->device = current_device();
    (*event)->timed = (flags & cudaEventDisableTiming) == 0;
    runtime().events.insert(*event);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call("cudaEventDestroy", kNone, [&] {
    if (runtime().events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call("cudaEventRecord", kCurrent, [&] { return record(event, stream); });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call("cudaEventQuery", kNone, [&] {
    return runtime().events.count(event) == 0 ? cudaErrorInvalidResourceHandle
                                              : event_status(*event, false);
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call("cudaEventSynchronize", kNone, [&] {
    return runtime().events.count(event) == 0 ? cudaErrorInvalidResourceHandle
                                              : event_status(*event, true);
  });
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return call("cudaEventElapsedTime", kNone, [&] {
    if (runtime().events.count(start) == 0 || runtime().events.count(end) == 0 ||
        start->time == nullptr || end->time == nullptr)
      return cudaErrorInvalidResourceHandle;
    for (const cudaEvent_t event : {start, end})
      if (event->stream->n_done < event->position) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return cudaSuccess;
  });
}
