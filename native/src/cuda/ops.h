// ops.h: what the kernels offer to backend.cu: one function per op that launches it on a stream.
//
// Every pointer is device memory, ids, positions and slots included, except arrays of Matrix, which
// are read during the call. Shapes are checked by the caller; the contracts are those of backend.h.
// Functions return before the work is done and throw Error(Device) when a launch fails.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backend.h"
#include "tensor.h"

namespace barkrt::cuda {

// What launches depend on; constant for a device.
struct Properties {
  int index = 0;  // CUDA's
  int major = 0;  // compute capability
  int minor = 0;
  int n_multiprocessors = 0;
  int64_t shared_bytes = 0;  // that one block may have, by opt-in
  bool at_least(int a, int b) const { return major > a || (major == a && minor >= b); }
};

// Where an op is launched: a stream of a device, used by one thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual cudaStream_t handle() const = 0;
  virtual const Properties& properties() const = 0;
  // Undefined contents, 256-byte aligned, good for the launches that follow on this stream until
  // release_scratch(). The first kScratchBytes of an op are always there; more comes from the
  // device's pool, which a recorded step must not ask for. Throws OutOfMemory.
  virtual void* scratch(int64_t bytes) = 0;
  virtual void release_scratch() noexcept = 0;
  static constexpr int64_t kScratchBytes = 8 << 20;
  // kCounters zeros, for blocks that find out which of them is the last one; a launch leaves zeros
  // behind.
  virtual unsigned* counters() = 0;
  static constexpr int64_t kCounters = 4096;
};

// Gives an op's scratch back at the end of the scope.
class ScratchScope {
 public:
  explicit ScratchScope(Stream& stream) : stream_(stream) {}
  ScratchScope(const ScratchScope&) = delete;
  ~ScratchScope() { stream_.release_scratch(); }
  template <typename T>
  T* take(int64_t count) {
    return static_cast<T*>(stream_.scratch(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  Stream& stream_;
};

// The rows of an attention call, as the host knows them before the device does.
struct DeviceRows {
  int64_t count = 0;
  const int32_t* slot = nullptr;  // (count)
  const int32_t* pos = nullptr;   // (count)
  const KvLayer* kv = nullptr;    // (slots)
  int64_t n_ctx = 0;              // the largest of the slots
  // All rows are of slot 0, at positions first_pos, first_pos + 1, …; else -1.
  int64_t first_pos = -1;
  bool same_type = true;  // the slots' caches are all of `type`
  DType type = DType::F16;
};

// A product whose bias repeats: out[t][n] += bias[n % bias_period]. bias_period is w.rows but for
// transposed convolutions.
void linear(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
            int64_t bias_period, ConstView add, const Fused& fused);

// At most kFewRows rows: bound by reading the weights; a row's bits depend on nothing else.
constexpr int64_t kFewRows = 16;
void linear_rows(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                 int64_t bias_period, ConstView add, const Fused& fused);
// Any number of rows.
void linear_tile(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                 int64_t bias_period, ConstView add, const Fused& fused);

void attention(Stream& stream, View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
               bool causal);

void embed(Stream& stream, View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
           const Matrix* wpe, const int32_t* pos);
void layernorm(Stream& stream, View out, ConstView x, const float* gamma, const float* beta);
void gelu(Stream& stream, View out, ConstView x);
void elu(Stream& stream, View out, ConstView x);
void add(Stream& stream, View out, ConstView x);

void conv1d(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
            int64_t kernel, int64_t dilation);
void conv_transpose1d(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                      int64_t stride);
void lstm(Stream& stream, View out, ConstView gates, const Matrix& w_hh, float* h, float* c);

// ids[t] = sample_row(logits[t], params[t]), or one of these where the row has no distribution.
constexpr int32_t kSampleNan = -1;       // a logit is NaN
constexpr int32_t kSampleInfinite = -2;  // the largest is infinite
void sample(Stream& stream, int32_t* ids, ConstView logits, const SampleParams* params);

}  // namespace barkrt::cuda
