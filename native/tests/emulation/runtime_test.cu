// runtime_test.cu: the calls of CUDA's runtime as the emulation answers them.
#include <functional>
#include <thread>

#include "launch_test.h"

namespace emulation {
namespace {

class Runtime : public OnDevice {
 protected:
  // A graph of what `record` puts into the stream.
  template <typename F>
  cudaGraphExec_t graph_of(const F& record) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    record();
    expect(cudaStreamEndCapture(stream, &graph));
    expect(cudaGraphInstantiate(&exec, graph));
    expect(cudaGraphDestroy(graph));
    return exec;
  }
};

__global__ void increment(int* x) { ++*x; }
__global__ void set(int* x, int value) { *x = value; }

// --- streams do nothing until something waits ---

TEST_F(Runtime, WorkRunsWhenSomethingWaits) {
  int* x = device(std::vector<int>{1});
  int seen = 0;
  expect(launch(1, 1, 0, increment, x));
  expect(cudaMemcpyAsync(&seen, x, sizeof(int), cudaMemcpyDeviceToHost, stream));
  EXPECT_EQ(seen, 0);
  EXPECT_EQ(counters(0).launches, 0);
  expect(cudaStreamSynchronize(stream));
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(counters(0).launches, 1);
  EXPECT_EQ(counters(0).device_to_host_bytes, 4);
}

TEST_F(Runtime, HostMemoryIsReadWhenTheCopyRuns) {
  int* x = device(std::vector<int>{0});
  int value = 1;
  expect(cudaMemcpyAsync(x, &value, sizeof(int), cudaMemcpyHostToDevice, stream));
  value = 2;
  EXPECT_EQ(host(x, 1)[0], 2);
}

TEST_F(Runtime, ABlockingCopyDoesNotWaitForStreamsThatDoNotBlock) {
  int* x = device(std::vector<int>{1});
  expect(launch(1, 1, 0, increment, x));
  int seen = 0;
  expect(cudaMemcpy(&seen, x, sizeof(int), cudaMemcpyDeviceToHost));
  EXPECT_EQ(seen, 1);
}

TEST_F(Runtime, QueriesLetWorkGoOnInTheEnd) {
  int* x = device(std::vector<int>{1});
  cudaEvent_t event = nullptr;
  expect(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess) << "never recorded";
  for (int i = 0; i < 3; ++i) expect(launch(1, 1, 0, increment, x));
  expect(cudaEventRecord(event, stream));
  int n_queries = 0;
  while (cudaEventQuery(event) == cudaErrorNotReady) ++n_queries;
  EXPECT_GT(n_queries, 3);
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "not ready is no error to remember";
  expect(cudaEventDestroy(event));
}

TEST_F(Runtime, EventsOrderStreams) {
  int* x = device(std::vector<int>{0});
  cudaStream_t other = nullptr;
  cudaEvent_t event = nullptr;
  expect(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  expect(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  expect(launch(1, 1, 0, set, x, 5));
  expect(cudaEventRecord(event, stream));
  expect(launch(1, 1, 0, set, x, 9));
  int seen = 0;
  expect(cudaStreamWaitEvent(other, event));
  expect(cudaMemcpyAsync(&seen, x, sizeof(int), cudaMemcpyDeviceToHost, other));
  expect(cudaStreamSynchronize(other));
  EXPECT_EQ(seen, 5) << "what was recorded, and no more";
  expect(cudaStreamDestroy(other));
  EXPECT_EQ(cudaStreamSynchronize(other), cudaErrorInvalidResourceHandle);
  expect(cudaEventDestroy(event));
}

TEST_F(Runtime, HostFunctionsRunInOrderAndMayNotCallBack) {
  int* x = device(std::vector<int>{0});
  struct Data {
    int* x;
    cudaError_t error;
  } data = {x, cudaSuccess};
  const auto function = [](void* p) {
    auto* d = static_cast<Data*>(p);
    d->error = cudaStreamSynchronize(nullptr);
  };
  expect(cudaLaunchHostFunc(stream, function, &data));
  EXPECT_EQ(data.error, cudaSuccess);
  expect(cudaStreamSynchronize(stream));
  EXPECT_EQ(data.error, cudaErrorNotPermitted);
  EXPECT_EQ(take_reports().size(), 1u);
}

TEST_F(Runtime, ThreadsHaveTheirOwnDeviceAndLastError) {
  expect(cudaSetDevice(1));
  EXPECT_EQ(cudaSetDevice(7), cudaErrorInvalidDevice);
  std::thread([] {
    int current = -1;
    expect(cudaGetDevice(&current));
    EXPECT_EQ(current, 0);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  }).join();
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  expect(cudaSetDevice(0));
}

// --- graphs ---

TEST_F(Runtime, GraphsRunWhatWasRecorded) {
  int* x = device(std::vector<int>{0});
  const cudaGraphExec_t exec = graph_of([&] {
    expect(launch(1, 1, 0, increment, x));
    expect(launch(1, 1, 0, increment, x));
  });
  EXPECT_EQ(host(x, 1)[0], 0) << "recorded, not run";
  for (int i = 0; i < 3; ++i) expect(cudaGraphLaunch(exec, stream));
  EXPECT_EQ(host(x, 1)[0], 6);
  EXPECT_EQ(counters(0).graph_launches, 3);
  expect(cudaGraphExecDestroy(exec));
}

TEST_F(Runtime, GraphsTakeNewArgumentsButNotNewShapes) {
  int* x = device(std::vector<int>{0});
  const cudaGraphExec_t exec = graph_of([&] { expect(launch(1, 1, 0, set, x, 1)); });
  const auto update = [&](int n_launches, int value) {
    cudaGraph_t graph = nullptr;
    expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < n_launches; ++i) expect(launch(1, 1, 0, set, x, value));
    expect(cudaStreamEndCapture(stream, &graph));
    cudaGraphExecUpdateResultInfo info = {};
    const cudaError_t error = cudaGraphExecUpdate(exec, graph, &info);
    EXPECT_EQ(info.result == cudaGraphExecUpdateSuccess, error == cudaSuccess);
    expect(cudaGraphDestroy(graph));
    return error;
  };
  expect(update(1, 4));
  EXPECT_EQ(update(2, 5), cudaErrorGraphExecUpdateFailure);
  expect(cudaGraphLaunch(exec, stream));
  EXPECT_EQ(host(x, 1)[0], 4);
  expect(cudaGraphExecDestroy(exec));
}

TEST_F(Runtime, AForkedStreamIsPartOfTheCaptureAndMustComeBack) {
  int* x = device(std::vector<int>{0});
  cudaStream_t other = nullptr;
  cudaEvent_t fork = nullptr, join = nullptr;
  expect(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  for (cudaEvent_t* event : {&fork, &join})
    expect(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
  for (const bool joined : {true, false}) {
    cudaGraph_t graph = nullptr;
    expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    expect(launch(1, 1, 0, set, x, 1));
    expect(cudaEventRecord(fork, stream));
    expect(cudaStreamWaitEvent(other, fork));
    expect(cudaMemsetAsync(x, 0, sizeof(int), other));
    expect(cudaEventRecord(join, other));
    if (joined) expect(cudaStreamWaitEvent(stream, join));
    const cudaError_t error = cudaStreamEndCapture(stream, &graph);
    EXPECT_EQ(error, joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    if (graph != nullptr) expect(cudaGraphDestroy(graph));
  }
  expect(cudaStreamDestroy(other));
}

TEST_F(Runtime, WhatMayNotBeRecordedSpoilsTheCapture) {
  int* x = device(std::vector<int>{0});
  const auto spoil = [&](cudaError_t error, const std::function<cudaError_t()>& forbidden) {
    cudaGraph_t graph = nullptr;
    expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    expect(launch(1, 1, 0, set, x, 1));
    EXPECT_EQ(forbidden(), error);
    EXPECT_EQ(launch(1, 1, 0, set, x, 1), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
  };
  spoil(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamSynchronize(stream); });
  spoil(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamQuery(stream); });
  spoil(cudaErrorStreamCaptureUnsupported, [&] { return cudaDeviceSynchronize(); });
  spoil(cudaErrorStreamCaptureUnsupported, [&] { return cudaFreeAsync(x, stream); });
  cudaEvent_t outside = nullptr;
  cudaStream_t other = nullptr;
  expect(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  expect(cudaEventCreateWithFlags(&outside, cudaEventDisableTiming));
  expect(cudaEventRecord(outside, other));
  spoil(cudaErrorStreamCaptureIsolation, [&] { return cudaStreamWaitEvent(stream, outside); });
  void* p = nullptr;
  expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  EXPECT_EQ(cudaMalloc(&p, 16), cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  if (graph != nullptr) expect(cudaGraphDestroy(graph));
}

// --- memory ---

TEST_F(Runtime, MemoryEndsWhereTheDeviceDoes) {
  configure({DeviceConfig{8 << 20}, DeviceConfig{1 << 20}});
  size_t free = 0, total = 0;
  void *p = nullptr, *q = nullptr;
  expect(cudaMalloc(&p, 6 << 20));
  expect(cudaMemGetInfo(&free, &total));
  EXPECT_EQ(free, size_t{2} << 20);
  EXPECT_EQ(total, size_t{8} << 20);
  EXPECT_EQ(cudaMalloc(&q, 3 << 20), cudaErrorMemoryAllocation);
  EXPECT_EQ(q, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "is not sticky";
  expect(cudaFree(p));
  EXPECT_EQ(cudaFree(p), cudaErrorInvalidValue);
  EXPECT_EQ(take_reports().size(), 1u);
  expect(cudaMalloc(&q, 3 << 20));
  expect(cudaFree(q));
}

TEST_F(Runtime, PoolsKeepWhatIsFreedUntilTheyAreTrimmed) {
  configure({DeviceConfig{16 << 20}});
  expect(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 0};
  cudaMemPool_t pool = nullptr;
  expect(cudaMemPoolCreate(&pool, &properties));
  uint64_t keep = ~uint64_t{0}, reserved = 0, used = 0;
  expect(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
  const auto ask = [&] {
    expect(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
    expect(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  };
  void *p = nullptr, *q = nullptr;
  expect(cudaMallocFromPoolAsync(&p, 5 << 20, pool, stream));
  ask();
  EXPECT_EQ(used, uint64_t{5} << 20);
  EXPECT_EQ(reserved, uint64_t{6} << 20) << "in steps of 2 MiB";
  expect(cudaFreeAsync(p, stream));
  expect(cudaStreamSynchronize(stream));
  ask();
  EXPECT_EQ(used, 0u);
  EXPECT_EQ(reserved, uint64_t{6} << 20);
  EXPECT_EQ(cudaMalloc(&q, 12 << 20), cudaErrorMemoryAllocation) << "the pool has it";
  expect(cudaMemPoolTrimTo(pool, 0));
  expect(cudaMalloc(&q, 12 << 20));
  expect(cudaFree(q));
  expect(cudaMallocFromPoolAsync(&p, 9 << 20, pool, stream));
  expect(cudaFreeAsync(p, stream));
  expect(cudaMallocFromPoolAsync(&p, 9 << 20, pool, stream));
  EXPECT_EQ(cudaMemPoolDestroy(pool), cudaErrorInvalidValue) << "in use";
  take_reports();
  expect(cudaFreeAsync(p, stream));
  expect(cudaMemPoolDestroy(pool));
}

TEST_F(Runtime, CopiesKnowWhoseMemoryIsWhose) {
  int* x = device(std::vector<int>(4));
  int values[8] = {};
  EXPECT_EQ(cudaMemcpyAsync(x, values, 20, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(x, values, 16, cudaMemcpyDeviceToHost, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(values, values + 4, 16, cudaMemcpyHostToDevice, stream),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(x + 2, 0, 12, stream), cudaErrorInvalidValue);
  EXPECT_EQ(take_reports().size(), 4u);
}

// --- limits of launches ---

__global__ void nothing(int) {}

TEST_F(Runtime, LaunchesAreWithinTheDevicesLimits) {
  EXPECT_EQ(launch(1, 1025, 0, nothing, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, dim3(1, 1, 65), 0, nothing, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(0, 1, 0, nothing, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(1, 65536), 1, 0, nothing, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, 1, 49153, nothing, 0), cudaErrorInvalidValue);
  expect(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 99 << 10));
  EXPECT_EQ(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10),
            cudaErrorInvalidValue);
  expect(launch(1, 1, 99 << 10, nothing, 0));
  expect(cudaSetDevice(1));
  EXPECT_EQ(launch(1, 1, 0, nothing, 0), cudaErrorInvalidResourceHandle) << "of device 0";
  expect(cudaSetDevice(0));
}

TEST_F(Runtime, CooperativeBlocksAllFit) {
  int n = 0;
  expect(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, nothing, 256, 0));
  EXPECT_EQ(n, 6) << "1536 threads";
  expect(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, nothing, 256, 40 << 10));
  EXPECT_EQ(n, 2) << "100 KiB of shared memory, 1 KiB of each block's for the system";
  expect(launch_cooperative(24, 256, nothing, 0));
  EXPECT_EQ(launch_cooperative(25, 256, nothing, 0), cudaErrorCooperativeLaunchTooLarge);
}

__global__ void much_shared() {
  using Much = char[24 << 10];
  BARKRT_SHARED(Much, first);
  BARKRT_SHARED(Much, second);
  BARKRT_SHARED(int, third);
  first[0] = second[0] = 1;
  third = 1;
}

TEST_F(Runtime, StaticSharedMemoryEndsAt48KiB) {
  expect(launch(1, 1, 0, much_shared));
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidValue);
  EXPECT_EQ(take_reports().size(), 1u);
}

// --- failures on demand ---

TEST_F(Runtime, TheNthCallFails) {
  void* p = nullptr;
  fail_call("cudaMalloc", 2, cudaErrorMemoryAllocation);
  expect(cudaMalloc(&p, 16));
  expect(cudaDeviceSynchronize());
  EXPECT_EQ(cudaMalloc(&p, 16), cudaErrorMemoryAllocation);
  expect(cudaMalloc(&p, 16));
}

TEST_F(Runtime, ALostDeviceFailsEveryCallAndTheOtherNone) {
  int* x = device(std::vector<int>{0});
  expect(launch(1, 1, 0, increment, x));
  lose_device(0, cudaErrorECCUncorrectable);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorECCUncorrectable);
  EXPECT_EQ(cudaFree(x), cudaErrorECCUncorrectable);
  EXPECT_EQ(cudaGetLastError(), cudaErrorECCUncorrectable);
  EXPECT_EQ(counters(0).launches, 0);
  expect(cudaSetDevice(1));
  int* y = device(std::vector<int>{3});
  int seen = 0;
  expect(cudaMemcpy(&seen, y, sizeof(int), cudaMemcpyDeviceToHost));
  EXPECT_EQ(seen, 3);
}

TEST(Machines, LoseADeviceInItsFatalKernel) {
  DeviceConfig doomed;
  doomed.fatal_kernel = 2;
  configure({doomed, DeviceConfig{}});
  for (const int device : {0, 1}) {
    int* x = nullptr;
    expect(cudaSetDevice(device));
    expect(cudaMalloc(&x, sizeof(int)));
    expect(cudaMemset(x, 0, sizeof(int)));
    cudaLaunchConfig_t config = {};
    config.gridDim = config.blockDim = 1;
    for (const bool last : {false, true}) {
      expect(cudaLaunchKernelEx(&config, increment, x));
      EXPECT_EQ(cudaDeviceSynchronize(),
                last && device == 0 ? cudaErrorLaunchFailure : cudaSuccess);
    }
  }
}

TEST(Machines, WithoutDriverOrDevices) {
  int n = -1;
  configure({});
  EXPECT_EQ(cudaGetDeviceCount(&n), cudaErrorNoDevice);
  EXPECT_EQ(n, 0);
  configure_without_driver();
  EXPECT_EQ(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
  configure({DeviceConfig{1 << 20, 7, 5, 40}});
  expect(cudaGetDeviceCount(&n));
  EXPECT_EQ(n, 1);
  expect(cudaSetDevice(0));
  cudaDeviceProp properties;
  expect(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.major * 10 + properties.minor, 75);
  EXPECT_EQ(properties.multiProcessorCount, 40);
  EXPECT_EQ(properties.sharedMemPerBlockOptin, size_t{64} << 10);
}

#if defined(__SANITIZE_ADDRESS__)
// --- AddressSanitizer and UBSan see device memory ---

__global__ void store_at(float* x, int at) { x[at] = 1; }
__global__ void load_four(float* out, const float* x) {
  *out = reinterpret_cast<const float4*>(x)->x;
}
using Sanitizers = Runtime;

TEST_F(Sanitizers, StopAtTheEndOfAnAllocation) {
  float* x = device(Floats(5));
  expect(launch(1, 1, 0, store_at, x, 4));
  expect(cudaStreamSynchronize(stream));
  expect(launch(1, 1, 0, store_at, x, 5));
  EXPECT_DEATH(cudaStreamSynchronize(stream), "AddressSanitizer");
}
TEST_F(Sanitizers, StopAtFreedMemory) {
  float* x = device(Floats(5));
  expect(cudaFreeAsync(x, stream));
  expect(launch(1, 1, 0, store_at, x, 0));
  EXPECT_DEATH(cudaStreamSynchronize(stream), "AddressSanitizer");
}
TEST_F(Sanitizers, StopAtMisalignedVectors) {
  float *x = device(Floats(9)), *out = device(Floats(1));
  expect(launch(1, 1, 0, load_four, out, x + 4));
  expect(cudaStreamSynchronize(stream));
  expect(launch(1, 1, 0, load_four, out, x + 1));
  EXPECT_DEATH(cudaStreamSynchronize(stream), "misaligned address");
}
__global__ void shared_at(int at) {
  using Three = float[3];
  BARKRT_SHARED(Three, x);
  float* p = x;
  p[at] = 1;
}
TEST_F(Sanitizers, StopAtTheEndOfSharedMemory) {
  expect(launch(1, 1, 0, shared_at, 3));
  EXPECT_DEATH(cudaStreamSynchronize(stream), "AddressSanitizer");
}
#endif

}  // namespace
}  // namespace emulation
