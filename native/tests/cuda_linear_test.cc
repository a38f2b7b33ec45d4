// cuda_linear_test.cc: products as linear_test.cc cannot choose them: by each kernel, at each
// compute capability, on devices so small that tiles are large and so large that K is cut.
#include <cstring>

#include "cuda/cublaslt.h"
#include "on_cuda.h"

namespace barkrt::cuda {
namespace {

using namespace reference;

using Launcher = decltype(&linear);

struct Shape {
  int64_t t, k, n;
};
const std::vector<Shape> kShapes = {{1, 1, 1},     {1, 7, 33},    {2, 33, 7},     {3, 16, 5},
                                    {4, 31, 6},    {5, 64, 70},   {7, 1, 3},      {16, 130, 49},
                                    {12, 1025, 9}, {16, 512, 33}, {33, 100, 9},   {100, 48, 66},
                                    {97, 17, 1},   {22, 900, 40}, {17, 1024, 130}};

// x in the type that tensor cores multiply; saturating where that is f16.
double rounded(double x, DType type) {
  if (type == DType::F32 || x == 0) return x;
  const int bits = type == DType::BF16 ? 8 : 11, least = type == DType::BF16 ? -125 : -13;
  int exponent = 0;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, least) - bits);
  const double value = std::nearbyint(x / unit) * unit;
  return type == DType::BF16 ? value : std::max(-65504.0, std::min(65504.0, value));
}
// What many rows meet weights of a type in.
DType operand_type(DType weights, bool tensor) {
  return !tensor ? DType::F32 : weights == DType::I8 ? DType::F16 : weights;
}

void expect_product(OnCuda& on, Launcher launcher, const Shape& s, DType type, DType operand,
                    int64_t stride = 0, float x_scale = 1) {
  SCOPED_TRACE(std::string(dtype_name(type)) + " T=" + std::to_string(s.t) +
               " K=" + std::to_string(s.k) + " N=" + std::to_string(s.n));
  if (stride == 0) stride = s.k;
  const Weights w(type, s.n, s.k, 1);
  Floats x = normal((s.t - 1) * stride + s.k, 2);
  for (float& v : x) v *= x_scale;
  const Floats bias = normal(s.n, 3), add = normal(s.t * s.n, 4);
  float* const out = on.room(s.t * s.n);
  const Matrix m = on.put(w.matrix);
  const ConstView rows = {on.put(x), s.t, s.k, stride}, added = view(on.put(add), s.t, s.n);
  const float* const b = on.put(bias);
  on.run(
      [&](Stream& stream) { launcher(stream, view(out, s.t, s.n), rows, m, b, s.n, added, {}); });
  const Floats y = on.get(out, s.t * s.n);
  for (int64_t t = 0; t < s.t; ++t)
    for (int64_t n = 0; n < s.n; ++n) {
      Sum sum;
      for (int64_t k = 0; k < s.k; ++k)
        sum.add(rounded(static_cast<double>(x[static_cast<size_t>(t * stride + k)]), operand) *
                w.values[static_cast<size_t>(n * s.k + k)]);
      sum.add(static_cast<double>(bias[static_cast<size_t>(n)]));
      sum.add(static_cast<double>(add[static_cast<size_t>(t * s.n + n)]));
      // One product after the other, at worst.
      ASSERT_NEAR(y[static_cast<size_t>(t * s.n + n)], sum.value,
                  (static_cast<double>(s.k) + 16) * kRoundoff * sum.magnitude)
          << "row " << t << " output " << n;
    }
}

class CudaLinear : public testing::Test {
 protected:
  void SetUp() override { set_cublaslt_library(""); }
};

TEST_F(CudaLinear, TilesEqualDoublePrecisionOnTensorCores) {
  OnCuda on(9, 0, 40);  // K is cut
  for (const DType type : weight_types())
    for (const Shape& s : kShapes)
      expect_product(on, linear_tile, s, type, operand_type(type, true));
}

