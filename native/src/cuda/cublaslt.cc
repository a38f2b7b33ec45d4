#include "cuda/cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "error.h"

namespace barkrt::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = 4 << 20;
constexpr int kMostDevices = 64;
// Prompts of up to 1024 rows times the four products of a layer.
constexpr size_t kPlans = 4096;
constexpr size_t kProbes = 16;

// The library's functions that are used.
struct Functions {
  decltype(&::cublasLtGetVersion) get_version = nullptr;
  decltype(&::cublasLtCreate) create = nullptr;
  decltype(&::cublasLtMatmulDescCreate) matmul_desc_create = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) matmul_desc_destroy = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) matmul_desc_set_attribute = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) matrix_layout_create = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) matrix_layout_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) matmul_preference_create = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) matmul_preference_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) matmul_preference_set_attribute = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) matmul_algo_get_heuristic = nullptr;
  decltype(&::cublasLtMatmul) matmul = nullptr;

  // Finds all of them, or returns false.
  bool find(void* library) {
    return get(library, "cublasLtGetVersion", get_version) &&
           get(library, "cublasLtCreate", create) &&
           get(library, "cublasLtMatmulDescCreate", matmul_desc_create) &&
           get(library, "cublasLtMatmulDescDestroy", matmul_desc_destroy) &&
           get(library, "cublasLtMatmulDescSetAttribute", matmul_desc_set_attribute) &&
           get(library, "cublasLtMatrixLayoutCreate", matrix_layout_create) &&
           get(library, "cublasLtMatrixLayoutDestroy", matrix_layout_destroy) &&
           get(library, "cublasLtMatmulPreferenceCreate", matmul_preference_create) &&
           get(library, "cublasLtMatmulPreferenceDestroy", matmul_preference_destroy) &&
           get(library, "cublasLtMatmulPreferenceSetAttribute", matmul_preference_set_attribute) &&
           get(library, "cublasLtMatmulAlgoGetHeuristic", matmul_algo_get_heuristic) &&
           get(library, "cublasLtMatmul", matmul);
  }

 private:
  template <typename F>
  static bool get(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(::dlsym(library, name));
    return function != nullptr;
  }
};

// What the choice of an algorithm depends on.
struct Shape {
  int64_t rows = 0, n = 0, k = 0, out_stride = 0;
  int64_t add_stride = 0;  // 0: nothing is added
  int32_t type = 0, bias = 0;
  uint32_t w_alignment = 0, out_alignment = 0, add_alignment = 0, unused = 0;

  bool operator==(const Shape& o) const { return std::memcmp(this, &o, sizeof o) == 0; }
  size_t hash() const {
    uint64_t h = 0;
    std::array<uint64_t, sizeof(Shape) / 8> words;
    std::memcpy(words.data(), this, sizeof *this);
    for (const uint64_t w : words) h = (h ^ w) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    return static_cast<size_t>(h);
  }
};
static_assert(sizeof(Shape) == 64, "no padding: shapes are compared as bytes");

struct Plan {
  Shape shape;
  cublasLtMatmulAlgo_t algorithm = {};
  std::atomic<bool> refused{false};
};

// The largest power of two up to 256 that divides the address.
uint32_t alignment(const void* p) {
  uint32_t bytes = 256;
  while (reinterpret_cast<uintptr_t>(p) % bytes != 0) bytes /= 2;
  return bytes;
}

// One opened library and its state on each device. Never closed: its threads and device memory
// would outlive it.
class Library {
 public:
  explicit Library(const char* path) {
    const std::vector<const char*> names =
        path ? std::vector<const char*>{path}
             : std::vector<const char*>{"libcublasLt.so.13", "libcublasLt.so.12"};
    for (const char* name : names) {
      void* const opened = *name ? ::dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
      if (!opened) continue;
      if (f_.find(opened)) {
        found_ = true;
        log_line(kLogInfo, "cuda: products of many rows of F16 and BF16 weights by %s, version %zu",
                 name, f_.get_version());
        return;
      }
      log_line(kLogInfo, "cuda: %s lacks a function, so it is not used", name);
      ::dlclose(opened);
    }
    log_line(kLogInfo, "cuda: no %s: products of many rows by this library's own kernels",
             path ? path : "libcublasLt.so.13 or .12");
  }

