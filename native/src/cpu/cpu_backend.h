// cpu_backend.h: the CPU side of Backend. Device memory is host memory; an op is done when it
// returns, within repeat() when that does. One instance serves any number of threads.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/pass.h"
#include "cpu/scratch.h"

namespace barkrt {

// Stretches of rows that stay with their thread are multiples of this, which the kernels of
// products take at a time; the same in all ops, so that they are the same rows.
constexpr int64_t kRowMultiple = 12;

class CpuBackend final : public Backend {
 public:
  CpuBackend(int n_threads, const Kernels& kernels) : kernels_(kernels), pool_(n_threads) {}

  std::string device() const override { return "cpu"; }
  void* alloc(int64_t bytes) override;
  void free(void* p, int64_t bytes) noexcept override;
  void upload(void* dst, const void* host_src, int64_t bytes) override;
  void download(void* host_dst, const void* src, int64_t bytes) override;
  void copy(void* dst, const void* src, int64_t bytes) override;
  void zero(void* dst, int64_t bytes) override;
  void synchronize() override {}
  const void* place_weights(const void* host, int64_t bytes) override;
  void release_weights(const void* placed) noexcept override;
  bool has_weight_type(DType type) const override {
    return has_tiles(type) || Backend::has_weight_type(type);
  }

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
  // One chain of all the loops: threads that met for each op would lose up to a tenth of a step.
  void repeat(const std::vector<uint64_t>& key, const HostBlock& block,
              const std::function<void()>& issue) override;

 private:
  // What one op adds its loops to: the pass that its thread is in, or one of its own.
  class Op {
   public:
    explicit Op(CpuBackend& backend, int64_t n_loops = 2);
    Pass* operator->() { return pass_; }
    // The op is done, if its pass is its own.
    void finish();

   private:
    std::optional<Pass> own_;
    Pass* pass_;
  };
  struct Current {
    const CpuBackend* of = nullptr;
    Pass* pass = nullptr;
  };

  // As linear, in f32 arithmetic, with a bias that repeats every bias_period outputs.
  void product(Op& op, View out, ConstView x, const Matrix& w, const float* bias,
               int64_t bias_period, ConstView add);
  void tiles(Op& op, const LinearTile& whole);
  // A convolution whose row of outputs may stand for several, with a bias as product()'s.
  void convolve(View out, ConstView x, const Matrix& w, const float* bias, int64_t bias_period,
                int64_t kernel, int64_t dilation);
  // What each thread reads of w in a product with so few rows.
  Ahead stretches_of(const Matrix& w, int64_t rows) const;

  const Kernels& kernels_;
  ThreadPool pool_;
  ScratchPool scratch_;
  std::mutex mutex_;                           // guards passes_
  std::vector<std::unique_ptr<Pass>> passes_;  // of repeat(), at rest
  static thread_local Current current_;        // the pass that this thread is in
};

// The instruction sets this build has and this processor can run, best first; "generic" is always
// there.
std::vector<std::string> cpu_instruction_sets();
// Whether the processor has AMX, but the operating system does not let this process use it.
bool cpu_amx_is_refused();
// As make_cpu_backend(n_threads), with one of cpu_instruction_sets(). Throws Unsupported for any
// other name.
std::unique_ptr<Backend> make_cpu_backend(int n_threads, const std::string& instruction_set);
// Processors this process may run on.
int cpu_usable_cores();

}  // namespace barkrt
