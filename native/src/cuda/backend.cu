// backend.cu: Backend on a CUDA device: checks the calls, brings host arrays to the device, and has
// the kernels do the rest.
#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/common.cuh"
#include "cuda/device.h"
#include "cuda/graph.h"
#include "cuda/ops.h"
#include "engine.h"
#include "error.h"

namespace barkrt::cuda {
namespace {

static_assert(Engine::kMaxBatch <= kFewRows, "rows of shared steps do not depend on each other");

void check_same_shape(View out, ConstView x) {
  BARKRT_CHECK(out.rows == x.rows && out.cols == x.cols);
}

DeviceRows describe_rows(const KvLayer* kv, const Rows& rows, int64_t n_embd, bool causal,
                         int64_t* n_slots) {
  DeviceRows d;
  d.count = rows.count;
  d.type = kv[rows.slot[0]].type;
  d.first_pos = rows.count > kFewRows ? rows.pos[0] : -1;
  for (int64_t t = 0; t < rows.count; ++t) {
    BARKRT_CHECK(rows.slot[t] >= 0 && rows.pos[t] >= 0);
    const KvLayer& layer = kv[rows.slot[t]];
    BARKRT_CHECK(rows.pos[t] < layer.n_ctx && layer.n_embd == n_embd);
    BARKRT_CHECK(layer.type == DType::F16 || layer.type == DType::F32 || layer.type == DType::I8 ||
                 (layer.type == DType::BF16 && !causal));
    BARKRT_CHECK(causal || (rows.slot[t] == rows.slot[0] && rows.pos[t] < rows.count));
    d.n_ctx = std::max(d.n_ctx, layer.n_ctx);
    d.same_type &= layer.type == d.type;
    if (rows.slot[t] != 0 || rows.pos[t] != rows.pos[0] + t) d.first_pos = -1;
    *n_slots = std::max<int64_t>(*n_slots, rows.slot[t] + 1);
  }
  return d;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(Device& device) : device_(device), repeats_(device) { device.enter(); }

  std::string device() const override { return device_.id(); }
  void* alloc(int64_t bytes) override {
    BARKRT_CHECK(bytes >= 0);
    return device_.pool().allocate(bytes);
  }
  void free(void* p, int64_t bytes) noexcept override { device_.pool().free(p, bytes); }
  void upload(void* dst, const void* host_src, int64_t bytes) override;
  void download(void* host_dst, const void* src, int64_t bytes) override;
  void copy(void* dst, const void* src, int64_t bytes) override;
  void zero(void* dst, int64_t bytes) override;
  void synchronize() override;
  const void* place_weights(const void* host, int64_t bytes) override;
  void release_weights(const void* placed) noexcept override;

  void embed(View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
             const Matrix* wpe, const int32_t* pos) override;
  void layernorm(View out, ConstView x, const float* gamma, const float* beta) override;
  void linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add,
              const Fused& fused) override;
  void attention(View out, ConstView qkv, const KvLayer* kv, const Rows& rows, int64_t n_head,
                 bool causal, const Matrix* next) override;
  void elu(View out, ConstView x) override;
  void add(View out, ConstView x) override;
  void conv1d(View out, ConstView x, const Matrix& w, const float* bias, int64_t kernel,
              int64_t dilation) override;
  void conv_transpose1d(View out, ConstView x, const Matrix& w, const float* bias,
                        int64_t stride) override;
  void lstm(View out, ConstView gates, const Matrix& w_hh, float* h, float* c) override;
  void sample(int32_t* ids, ConstView logits, const SampleParams* params) override;
  void repeat(const std::vector<uint64_t>& key, const HostBlock& block,
              const std::function<void()>& issue) override {
    repeats_.run(key, block, issue);
  }

 private:
  Device& device_;
  Repeats repeats_;
  std::mutex mutex_;  // guards placed_
  std::map<const void*, int64_t> placed_;
};

// --- memory ---

void CudaBackend::upload(void* dst, const void* host_src, int64_t bytes) {
  const LaneUse lane(device_);
  device_.staging().upload(lane->handle(), dst, host_src, bytes);
}

void CudaBackend::download(void* host_dst, const void* src, int64_t bytes) {
  if (bytes <= 0) return;
  const LaneUse lane(device_);
  lane->get(host_dst, src, bytes);
}

void CudaBackend::copy(void* dst, const void* src, int64_t bytes) {
  if (bytes <= 0 || dst == src) return;
  const LaneUse lane(device_);
  const size_t n = static_cast<size_t>(bytes);
  const auto copy_apart = [&](void* to, const void* from) {
    check(cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, lane->handle()),
          "cudaMemcpyAsync");
  };
  const auto* const a = static_cast<const std::byte*>(dst);
  const auto* const b = static_cast<const std::byte*>(src);
  if (a + bytes <= b || b + bytes <= a) return copy_apart(dst, src);
  void* const between = lane->room(bytes);
  copy_apart(between, src);
  copy_apart(dst, between);
}

