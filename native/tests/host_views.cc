#include "host_views.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "error.h"

namespace barkrt {
namespace {

constexpr uintptr_t kAlign = 16;

struct Stretch {
  const std::byte *begin = nullptr, *end = nullptr;  // of the host
  bool written = false;
  std::byte* block = nullptr;  // of the device
  std::byte* device = nullptr;

  int64_t bytes() const { return end - begin; }
  int64_t block_bytes() const { return bytes() + (device - block); }
};

// The memory of one op's arguments, on the device while this lives.
class Mirror {
 public:
  explicit Mirror(Backend& device) : device_(device) {}
  Mirror(const Mirror&) = delete;
  ~Mirror() {
    for (const Stretch& s : stretches_)
      if (s.block != nullptr) device_.free(s.block, s.block_bytes());
  }

  void add(const void* p, int64_t bytes, bool written = false) {
    const auto* begin = static_cast<const std::byte*>(p);
    if (p != nullptr && bytes > 0) stretches_.push_back({begin, begin + bytes, written});
  }
  void add(ConstView x, int64_t history = 0) {
    add_view(x.data, x.rows, x.cols, x.stride, history, false);
  }
  void add(View x) { add_view(x.data, x.rows, x.cols, x.stride, 0, true); }
  void add(const Matrix& m) {
    add(m.data, m.rows * m.cols * dtype_bytes(m.type));
    add(m.scale, m.scale != nullptr ? m.rows * 4 : 0);
  }

  // After the last add().
  void upload() {
    merge();
    for (Stretch& s : stretches_) {
      const auto offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(s.begin) % kAlign);
      s.block = static_cast<std::byte*>(device_.alloc(s.bytes() + offset));
      s.device = s.block + offset;
      device_.upload(s.device, s.begin, s.bytes());
    }
  }
  void download() {
    for (const Stretch& s : stretches_)
      if (s.written) device_.download(const_cast<std::byte*>(s.begin), s.device, s.bytes());
  }

  template <typename T>
  T* at(T* p) const {
    const auto* address = reinterpret_cast<const std::byte*>(p);
    for (const Stretch& s : stretches_)
      if (address >= s.begin && address < s.end)
        return reinterpret_cast<T*>(s.device + (address - s.begin));
    BARKRT_CHECK(p == nullptr);
    return nullptr;
  }
  void* at(void* p) const { return at(static_cast<std::byte*>(p)); }
  const void* at(const void* p) const { return at(static_cast<const std::byte*>(p)); }
  View at(View x) const { return {at(x.data), x.rows, x.cols, x.stride}; }
  ConstView at(ConstView x) const { return {at(x.data), x.rows, x.cols, x.stride}; }
  Matrix at(const Matrix& m) const { return {at(m.data), m.type, m.rows, m.cols, at(m.scale)}; }

 private:
  void add_view(const float* data, int64_t rows, int64_t cols, int64_t stride, int64_t history,
                bool written) {
    if (data == nullptr || rows == 0) return;
    const float* first = data - history * stride;
    add(first, ((rows - 1 + history) * stride + cols) * 4, written);
  }

  // Stretches that share bytes become one, so that what aliases on the host does on the device.
  void merge() {
    std::sort(stretches_.begin(), stretches_.end(),
              [](const Stretch& a, const Stretch& b) { return a.begin < b.begin; });
    std::vector<Stretch> merged;
    for (const Stretch& s : stretches_)
      if (!merged.empty() && s.begin < merged.back().end) {
        merged.back().end = std::max(merged.back().end, s.end);
        merged.back().written |= s.written;
      } else {
        merged.push_back(s);
      }
    stretches_ = std::move(merged);
  }

  Backend& device_;
  std::vector<Stretch> stretches_;
};

class HostViews final : public Backend {
 public:
  explicit HostViews(std::unique_ptr<Backend> device) : device_(std::move(device)) {}

  std::string device() const override { return device_->device(); }
  bool has_weight_type(DType type) const override { return device_->has_weight_type(type); }
  void* alloc(int64_t bytes) override { return device_->alloc(bytes); }
  void free(void* p, int64_t bytes) noexcept override { device_->free(p, bytes); }
  void upload(void* dst, const void* src, int64_t n) override { device_->upload(dst, src, n); }
  void download(void* dst, const void* src, int64_t n) override { device_->download(dst, src, n); }
  void copy(void* dst, const void* src, int64_t n) override { device_->copy(dst, src, n); }
  void zero(void* dst, int64_t bytes) override { device_->zero(dst, bytes); }
  void synchronize() override { device_->synchronize(); }
  const void* place_weights(const void* host, int64_t bytes) override {
    return device_->place_weights(host, bytes);
  }
  void release_weights(const void* placed) noexcept override { device_->release_weights(placed); }