  bool found() const { return found_; }
  const Functions& functions() const { return f_; }

  struct Device {
    cublasLtHandle_t handle = nullptr;  // NULL: could not be made
    std::array<std::atomic<Plan*>, kPlans> plans = {};
    ~Device() {
      for (const auto& plan : plans) delete plan.load();
    }
  };

  // Of the current device, which is `index`; made at its first use.
  Device& device(int index) {
    BARKRT_CHECK(index >= 0 && index < kMostDevices);
    Device* found = devices_[static_cast<size_t>(index)].load(std::memory_order_acquire);
    if (found) return *found;
    const std::lock_guard<std::mutex> lock(making_);
    found = devices_[static_cast<size_t>(index)].load(std::memory_order_acquire);
    if (found) return *found;
    owned_.push_back(std::make_unique<Device>());
    found = owned_.back().get();
    const cublasStatus_t status = f_.create(&found->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
      found->handle = nullptr;
      log_line(kLogInfo, "cuda:%d: cublasLtCreate: status %d: products by our own kernels", index,
               static_cast<int>(status));
    }
    devices_[static_cast<size_t>(index)].store(found, std::memory_order_release);
    return *found;
  }

 private:
  Functions f_;
  bool found_ = false;
  std::mutex making_;
  std::vector<std::unique_ptr<Device>> owned_;
  std::array<std::atomic<Device*>, kMostDevices> devices_ = {};
};

std::mutex& opening() {
  static std::mutex mutex;
  return mutex;
}
std::atomic<Library*> g_library{nullptr};

void open_library(const char* path) {
  static std::vector<std::unique_ptr<Library>>& all = *new std::vector<std::unique_ptr<Library>>;
  all.push_back(std::make_unique<Library>(path));
  g_library.store(all.back().get(), std::memory_order_release);
}

Library& library() {
  if (Library* const open = g_library.load(std::memory_order_acquire)) return *open;
  const std::lock_guard<std::mutex> lock(opening());
  if (!g_library.load(std::memory_order_acquire)) open_library(nullptr);
  return *g_library.load(std::memory_order_acquire);
}

// The descriptions of one product. The library's matrices are column-major: out' (n, rows) =
// w (k, n)' * x (k, rows).
class Call {
 public:
  Call(const Functions& f, const Shape& s, const float* bias) : f_(f) {
    const cudaDataType_t type =
        s.type == static_cast<int32_t>(DType::F16) ? CUDA_R_16F : CUDA_R_16BF;
    const auto u = [](int64_t i) { return static_cast<uint64_t>(i); };
    add(f.matmul_desc_create(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (s.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    add(f.matrix_layout_create(&w, type, u(s.k), u(s.n), s.k));
    add(f.matrix_layout_create(&x, type, u(s.k), u(s.rows), s.k));
    add(f.matrix_layout_create(&out, CUDA_R_32F, u(s.n), u(s.rows), s.out_stride));
    add(f.matrix_layout_create(&added, CUDA_R_32F, u(s.n), u(s.rows),
                               s.add_stride ? s.add_stride : s.out_stride));
  }
  Call(const Call&) = delete;
  ~Call() {
    for (const cublasLtMatrixLayout_t layout : {added, out, x, w})
      if (layout) f_.matrix_layout_destroy(layout);
    if (product) f_.matmul_desc_destroy(product);
  }
  bool complete() const { return complete_; }

  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, out = nullptr, added = nullptr;

 private:
  void add(cublasStatus_t status) { complete_ &= status == CUBLAS_STATUS_SUCCESS; }
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    if (product) add(f_.matmul_desc_set_attribute(product, attribute, &value, sizeof value));
  }

  const Functions& f_;
  bool complete_ = true;
};

bool choose(const Functions& f, cublasLtHandle_t handle, const Call& call, Plan& plan) {
  cublasLtMatmulPreference_t preference = nullptr;
  if (f.matmul_preference_create(&preference) != CUBLAS_STATUS_SUCCESS) return false;
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    return f.matmul_preference_set_attribute(preference, attribute, &value, sizeof value) ==
           CUBLAS_STATUS_SUCCESS;
  };
  cublasLtMatmulHeuristicResult_t best = {};
  int found = 0;
  const bool chosen =
      set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes}) &&
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, plan.shape.w_alignment) &&
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t{256}) &&
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, plan.shape.add_alignment) &&
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, plan.shape.out_alignment) &&
      f.matmul_algo_get_heuristic(handle, call.product, call.w, call.x, call.added, call.out,
                                  preference, 1, &best, &found) == CUBLAS_STATUS_SUCCESS &&
      found == 1 && best.state == CUBLAS_STATUS_SUCCESS;
  f.matmul_preference_destroy(preference);
  plan.algorithm = best.algo;
  return chosen;
}