void CudaBackend::zero(void* dst, int64_t bytes) {
  if (bytes <= 0) return;
  const LaneUse lane(device_);
  check(cudaMemsetAsync(dst, 0, static_cast<size_t>(bytes), lane->handle()), "cudaMemsetAsync");
}

void CudaBackend::synchronize() {
  const LaneUse lane(device_);
  lane->wait();
  device_.staging().wait();
}

const void* CudaBackend::place_weights(const void* host, int64_t bytes) {
  void* const p = alloc(bytes);
  try {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      placed_.emplace(p, bytes);
    }
    device_.enter();
    device_.staging().upload(p, host, bytes);
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    placed_.erase(p);
    free(p, bytes);
    throw;
  }
  return p;
}

void CudaBackend::release_weights(const void* placed) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = placed_.find(placed);
  if (found == placed_.end()) return;
  free(const_cast<void*>(placed), found->second);
  placed_.erase(found);
}

// --- ops ---

void CudaBackend::embed(View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
                        const Matrix* wpe, const int32_t* pos) {
  const int64_t n = out.rows;
  for (int64_t s = 0; s < n_tables; ++s) {
    BARKRT_CHECK(tables[s].cols == out.cols && has_weight_type(tables[s].type));
    for (int64_t t = 0; t < n; ++t) BARKRT_CHECK(ids[s * n + t] < tables[s].rows);
  }
  const bool has_pos = wpe != nullptr && pos != nullptr;
  if (has_pos) {
    BARKRT_CHECK(wpe->cols == out.cols && has_weight_type(wpe->type));
    for (int64_t t = 0; t < n; ++t) BARKRT_CHECK(pos[t] >= 0 && pos[t] < wpe->rows);
  }
  if (n == 0) return;
  const LaneUse lane(device_);
  const int32_t* const device_ids = lane->put(ids, n_tables * n);
  cuda::embed(*lane, out, device_ids, tables, n_tables, has_pos ? wpe : nullptr,
              has_pos ? lane->put(pos, n) : nullptr);
}

void CudaBackend::layernorm(View out, ConstView x, const float* gamma, const float* beta) {
  check_same_shape(out, x);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::layernorm(*lane, out, x, gamma, beta);
}

void CudaBackend::linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add,
                         const Fused& fused) {
  BARKRT_CHECK(x.cols == w.cols && out.cols == w.rows && out.rows == x.rows);
  BARKRT_CHECK(has_weight_type(w.type));
  BARKRT_CHECK(add.data == nullptr || (add.rows == out.rows && add.cols == out.cols));
  BARKRT_CHECK(!fused.gelu || add.data == nullptr);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::linear(*lane, out, x, w, bias, w.rows, add, fused);
}

void CudaBackend::attention(View out, ConstView qkv, const KvLayer* kv, const Rows& rows,
                            int64_t n_head, bool causal, const Matrix*) {
  const int64_t n_embd = out.cols;
  BARKRT_CHECK(rows.count == out.rows && rows.count == qkv.rows);
  BARKRT_CHECK(qkv.cols == 3 * n_embd && n_head > 0 && n_embd % n_head == 0);
  if (rows.count == 0) return;
  int64_t n_slots = 0;
  DeviceRows on_device = describe_rows(kv, rows, n_embd, causal, &n_slots);
  const LaneUse lane(device_);
  on_device.slot = lane->put(rows.slot, rows.count);
  on_device.pos = lane->put(rows.pos, rows.count);
  on_device.kv = lane->put(kv, n_slots);
  cuda::attention(*lane, out, qkv, on_device, n_head, causal);
}

void CudaBackend::elu(View out, ConstView x) {
  check_same_shape(out, x);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::elu(*lane, out, x);
}

