// rowwise_test.cc: embeddings, layer norm and activations against double precision.
#include <algorithm>
#include <functional>

#include "error.h"
#include "reference.h"

namespace barkrt {
namespace {

using namespace reference;

class Rowwise : public EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(Rowwise);

// Many numbers around zero and far out, where exponentials end.
Floats wide_range() {
  Floats x = {0.0f,   -0.0f, 1e-30f, -1e-30f, 1e-8f,   -1e-8f, 87.0f, -87.0f,
              -87.4f, 88.0f, -88.0f, 100.0f,  -100.0f, 1e30f,  -1e30f};
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) * 0.00491f);
  return x;
}

// The error is a few units in the last place also where exp(x) - 1 cancels.
TEST_P(Rowwise, EluIsExact) {
  const Floats x = wide_range();
  Floats y(x.size());
  const auto n = static_cast<int64_t>(x.size());
  backend->elu(view(y.data(), 1, n), read(x, 1, n));
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = static_cast<double>(x[i]);
    const double expected = v > 0 ? v : std::expm1(v);
    ASSERT_NEAR(y[i], expected, 4 * kRoundoff * std::fabs(expected)) << "at " << x[i];
  }
}

TEST_P(Rowwise, EluWorksInPlace) {
  const Floats x = normal(3 * 33, 31);
  Floats apart(x.size()), in_place = x;
  backend->elu(view(apart.data(), 3, 33), read(x, 3, 33));
  const View y = view(in_place.data(), 3, 33);
  backend->elu(y, y);
  EXPECT_EQ(apart, in_place);
}

// An element's bits do not depend on its place in the row or on the row's length.
TEST_P(Rowwise, ActivationBitsDoNotDependOnPlace) {
  const Floats x = normal(50, 32);
  for (const int64_t n : {1, 7, 33, 50}) {
    for (int64_t first = 0; first + n <= 50; first += 5) {
      Floats c(x.begin() + first, x.begin() + first + n), d = x;
      backend->elu(view(c.data(), 1, n), view(c.data(), 1, n));
      backend->elu(view(d.data(), 1, 50), view(d.data(), 1, 50));
      ASSERT_TRUE(std::equal(c.begin(), c.end(), d.begin() + first));
    }
  }
}

TEST_P(Rowwise, LayernormEqualsDoublePrecision) {
  for (const int64_t cols : {1, 7, 33, 768, 1021})
    for (const bool with_beta : {true, false}) {
      const int64_t rows = 5;
      Floats x = normal(rows * cols, 33);
      const Floats gamma = normal(cols, 34), beta = normal(cols, 35);
      for (float& v : x) v = v * 3 + 2;  // a mean to subtract
      Floats y(x.size());
      backend->layernorm(view(y.data(), rows, cols), read(x, rows, cols), gamma.data(),
                         with_beta ? beta.data() : nullptr);
      for (int64_t t = 0; t < rows; ++t) {
        double mean = 0, variance = 0;
        const float* row = x.data() + t * cols;
        for (int64_t c = 0; c < cols; ++c)
          mean += static_cast<double>(row[c]) / static_cast<double>(cols);
        for (int64_t c = 0; c < cols; ++c)
          variance += std::pow(static_cast<double>(row[c]) - mean, 2) / static_cast<double>(cols);
        for (int64_t c = 0; c < cols; ++c) {
          const double g = static_cast<double>(gamma[static_cast<size_t>(c)]);
          double expected = g * (static_cast<double>(row[c]) - mean) / std::sqrt(variance + 1e-5);
          if (with_beta) expected += static_cast<double>(beta[static_cast<size_t>(c)]);
          // One column: the mean is exact, the difference 0. Else mean and variance carry about
          // cols/4 roundoffs of numbers up to 15, over a deviation of 3.
          const double bound = (10 * std::fabs(g) + std::fabs(expected)) *
                               (static_cast<double>(cols) / 4 + 16) * kRoundoff;
          ASSERT_NEAR(y[static_cast<size_t>(t * cols + c)], expected, bound) << cols << " " << c;
        }
      }
    }
}

TEST_P(Rowwise, LayernormRowsAreIndependent) {
  const int64_t rows = 40, cols = 100;
  const Floats x = normal(rows * cols, 36), gamma = normal(cols, 37);
  Floats whole(x.size()), in_place = x, one(static_cast<size_t>(cols));
  backend->layernorm(view(whole.data(), rows, cols), read(x, rows, cols), gamma.data(), nullptr);
  const View y = view(in_place.data(), rows, cols);
  backend->layernorm(y, y, gamma.data(), nullptr);
  EXPECT_EQ(whole, in_place);
  for (int64_t t = 0; t < rows; ++t) {
    backend->layernorm(view(one.data(), 1, cols), read(x, rows, cols).slice(t, 1), gamma.data(),
                       nullptr);
    ASSERT_TRUE(std::equal(one.begin(), one.end(), whole.begin() + t * cols));
  }
}

TEST_P(Rowwise, AddAdds) {
  const Floats x = normal(5 * 33, 38), y = normal(5 * 33, 39);
  Floats out = y;
  backend->add(view(out.data(), 5, 33), read(x, 5, 33));
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(out[i], y[i] + x[i]);
}

TEST_P(Rowwise, EmbedSumsTableRowsAndPositions) {
  const int64_t rows = 9, cols = 33, n_tables = 4;
  std::vector<std::unique_ptr<Weights>> tables;
  std::vector<Matrix> matrices;
  for (const DType type : weight_types()) {
    tables.push_back(std::make_unique<Weights>(type, 11, cols, 40 + static_cast<uint32_t>(type)));
    matrices.push_back(tables.back()->matrix);
  }
  const Weights wpe(DType::F32, 20, cols, 50);
  std::vector<int32_t> ids, pos;
  for (int32_t i = 0; i < n_tables * rows; ++i) ids.push_back((i * 7 + 3) % 13 - 2);
  for (int32_t t = 0; t < rows; ++t) pos.push_back(19 - 2 * t);
  for (int64_t s = 0; s < n_tables; ++s) ids[static_cast<size_t>(s * rows + 4)] = -1;
  for (const bool with_pos : {true, false}) {
    Floats out(static_cast<size_t>(rows * cols), NAN);
    backend->embed(view(out.data(), rows, cols), ids.data(), matrices.data(), n_tables, &wpe.matrix,
                   with_pos ? pos.data() : nullptr);
    for (int64_t t = 0; t < rows; ++t)
      for (int64_t c = 0; c < cols; ++c) {
        Sum sum;
        for (int64_t s = 0; s < n_tables; ++s) {
          const int32_t id = ids[static_cast<size_t>(s * rows + t)];
          if (id >= 0)
            sum.add(tables[static_cast<size_t>(s)]->values[static_cast<size_t>(id * cols + c)]);
        }
        if (with_pos)
          sum.add(wpe.values[static_cast<size_t>(pos[static_cast<size_t>(t)] * cols + c)]);
        ASSERT_NEAR(out[static_cast<size_t>(t * cols + c)], sum.value,
                    5 * kRoundoff * sum.magnitude);
      }
  }
}

TEST_P(Rowwise, EmbedRefusesIdsOutsideTheTable) {
  const Weights table(DType::F32, 3, 4, 51);
  Floats out(4);
  const int32_t id = 3;
  EXPECT_THROW(backend->embed(view(out.data(), 1, 4), &id, &table.matrix, 1, nullptr, nullptr),
               Error);
}

}  // namespace
}  // namespace barkrt