// The device's plan for the shape, or, where its places are taken, `own` filled in. Nothing waits:
// two threads that meet a new shape at once both ask the library, and one plan stays.
Plan& plan_for(const Functions& f, Library::Device& device, const Call& call, const Shape& shape,
               Plan& own) {
  const size_t hash = shape.hash();
  std::atomic<Plan*>* place = nullptr;
  for (size_t i = 0; i < kProbes && !place; ++i) {
    std::atomic<Plan*>& at = device.plans[(hash + i) % kPlans];
    Plan* const known = at.load(std::memory_order_acquire);
    if (known && known->shape == shape) return *known;
    if (!known) place = &at;
  }
  own.shape = shape;
  own.refused = !choose(f, device.handle, call, own);
  if (own.refused)
    log_line(kLogInfo, "cuda: cuBLASLt refuses (%lld, %lld) x %lld of %s: done by our own kernel",
             static_cast<long long>(shape.rows), static_cast<long long>(shape.k),
             static_cast<long long>(shape.n), dtype_name(static_cast<DType>(shape.type)));
  if (!place) return own;
  auto kept = std::make_unique<Plan>();
  kept->shape = shape, kept->algorithm = own.algorithm, kept->refused = own.refused.load();
  Plan* expected = nullptr;
  if (!place->compare_exchange_strong(expected, kept.get(), std::memory_order_acq_rel)) return own;
  return *kept.release();
}

}  // namespace

void set_cublaslt_library(const char* path) {
  const std::lock_guard<std::mutex> lock(opening());
  open_library(path);
}

bool cublaslt_linear(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                     int64_t bias_period, ConstView add, const Fused& fused) {
  const Properties& properties = stream.properties();
  const bool bf16 = w.type == DType::BF16;
  if ((!bf16 && w.type != DType::F16) || (bf16 && !properties.at_least(8, 0))) return false;
  if (x.rows == 0 || w.rows == 0 || w.cols == 0 || (bias && bias_period != w.rows)) return false;
  Library& lt = library();
  if (!lt.found()) return false;
  const Functions& f = lt.functions();
  Library::Device& device = lt.device(properties.index);
  if (!device.handle) return false;

  Shape shape;
  shape.rows = x.rows, shape.n = w.rows, shape.k = w.cols, shape.out_stride = out.stride;
  shape.add_stride = add.data ? add.stride : 0;
  shape.type = static_cast<int32_t>(w.type), shape.bias = bias != nullptr;
  const float* const added = add.data ? add.data : out.data;
  shape.w_alignment = alignment(w.data), shape.out_alignment = alignment(out.data);
  shape.add_alignment = alignment(added);
  const Call call(f, shape, bias);
  if (!call.complete()) return false;
  Plan own;
  Plan& plan = plan_for(f, device, call, shape, own);
  if (plan.refused) return false;

  ScratchScope scratch(stream);
  void* const rounded = stream.scratch(x.rows * x.cols * 2);
  void* const workspace = stream.scratch(kWorkspaceBytes);
  round_rows(stream, rounded, w.type, x, fused);
  const float one = 1.0f, beta = add.data ? 1.0f : 0.0f;
  const cublasStatus_t status = f.matmul(
      device.handle, call.product, &one, w.data, call.w, rounded, call.x, &beta, added, call.added,
      out.data, call.out, &plan.algorithm, workspace, kWorkspaceBytes, stream.handle());
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
      status == CUBLAS_STATUS_ARCH_MISMATCH) {
    plan.refused = true;
    return false;
  }
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(Status::Device, "cuda:%d: cublasLtMatmul: status %d", properties.index,
         static_cast<int>(status));
  if (fused.gelu) gelu(stream, out, out);
  return true;
}

}  // namespace barkrt::cuda