void CudaBackend::add(View out, ConstView x) {
  check_same_shape(out, x);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::add(*lane, out, x);
}

void CudaBackend::conv1d(View out, ConstView x, const Matrix& w, const float* bias, int64_t kernel,
                         int64_t dilation) {
  BARKRT_CHECK(kernel >= 1 && dilation >= 1 && w.cols == kernel * x.cols);
  BARKRT_CHECK(out.rows == x.rows && out.cols == w.rows);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::conv1d(*lane, out, x, w, bias, kernel, dilation);
}

void CudaBackend::conv_transpose1d(View out, ConstView x, const Matrix& w, const float* bias,
                                   int64_t stride) {
  BARKRT_CHECK(stride >= 1 && w.rows == stride * out.cols && w.cols == 2 * x.cols);
  BARKRT_CHECK(out.rows == x.rows * stride && out.stride == out.cols);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::conv_transpose1d(*lane, out, x, w, bias, stride);
}

void CudaBackend::lstm(View out, ConstView gates, const Matrix& w_hh, float* h, float* c) {
  const int64_t hidden = out.cols;
  BARKRT_CHECK(gates.rows == out.rows && gates.cols == 4 * hidden);
  BARKRT_CHECK(w_hh.rows == 4 * hidden && w_hh.cols == hidden);
  if (out.rows == 0) return;
  const LaneUse lane(device_);
  cuda::lstm(*lane, out, gates, w_hh, h, c);
}

void CudaBackend::sample(int32_t* ids, ConstView logits, const SampleParams* params) {
  const int64_t n = logits.rows;
  BARKRT_CHECK(logits.cols > 0);
  for (int64_t t = 0; t < n; ++t) BARKRT_CHECK(params[t].eos < logits.cols);
  if (n == 0) return;
  const LaneUse lane(device_);
  const int64_t bytes = n * static_cast<int64_t>(sizeof(int32_t));
  void* const in_block = lane->in_block(ids, bytes);
  auto* const drawn = static_cast<int32_t*>(in_block ? in_block : lane->room(bytes));
  cuda::sample(*lane, drawn, logits, lane->put(params, n));
  if (in_block) return;
  lane->get(ids, drawn, bytes);
  const int64_t bad = std::find_if(ids, ids + n, [](int32_t id) { return id < 0; }) - ids;
  if (bad == n) return;
  // The host says what is wrong with the row, as it does on the CPU.
  std::vector<float> row(static_cast<size_t>(logits.cols)), scratch(2 * row.size());
  lane->get(row.data(), logits.row(bad), logits.cols * static_cast<int64_t>(sizeof(float)));
  sample_row(row.data(), logits.cols, params[bad], scratch.data());
  fail(Status::Internal, "%s refuses to draw from row %lld of %lld logits", device_.id().c_str(),
       static_cast<long long>(bad), static_cast<long long>(logits.cols));
}

std::string detail(const Device& device) {
  const DeviceFacts& facts = device.facts();
  if (device.is_lost()) return "UUID " + facts.uuid + "; " + device.lost_text();
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  char memory[32];
  std::snprintf(memory, sizeof memory, "%.1f GiB",
                static_cast<double>(facts.memory_bytes) / (1 << 30));
  return "UUID " + facts.uuid + "; compute capability " + std::to_string(facts.properties.major) +
         "." + std::to_string(facts.properties.minor) + ", " + memory + ", " +
         std::to_string(facts.properties.n_multiprocessors) + " multiprocessors; CUDA runtime " +
         version_text(runtime) + ", driver for " + version_text(driver);
}

}  // namespace

int device_count() { return Device::count(); }

DeviceDescription describe_device(int index) {
  const Device& device = Device::at(index);
  return {device.id(),
          "cuda",
          device.facts().name,
          detail(device),
          device.facts().properties.n_multiprocessors,
          device.facts().memory_bytes};
}

void device_memory(int index, int64_t* free_bytes, int64_t* total_bytes) {
  Device::at(index).enter();
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  *free_bytes = static_cast<int64_t>(free);
  *total_bytes = static_cast<int64_t>(total);
}

int64_t trim_device(int index) { return Device::at(index).pool().trim(); }

std::unique_ptr<Backend> make_backend(Device& device) {
  return std::make_unique<CudaBackend>(device);
}

std::unique_ptr<Backend> make_backend(int index) { return make_backend(Device::at(index)); }

}  // namespace barkrt::cuda
