// cuda_cublaslt_test.cc: products by a library that is opened at run time: what it is asked, and
// what happens where it is absent, broken, or refuses. The library is fake_cublaslt.cc.
#include <dlfcn.h>

#include <thread>

#include "cuda/cublaslt.h"
#include "error.h"
#include "fake_cublaslt.h"
#include "on_cuda.h"

namespace barkrt::cuda {
namespace {

using namespace reference;

void* pinned(size_t bytes) {
  void* p = nullptr;
  check(cudaMallocHost(&p, bytes), "pinned");
  return p;
}
void later(cudaStream_t stream, void (*work)(void*), void* data) {
  check(cudaLaunchHostFunc(stream, work, data), "later");
}
void copy_later(cudaStream_t stream, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copy_later");
}

FakeCublasLt& fake() {
  static FakeCublasLt& only = [&]() -> FakeCublasLt& {
    void* const library = dlopen(BARKRT_FAKE_CUBLASLT, RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(dlerror());
    auto* const find = reinterpret_cast<decltype(&fake_cublaslt)>(dlsym(library, "fake_cublaslt"));
    return *find();
  }();
  return only;
}

struct Options {
  DType type = DType::F16;
  bool bias = true, add = true, in_place = false, norm = false, gelu = false;
  int64_t gap = 0;  // between rows of out
};

class CudaCublasLt : public testing::Test {
 protected:
  void SetUp() override {
    fake().later = later, fake().copy_later = copy_later, fake().pinned = pinned;
    fake().refuses_shapes = false;
    fake().status_of_create = fake().status_of_matmul = CUBLAS_STATUS_SUCCESS;
    fake().creates = fake().heuristics = fake().matmuls = 0;
    set_log_sink(
        [](void* user, int32_t, const char* text) {
          static_cast<CudaCublasLt*>(user)->log += std::string(text) + "\n";
        },
        this);
    set_cublaslt_library(BARKRT_FAKE_CUBLASLT);
  }
  void TearDown() override {
    EXPECT_EQ(fake().living, 0) << "descriptors are left";
    set_log_sink(nullptr, nullptr);
    set_cublaslt_library("");
  }

  // linear() of (t, k) by (n, k), with what the options say; the numbers do not depend on who
  // multiplies.
  Floats product(OnCuda& on, int64_t t, int64_t k, int64_t n, const Options& o) {
    const Weights w(o.type, n, k, 1);
    const int64_t stride = n + o.gap;
    const Matrix m = on.put(w.matrix);
    const float* const bias = o.bias ? on.put(normal(n, 3)) : nullptr;
    const ConstView x = view(on.put(normal(t * k, 2)), t, k);
    const float* const added = on.put(normal(t * stride, 4));
    float* const out = o.in_place ? const_cast<float*>(added) : on.room(t * stride);
    const ConstView add = {o.add ? added : nullptr, t, n, stride};
    Fused fused;
    if (o.norm) fused.gamma = on.put(normal(k, 5)), fused.beta = on.put(normal(k, 6));
    fused.gelu = o.gelu;
    on.run([&](Stream& stream) { linear(stream, {out, t, n, stride}, x, m, bias, n, add, fused); });
    Floats rows, all = on.get(out, t * stride);
    for (int64_t r = 0; r < t; ++r)
      rows.insert(rows.end(), all.begin() + r * stride, all.begin() + r * stride + n);
    return rows;
  }

  int times(const std::string& part) const {
    int count = 0;
    for (size_t at = log.find(part); at != std::string::npos; at = log.find(part, at + 1)) ++count;
    return count;
  }

  std::string log;
};

// The tile kernels round the same numbers the same way; only the sums' order differs.
void expect_close(const Floats& a, const Floats& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-4) << i;
}

TEST_F(CudaCublasLt, IsAskedForTheProductThatOurKernelsMake) {
  OnCuda on(8, 9, 4);
  int asked = 0;
  for (const DType type : {DType::F16, DType::BF16})
    for (Options o : {Options{}, Options{type, false, false}, Options{type, true, true, true},
                      Options{type, true, false, false, true, true},
                      Options{type, false, true, false, true, false, 3}}) {
      o.type = type;
      set_cublaslt_library(BARKRT_FAKE_CUBLASLT);
      const Floats theirs = product(on, 21, 40, 19, o);
      EXPECT_EQ(fake().matmuls, ++asked);
      set_cublaslt_library("");
      expect_close(theirs, product(on, 21, 40, 19, o));
      EXPECT_EQ(fake().matmuls, asked);
    }
  EXPECT_GT(times("by " BARKRT_FAKE_CUBLASLT ", version 990000"), 0) << log;
  EXPECT_EQ(times("refuses"), 0) << log;
}

TEST_F(CudaCublasLt, AlgorithmsAreChosenOncePerShape) {
  OnCuda on(8, 9, 4);
  for (int i = 0; i < 3; ++i)
    for (const int64_t t : {17, 18}) product(on, t, 24, 16, {});
  EXPECT_EQ(fake().heuristics, 2);
  EXPECT_EQ(fake().matmuls, 6);
  EXPECT_EQ(fake().creates, 1);
  EXPECT_EQ(times("products of many rows"), 1) << log;
}

TEST_F(CudaCublasLt, MoreShapesThanPlacesAreAskedForAgain) {
  OnCuda on(8, 9, 4);
  const Weights w(DType::F16, 1, 1, 1);
  const Matrix m = on.put(w.matrix);
  const float* const x = on.put(normal(17, 2));
  float* const out = on.room(17 * 5000);
  const auto product = [&](int64_t stride) {
    on.run([&](Stream& stream) {
      linear(stream, {out, 17, 1, stride}, view(x, 17, 1), m, nullptr, 1, {}, {});
    });
  };
  for (int64_t stride = 1; stride <= 5000; ++stride) product(stride);
  EXPECT_EQ(fake().heuristics, 5000);
  for (int64_t stride = 1; stride <= 5000; ++stride) product(stride);
  EXPECT_GT(fake().heuristics, 5000 + 900) << "5000 plans in 4096 places";
  EXPECT_LT(fake().heuristics, 10000);
}

TEST_F(CudaCublasLt, IsLeftAloneWhereItCannotHelp) {
  OnCuda on(7, 5, 4);
  product(on, 16, 24, 16, {});             // few rows
  product(on, 20, 24, 16, {DType::BF16});  // before compute capability 8.0
  product(on, 20, 24, 16, {DType::I8});
  product(on, 20, 24, 16, {DType::F32});
  EXPECT_EQ(fake().creates, 0);
  product(on, 20, 24, 16, {});
  EXPECT_EQ(fake().matmuls, 1);
}

TEST_F(CudaCublasLt, ShapesThatItRefusesAreOurs) {
  OnCuda on(8, 9, 4);
  fake().refuses_shapes = true;
  const Floats ours = product(on, 21, 40, 19, {});
  product(on, 21, 40, 19, {});
  EXPECT_EQ(fake().heuristics, 1);
  EXPECT_EQ(fake().matmuls, 0);
  EXPECT_EQ(times("refuses (21, 40) x 19 of F16"), 1) << log;
  fake().refuses_shapes = false;
  set_cublaslt_library(BARKRT_FAKE_CUBLASLT);
  expect_close(ours, product(on, 21, 40, 19, {}));
  EXPECT_EQ(fake().matmuls, 1);
}

TEST_F(CudaCublasLt, ProductsThatItRefusesAreOurs) {
  OnCuda on(8, 9, 4);
  const Floats theirs = product(on, 21, 40, 19, {});
  set_cublaslt_library(BARKRT_FAKE_CUBLASLT);
  fake().status_of_matmul = CUBLAS_STATUS_NOT_SUPPORTED;
  expect_close(theirs, product(on, 21, 40, 19, {}));
  expect_close(theirs, product(on, 21, 40, 19, {}));
  EXPECT_EQ(fake().matmuls, 2) << "it is asked once more, not twice";
}

TEST_F(CudaCublasLt, ItsOtherFailuresAreErrors) {
  OnCuda on(8, 9, 4);
  fake().status_of_matmul = CUBLAS_STATUS_EXECUTION_FAILED;
  try {
    product(on, 21, 40, 19, {});
    FAIL() << "nothing is thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Device);
    EXPECT_NE(std::string(e.what()).find("cublasLtMatmul: status 13"), std::string::npos);
  }
}

TEST_F(CudaCublasLt, WithoutItOurKernelsMakeAllProducts) {
  OnCuda on(8, 9, 4);
  const Floats theirs = product(on, 21, 40, 19, {});
  for (const char* path : {"", "/nowhere/libcublasLt.so", "libm.so.6"}) {
    set_cublaslt_library(path);
    expect_close(theirs, product(on, 21, 40, 19, {}));
  }
  EXPECT_EQ(fake().matmuls, 1);
  EXPECT_EQ(times("libm.so.6 lacks a function"), 1) << log;
  EXPECT_EQ(times("no /nowhere/libcublasLt.so"), 1) << log;
  set_cublaslt_library(BARKRT_FAKE_CUBLASLT);
  fake().status_of_create = CUBLAS_STATUS_NOT_INITIALIZED;
  expect_close(theirs, product(on, 21, 40, 19, {}));
  EXPECT_EQ(times("cublasLtCreate: status 1"), 1) << log;
}

TEST_F(CudaCublasLt, ThreadsMeetNewShapesAtOnce) {
  OnCuda on(8, 9, 4);
  const Weights w(DType::F16, 8, 16, 1);
  const Matrix m = on.put(w.matrix);
  const float* const x = on.put(normal(60 * 16, 2));
  std::vector<std::thread> threads;
  std::vector<float*> outs;
  for (int i = 0; i < 4; ++i) outs.push_back(on.room(60 * 8));
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (int64_t t = 17; t <= 60; ++t)
        on.run([&](Stream& stream) {
          linear(stream, view(outs[static_cast<size_t>(i)], t, 8), view(x, t, 16), m, nullptr, 8,
                 {}, {});
        });
    });
  for (std::thread& thread : threads) thread.join();
  check(cudaDeviceSynchronize(), "synchronize");
  const Floats first = on.get(outs[0], 60 * 8);
  for (float* const out : outs) EXPECT_EQ(first, on.get(out, 60 * 8));
  EXPECT_EQ(fake().matmuls, 4 * 44);
}

}  // namespace
}  // namespace barkrt::cuda
