// fake_cublaslt.cc: a libcublasLt that multiplies in double precision and believes nothing: what
// does not describe the product that it knows, or breaks a promise of alignment, is refused.
#include "fake_cublaslt.h"

#include <cstring>
#include <vector>

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasOperation_t a = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;
  int32_t bias_type = -1;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  uint64_t rows, cols;
  int64_t ld;
};
struct cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace_bytes = 0;
  uint32_t alignment[4] = {256, 256, 256, 256};
};

namespace {

using Desc = cublasLtMatmulDescOpaque_t;
using Layout = cublasLtMatrixLayoutOpaque_t;
using Preference = cublasLtMatmulPreferenceOpaque_t;

cublasLtContext g_context;
FakeCublasLt g_fake;

cublasStatus_t status(bool good) {
  return good ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

// What it knows: d (n, rows) = a (k, n)' b (k, rows) + c, 16-bit to f32, columns one behind the
// other.
bool known(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  const bool bias = desc.epilogue == CUBLASLT_EPILOGUE_BIAS;
  return desc.a == CUBLAS_OP_T && (!bias || (desc.bias && desc.bias_type == CUDA_R_32F)) &&
         (a.type == CUDA_R_16F || a.type == CUDA_R_16BF) && b.type == a.type &&
         c.type == CUDA_R_32F && d.type == CUDA_R_32F && a.rows == b.rows && d.rows == a.cols &&
         d.cols == b.cols && c.rows == d.rows && c.cols == d.cols &&
         a.ld >= static_cast<int64_t>(a.rows) && b.ld >= static_cast<int64_t>(b.rows) &&
         c.ld >= static_cast<int64_t>(c.rows) && d.ld >= static_cast<int64_t>(d.rows);
}

double value(cudaDataType type, uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float f;
  if (type == CUDA_R_16F) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest < 0x400) return (sign ? -1.0 : 1.0) * rest * 0x1p-24;
    wide = sign | ((rest << 13) + (rest >= 0x7c00 ? 0x70000000u : 0x38000000u));
  }
  std::memcpy(&f, &wide, sizeof f);
  return static_cast<double>(f);
}

struct Product {
  Desc desc;
  Layout a, b, c, d;
  const uint16_t* x;
  const uint16_t* y;
  const float* added;  // NULL: nothing
  float* result;       // of the host; columns without gaps
};

void multiply(void* data) {
  const Product& p = *static_cast<Product*>(data);
  for (uint64_t t = 0; t < p.d.cols; ++t)
    for (uint64_t n = 0; n < p.d.rows; ++n) {
      double sum = 0;
      for (uint64_t k = 0; k < p.a.rows; ++k)
        sum += value(p.a.type, p.x[n * static_cast<uint64_t>(p.a.ld) + k]) *
               value(p.b.type, p.y[t * static_cast<uint64_t>(p.b.ld) + k]);
      if (p.added) sum += static_cast<double>(p.added[t * static_cast<uint64_t>(p.c.ld) + n]);
      if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += static_cast<double>(p.desc.bias[n]);
      p.result[t * p.d.rows + n] = static_cast<float>(sum);
    }
}

}  // namespace

#define FAKE_EXPORT __attribute__((visibility("default")))

extern "C" {

FAKE_EXPORT FakeCublasLt* fake_cublaslt() { return &g_fake; }
FAKE_EXPORT size_t cublasLtGetVersion() { return 990000; }

FAKE_EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  ++g_fake.creates;
  *handle = &g_context;
  return g_fake.status_of_create;
}