TEST_F(CudaLinear, Bf16IsMultipliedInF32BeforeCapability8) {
  OnCuda on(7, 5, 4);
  for (const DType type : weight_types())
    for (const Shape& s : {Shape{17, 24, 9}, Shape{40, 131, 70}})
      expect_product(on, linear, s, type, operand_type(type, type != DType::BF16));
}

TEST_F(CudaLinear, LargeTilesEqualDoublePrecision) {
  OnCuda on(8, 9, 2);
  for (const DType type : weight_types())
    for (const int64_t k : {72, 71})
      expect_product(on, linear, {150, k, 200}, type, operand_type(type, true));
}

TEST_F(CudaLinear, RowsMayOverlapInEveryKernel) {
  OnCuda on(8, 0, 4);
  for (const DType type : weight_types())
    for (const int64_t k : {24, 29})
      for (const int64_t stride : {1, 8, 30, 40})
        for (const int64_t t : {5, 20})
          expect_product(on, linear, {t, k, 5}, type, operand_type(type, t > kFewRows), stride);
}

TEST_F(CudaLinear, NumbersBeyondF16Saturate) {
  OnCuda on(8, 9, 4);
  for (const DType type : {DType::F16, DType::I8})
    expect_product(on, linear, {20, 40, 9}, type, DType::F16, 0, 3e5f);
}

// Nor does a row's place, nor how it is aligned.
TEST_F(CudaLinear, BitsOfFewRowsDependOnNothingElse) {
  OnCuda on(9, 0, 4);
  const int64_t n = 11, most = kFewRows;
  for (const int64_t k : {520, 523})
    for (const DType type : weight_types()) {
      const Weights w(type, n, k, 7);
      const Matrix m = on.put(w.matrix);
      const Floats packed = normal(most * k, 5);
      Floats apart(static_cast<size_t>(most * (k + 1)));
      for (int64_t t = 0; t < most; ++t)
        std::copy_n(packed.begin() + t * k, k, apart.begin() + t * (k + 1));
      const ConstView x = view(on.put(packed), most, k), gaps = {on.put(apart), most, k, k + 1};
      const float* const gamma = on.put(normal(k, 8));
      const float* const beta = on.put(normal(k, 9));
      float* const out = on.room(most * n);
      for (const Fused& fused : {Fused{}, Fused{gamma, nullptr}, Fused{gamma, beta, true}}) {
        const auto product = [&](ConstView rows) {
          on.run([&](Stream& stream) {
            linear(stream, view(out, rows.rows, n), rows, m, nullptr, n, {}, fused);
          });
          return on.get(out, rows.rows * n);
        };
        const Floats whole = product(x);
        for (const int64_t count : {1, 2, 3, 4, 5, 7, 8, 9, 15})
          for (const ConstView rows : {x, gaps}) {
            const int64_t first = most - count;
            const Floats part = product(rows.slice(first, count));
            ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * n, part.size() * 4))
                << dtype_name(type) << " K=" << k << ", " << count << " rows of stride "
                << rows.stride;
          }
      }
    }
}

// K is long enough to be cut, and the whole has enough rows for large tiles.
TEST_F(CudaLinear, RowsOfConvolutionsHaveTheSameBitsInChunksOfAnyLength) {
  OnCuda on(8, 9, 4);
  const int64_t t = 140, in = 80, outs = 140, kernel = 7, history = kernel - 1;
  const Weights w(DType::F32, outs, kernel * in, 67);
  const Matrix m = on.put(w.matrix);
  const float* const x = on.put(normal((history + t) * in, 68));
  const float* const bias = on.put(normal(outs, 69));
  float* const out = on.room(t * outs);
  const auto chunk = [&](int64_t first, int64_t rows) {
    on.run([&](Stream& stream) {
      conv1d(stream, view(out, rows, outs), {x + (history + first) * in, rows, in, in}, m, bias,
             kernel, 1);
    });
    return on.get(out, rows * outs);
  };
  const Floats whole = chunk(0, t);
  for (int64_t first = 0; first < t; first += 33) {
    const Floats part = chunk(first, std::min<int64_t>(33, t - first));
    ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * outs, part.size() * 4)) << first;
  }
}

}  // namespace
}  // namespace barkrt::cuda