  void embed(View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
             const Matrix* wpe, const int32_t* pos) override {
    Mirror m(*device_);
    m.add(out);
    for (int64_t s = 0; s < n_tables; ++s) m.add(tables[s]);
    if (wpe != nullptr) m.add(*wpe);
    m.upload();
    std::vector<Matrix> there;
    for (int64_t s = 0; s < n_tables; ++s) there.push_back(m.at(tables[s]));
    const Matrix positions = wpe != nullptr ? m.at(*wpe) : Matrix{};
    device_->embed(m.at(out), ids, there.data(), n_tables, wpe != nullptr ? &positions : nullptr,
                   pos);
    m.download();
  }

  void layernorm(View out, ConstView x, const float* gamma, const float* beta) override {
    Mirror m(*device_);
    m.add(out);
    m.add(x);
    m.add(gamma, x.cols * 4);
    m.add(beta, x.cols * 4);
    m.upload();
    device_->layernorm(m.at(out), m.at(x), m.at(gamma), m.at(beta));
    m.download();
  }

  void linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add,
              const Fused& fused) override {
    Mirror m(*device_);
    m.add(out);
    m.add(x);
    m.add(w);
    m.add(bias, w.rows * 4);
    m.add(add);
    m.add(fused.gamma, w.cols * 4);
    m.add(fused.beta, w.cols * 4);
    m.upload();
    device_->linear(m.at(out), m.at(x), m.at(w), m.at(bias), m.at(add),
                    {m.at(fused.gamma), m.at(fused.beta), fused.gelu, fused.next});
    m.download();
  }

  void attention(View out, ConstView qkv, const KvLayer* kv, const Rows& rows, int64_t n_head,
                 bool causal, const Matrix* next) override {
    int64_t n_slots = 0;
    for (int64_t t = 0; t < rows.count; ++t) n_slots = std::max<int64_t>(n_slots, rows.slot[t] + 1);
    Mirror m(*device_);
    m.add(out);
    m.add(qkv);
    for (int64_t s = 0; s < n_slots; ++s) {
      const int64_t bytes = n_head * kv_head_bytes(kv[s].type, kv[s].n_ctx, kv[s].n_embd / n_head);
      m.add(kv[s].k, bytes, true);
      m.add(kv[s].v, bytes, true);
    }
    m.upload();
    std::vector<KvLayer> there(kv, kv + n_slots);
    for (KvLayer& layer : there) layer.k = m.at(layer.k), layer.v = m.at(layer.v);
    device_->attention(m.at(out), m.at(qkv), there.data(), rows, n_head, causal, next);
    m.download();
  }

  void elu(View out, ConstView x) override { elementwise(&Backend::elu, out, x); }

  void add(View out, ConstView x) override { elementwise(&Backend::add, out, x); }

  void conv1d(View out, ConstView x, const Matrix& w, const float* bias, int64_t kernel,
              int64_t dilation) override {
    Mirror m(*device_);
    m.add(out);
    m.add(x, (kernel - 1) * dilation);
    m.add(w);
    m.add(bias, w.rows * 4);
    m.upload();
    device_->conv1d(m.at(out), m.at(x), m.at(w), m.at(bias), kernel, dilation);
    m.download();
  }

  void conv_transpose1d(View out, ConstView x, const Matrix& w, const float* bias,
                        int64_t stride) override {
    Mirror m(*device_);
    m.add(out);
    m.add(x, 1);
    m.add(w);
    m.add(bias, out.cols * 4);
    m.upload();
    device_->conv_transpose1d(m.at(out), m.at(x), m.at(w), m.at(bias), stride);
    m.download();
  }

  void lstm(View out, ConstView gates, const Matrix& w_hh, float* h, float* c) override {
    Mirror m(*device_);
    m.add(out);
    m.add(gates);
    m.add(w_hh);
    m.add(h, out.cols * 4, true);
    m.add(c, out.cols * 4, true);
    m.upload();
    device_->lstm(m.at(out), m.at(gates), m.at(w_hh), m.at(h), m.at(c));
    m.download();
  }

  void sample(int32_t* ids, ConstView logits, const SampleParams* params) override {
    Mirror m(*device_);
    m.add(logits);
    m.upload();
    device_->sample(ids, m.at(logits), params);
  }

 private:
  void elementwise(void (Backend::*op)(View, ConstView), View out, ConstView x) {
    Mirror m(*device_);
    m.add(out);
    m.add(x);
    m.upload();
    (device_.get()->*op)(m.at(out), m.at(x));
    m.download();
  }

  const std::unique_ptr<Backend> device_;
};

}  // namespace

std::unique_ptr<Backend> make_host_views(std::unique_ptr<Backend> device) {
  return std::make_unique<HostViews>(std::move(device));
}

}  // namespace barkrt