FAKE_EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc,
                                                    cublasComputeType_t compute,
                                                    cudaDataType_t scale) {
  *desc = new Desc;
  ++g_fake.living;
  return status(compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F);
}
FAKE_EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  --g_fake.living;
  return CUBLAS_STATUS_SUCCESS;
}
FAKE_EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                          cublasLtMatmulDescAttributes_t attribute,
                                                          const void* from, size_t bytes) {
  const auto set = [&](auto& to) {
    if (bytes == sizeof to) std::memcpy(&to, from, bytes);
    return status(bytes == sizeof to);
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(desc->a);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(desc->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(desc->bias);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(desc->bias_type);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

FAKE_EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                                      cudaDataType type, uint64_t rows,
                                                      uint64_t cols, int64_t ld) {
  *layout = new Layout{type, rows, cols, ld};
  ++g_fake.living;
  return CUBLAS_STATUS_SUCCESS;
}
FAKE_EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  --g_fake.living;
  return CUBLAS_STATUS_SUCCESS;
}

FAKE_EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new Preference;
  ++g_fake.living;
  return CUBLAS_STATUS_SUCCESS;
}
FAKE_EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  --g_fake.living;
  return CUBLAS_STATUS_SUCCESS;
}
FAKE_EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
    const void* from, size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    if (bytes == sizeof(uint64_t)) std::memcpy(&preference->workspace_bytes, from, bytes);
    return status(bytes == sizeof(uint64_t));
  }
  const int matrix = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
  if (matrix < 0 || matrix > 3 || bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&preference->alignment[matrix], from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

// The algorithm is what was promised.
FAKE_EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int requested, cublasLtMatmulHeuristicResult_t results[],
    int* found) {
  ++g_fake.heuristics;
  *found = 0;
  if (handle != &g_context || requested < 1 || !known(*desc, *a, *b, *c, *d))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (g_fake.refuses_shapes) return CUBLAS_STATUS_NOT_SUPPORTED;
  *found = 1;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  for (int i = 0; i < 4; ++i) results[0].algo.data[i] = preference->alignment[i];
  results[0].algo.data[4] = d->rows, results[0].algo.data[5] = d->cols;
  results[0].algo.data[6] = a->rows, results[0].algo.data[7] = preference->workspace_bytes;
  return CUBLAS_STATUS_SUCCESS;
}

FAKE_EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                          const void* alpha, const void* a,
                                          cublasLtMatrixLayout_t a_layout, const void* b,
                                          cublasLtMatrixLayout_t b_layout, const void* beta,
                                          const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                                          cublasLtMatrixLayout_t d_layout,
                                          const cublasLtMatmulAlgo_t* algo, void* workspace,
                                          size_t workspace_bytes, cudaStream_t stream) {
  ++g_fake.matmuls;
  if (g_fake.status_of_matmul != CUBLAS_STATUS_SUCCESS) return g_fake.status_of_matmul;
  const float scale = *static_cast<const float*>(beta);
  bool good = handle == &g_context && *static_cast<const float*>(alpha) == 1.0f &&
              (scale == 0.0f || scale == 1.0f) && workspace != nullptr &&
              workspace_bytes >= algo->data[7] && algo->data[4] == d_layout->rows &&
              algo->data[5] == d_layout->cols && algo->data[6] == a_layout->rows &&
              known(*desc, *a_layout, *b_layout, *c_layout, *d_layout);
  const void* const pointers[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i) good &= reinterpret_cast<uintptr_t>(pointers[i]) % algo->data[i] == 0;
  // In place, or apart.
  good &= c != d || c_layout->ld == d_layout->ld;
  if (!good) return CUBLAS_STATUS_INVALID_VALUE;

  const size_t column_bytes = d_layout->rows * sizeof(float);
  auto* const result = static_cast<float*>(g_fake.pinned(d_layout->cols * column_bytes));
  // Lives to the end of the test: it runs when the stream does.
  auto* const p = new (g_fake.pinned(sizeof(Product)))
      Product{*desc,
              *a_layout,
              *b_layout,
              *c_layout,
              *d_layout,
              static_cast<const uint16_t*>(a),
              static_cast<const uint16_t*>(b),
              scale == 1.0f ? static_cast<const float*>(c) : nullptr,
              result};
  g_fake.later(stream, multiply, p);
  for (uint64_t t = 0; t < d_layout->cols; ++t)
    g_fake.copy_later(stream, static_cast<float*>(d) + t * static_cast<uint64_t>(d_layout->ld),
                      result + t * d_layout->rows, column_bytes);
  return CUBLAS_STATUS_SUCCESS;
}
}
