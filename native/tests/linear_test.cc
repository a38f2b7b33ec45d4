// linear_test.cc: matrix products of every weight type against double precision.
#include <algorithm>

#include "error.h"
#include "reference.h"

namespace barkrt {
namespace {

using namespace reference;

class Linear : public EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(Linear);
BARKRT_IMITATED_AMX(Linear);

struct Shape {
  int64_t t, k, n;
};

// The next larger shape that weights of this type may have.
Shape fit(DType type, Shape s) {
  if (!has_tiles(type)) return s;
  return {s.t, (s.k + kTileCols - 1) / kTileCols * kTileCols,
          (s.n + kTileRows - 1) / kTileRows * kTileRows};
}

// x as the instruction set's products with weights of this type take it, and how many roundings a
// sum of k of them may then see.
struct Operand {
  Doubles x;
  double roundings;
};

// q * max|x| / 127 over each block of 64, q whole numbers.
Doubles in_8_bits(const Floats& x, int64_t k) {
  Doubles out;
  for (int64_t row = 0; row < static_cast<int64_t>(x.size()); row += k)
    for (int64_t b = 0; b < k; b += 64) {
      const auto first = x.begin() + row + b, last = first + std::min<int64_t>(64, k - b);
      float top = 0;
      for (auto v = first; v != last; ++v) top = std::max(top, std::fabs(*v));
      const float inverse = top > 0 ? 127.0f / top : 0.0f, scale = top / 127.0f;
      for (auto v = first; v != last; ++v)
        out.push_back(static_cast<double>(scale) *
                      static_cast<double>(std::nearbyint(*v * inverse)));
    }
  return out;
}

// Rounded to eight significant bits, ties to even.
Doubles in_bf16(const Floats& x) {
  Doubles out;
  for (const float v : x) {
    int exponent = 0;
    const double fraction = std::frexp(static_cast<double>(v), &exponent);
    out.push_back(std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8));
  }
  return out;
}

// Rounded to a half, to nearest even; the largest half instead of infinity.
Doubles in_f16(const Floats& x) {
  Doubles out;
  for (const float v : x) {
    int exponent = 0;
    std::frexp(v, &exponent);
    const int unit = std::max(exponent - 11, -24);
    const double rounded =
        std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(v), -unit)), unit);
    out.push_back(std::clamp(rounded, -65504.0, 65504.0));
  }
  return out;
}

// Many rows of 16- and 8-bit weights are products of 16-bit numbers, summed one after the other.
Operand cuda_operand(const Floats& x, int64_t k, DType type) {
  const bool few = static_cast<int64_t>(x.size()) / k <= 16;
  if (few || type == DType::F32) return {Doubles(x.begin(), x.end()), static_cast<double>(k)};
  return {type == DType::BF16 ? in_bf16(x) : in_f16(x), static_cast<double>(k)};
}

bool multiplies_pairs(const std::string& isa) {
  return isa == "avx512_bf16" || isa == "avx512_amx" || isa == "imitated_amx";
}
bool multiplies_bytes(const std::string& isa) {
  return isa == "avx2_vnni" || isa == "avx512_vnni" || multiplies_pairs(isa);
}

Operand operand(const std::string& isa, const Floats& x, int64_t k, DType type) {
  if (isa == "cuda") return cuda_operand(x, k, type);
  const bool bf16 = multiplies_pairs(isa), vnni = multiplies_bytes(isa);
  // Exact within a block, then a product and an addition rounded together.
  if ((type == DType::I8 || type == DType::I8Tiles) && vnni)
    return {in_8_bits(x, k), static_cast<double>(k / 64 + 1)};
  // Exact within half a block, then two products and two additions.
  if (type == DType::I4 && vnni) return {in_8_bits(x, k), static_cast<double>(k / 64 + 3)};
  // One product after the other.
  if (type == DType::BF16 && bf16) return {in_bf16(x), static_cast<double>(k)};
  return {Doubles(x.begin(), x.end()), dot_roundings(k)};
}

void expect_product(Backend& backend, const std::string& isa, const Shape& shape, DType type) {
  const Shape s = fit(type, shape);
  SCOPED_TRACE(std::string(dtype_name(type)) + " T=" + std::to_string(s.t) +
               " K=" + std::to_string(s.k) + " N=" + std::to_string(s.n));
  const Weights w(type, s.n, s.k, 1);
  const Floats x = normal(s.t * s.k, 2), bias = normal(s.n, 3), add = normal(s.t * s.n, 4);
  const Operand seen = operand(isa, x, s.k, type);
  Floats out(add.size(), NAN);
  backend.linear(view(out.data(), s.t, s.n), read(x, s.t, s.k), w.matrix, bias.data(),
                 read(add, s.t, s.n));
  for (int64_t t = 0; t < s.t; ++t)
    for (int64_t n = 0; n < s.n; ++n) {
      Sum sum;
      for (int64_t k = 0; k < s.k; ++k)
        sum.add(seen.x[static_cast<size_t>(t * s.k + k)] *
                w.values[static_cast<size_t>(n * s.k + k)]);
      sum.add(static_cast<double>(bias[static_cast<size_t>(n)]));
      sum.add(static_cast<double>(add[static_cast<size_t>(t * s.n + n)]));
      ASSERT_NEAR(out[static_cast<size_t>(t * s.n + n)], sum.value,
                  (seen.roundings + 16) * kRoundoff * sum.magnitude)
          << "row " << t << " output " << n;
    }
}

TEST_P(Linear, EqualsDoublePrecisionAtOddSizes) {
  for (const DType type : product_types())
    for (const Shape& s : {Shape{1, 1, 1}, Shape{1, 7, 33}, Shape{2, 33, 7}, Shape{3, 16, 5},
                           Shape{4, 31, 6}, Shape{5, 64, 70}, Shape{7, 1, 3}, Shape{33, 100, 9},
                           Shape{100, 48, 66}, Shape{97, 17, 1}, Shape{29, 130, 49}})
      expect_product(*backend, GetParam(), s, type);
}

TEST_P(Linear, EqualsDoublePrecisionAcrossChunksOfK) {
  for (const DType type : product_types())
    for (const Shape& s : {Shape{1, 1023, 5}, Shape{1, 1024, 5}, Shape{5, 1025, 6},
                           Shape{6, 3072, 9}, Shape{1, 2055, 130}})
      expect_product(*backend, GetParam(), s, type);
}

// What cannot be rounded to fewer bits does not pass for a number.
TEST_P(Linear, NotANumberStaysNotANumber) {
  for (const DType type : product_types())
    for (const float strange : {NAN, INFINITY}) {
      const auto [t, k, n] = fit(type, {1, 130, 3});
      const Weights w(type, n, k, 19);
      Floats x = normal(k, 20), out(static_cast<size_t>(n));
      x[77] = strange;
      backend->linear(view(out.data(), t, n), read(x, t, k), w.matrix, nullptr, {});
      for (const float y : out) EXPECT_FALSE(std::isfinite(y)) << dtype_name(type);
    }
}

// T rows at once, in any company, give each row the bits it gets alone.
TEST_P(Linear, RowBitsDoNotDependOnNeighbours) {
  for (const DType type : product_types()) {
    const auto [most, k, n] = fit(type, {std::min<int64_t>(101, rows_of_equal_bits()), 1100, 37});
    const Floats x = normal(most * k, 5), bias = normal(n, 6);
    const Weights w(type, n, k, 7);
    Floats whole(static_cast<size_t>(most * n));
    backend->linear(view(whole.data(), most, n), read(x, most, k), w.matrix, bias.data(), {});
    for (const int64_t count : {1, 2, 3, 4, 5, 13, 16, 50}) {
      Floats part(static_cast<size_t>(count * n));
      for (int64_t first = 0; first + count <= most; first += count) {
        backend->linear(view(part.data(), count, n), read(x, most, k).slice(first, count), w.matrix,
                        bias.data(), {});
        ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * n, part.size() * 4))
            << dtype_name(type) << " rows " << first << " +" << count;
      }
    }
  }
}

TEST_P(Linear, BitsDoNotDependOnThreads) {
  for (const DType type : product_types())
    for (const Shape& shape : {Shape{1, 300, 1000}, Shape{200, 96, 150}}) {
      const Shape s = fit(type, shape);
      const Weights w(type, s.n, s.k, 8);
      const Floats x = normal(s.t * s.k, 9);
      Floats first;
      for (const int threads : {1, 2, 3, 8}) {
        Floats out(static_cast<size_t>(s.t * s.n));
        with_threads(threads)->linear(view(out.data(), s.t, s.n), read(x, s.t, s.k), w.matrix,
                                      nullptr, {});
        if (first.empty()) first = out;
        EXPECT_EQ(0, std::memcmp(first.data(), out.data(), out.size() * 4)) << threads;
      }
    }
}

// A slice of a head's rows gives the same bits as the whole head.
TEST_P(Linear, OutputBitsDoNotDependOnOtherOutputs) {
  for (const DType type : product_types()) {
    const auto [t, k, n] = fit(type, {1, 77, 50});
    const int64_t first = has_tiles(type) ? 16 : 13, count = type == DType::I4 ? 32 : 20;
    const Weights w(type, n, k, 10);
    const Floats x = normal(k, 11);
    Floats whole(static_cast<size_t>(n)), part(static_cast<size_t>(count));
    backend->linear(view(whole.data(), t, n), read(x, t, k), w.matrix, nullptr, {});
    backend->linear(view(part.data(), t, count), read(x, t, k), w.matrix.slice(first, count),
                    nullptr, {});
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first)) << dtype_name(type);
  }
}

TEST_P(Linear, AddMayBeTheOutput) {
  const int64_t t = 9, k = 40, n = 12;
  const Weights w(DType::F32, n, k, 12);
  const Floats x = normal(t * k, 13), residual = normal(t * n, 14);
  Floats apart(residual.size()), in_place = residual;
  backend->linear(view(apart.data(), t, n), read(x, t, k), w.matrix, nullptr, read(residual, t, n));
  const View y = view(in_place.data(), t, n);
  backend->linear(y, read(x, t, k), w.matrix, nullptr, y);
  EXPECT_EQ(apart, in_place);
}

// A stride below the width overlaps the rows, one above leaves gaps; both read what they should.
TEST_P(Linear, RowsMayOverlapOrHaveGaps) {
  const int64_t t = 20, k = 24, n = 5;
  const Weights w(DType::F32, n, k, 15);
  for (const int64_t stride : {int64_t{1}, int64_t{8}, int64_t{40}}) {
    const Floats x = normal(t * 40, 16);
    Floats packed, a(static_cast<size_t>(t * n)), b(static_cast<size_t>(t * (n + 3)), -1.0f);
    for (int64_t r = 0; r < t; ++r)
      packed.insert(packed.end(), x.begin() + r * stride, x.begin() + r * stride + k);
    backend->linear(view(a.data(), t, n), read(packed, t, k), w.matrix, nullptr, {});
    backend->linear({b.data(), t, n, n + 3}, {x.data(), t, k, stride}, w.matrix, nullptr, {});
    for (int64_t r = 0; r < t; ++r) {
      EXPECT_TRUE(std::equal(a.begin() + r * n, a.begin() + (r + 1) * n, b.begin() + r * (n + 3)));
      EXPECT_EQ(b[static_cast<size_t>(r * (n + 3) + n)], -1.0f) << "wrote into the gap";
    }
  }
}

// The norm of a product's rows is the norm of its own, and what is read next changes nothing.
TEST_P(Linear, FusedNormEqualsNormThenProduct) {
  for (const DType type : product_types())
    for (const Shape& shape : {Shape{1, 7, 33}, Shape{1, 768, 70}, Shape{3, 130, 9},
                               Shape{22, 900, 40}, Shape{30, 65, 34}, Shape{100, 48, 66}}) {
      const Shape s = fit(type, shape);
      const Weights w(type, s.n, s.k, 21);
      const Floats x = normal(s.t * s.k, 22), gamma = normal(s.k, 23), beta = normal(s.k, 24);
      for (const float* shift : {beta.data(), static_cast<const float*>(nullptr)}) {
        Floats h(x.size()), apart(static_cast<size_t>(s.t * s.n)), fused(apart.size());
        backend->layernorm(view(h.data(), s.t, s.k), read(x, s.t, s.k), gamma.data(), shift);
        backend->linear(view(apart.data(), s.t, s.n), read(h, s.t, s.k), w.matrix, nullptr, {});
        backend->linear(view(fused.data(), s.t, s.n), read(x, s.t, s.k), w.matrix, nullptr, {},
                        {gamma.data(), shift, false, &w.matrix});
        EXPECT_EQ(0, std::memcmp(apart.data(), fused.data(), apart.size() * 4))
            << dtype_name(type) << " T=" << s.t << " K=" << s.k;
      }
    }
}

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

// Products by one number of one row: numbers around zero and far out, where exponentials end.
TEST_P(Linear, FusedGeluIsExact) {
  Floats x = {0.0f,   -0.0f, 1e-30f, -1e-30f, 1e-8f,   -1e-8f, 87.0f, -87.0f,
              -87.4f, 88.0f, -88.0f, 100.0f,  -100.0f, 1e30f,  -1e30f};
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) * 0.00491f);
  const float one = 1;
  const auto n = static_cast<int64_t>(x.size());
  Floats y(x.size());
  backend->linear(view(y.data(), 1, n), view(&one, 1, 1), {x.data(), DType::F32, n, 1, nullptr},
                  nullptr, {}, {nullptr, nullptr, true, nullptr});
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = gelu(static_cast<double>(x[i]));
    ASSERT_NEAR(y[i], expected, 1e-6 * std::fabs(expected) + 1e-7) << "at " << x[i];
  }
}

// Of every output, in the bits that it has in any company.
TEST_P(Linear, FusedGeluMeetsEveryOutput) {
  for (const DType type : product_types()) {
    const auto [most, k, n] = fit(type, {std::min<int64_t>(100, rows_of_equal_bits()), 70, 101});
    const Floats x = normal(most * k, 25), bias = normal(n, 26);
    const Weights w(type, n, k, 27);
    Floats plain(static_cast<size_t>(most * n)), whole(plain.size());
    backend->linear(view(plain.data(), most, n), read(x, most, k), w.matrix, bias.data(), {});
    const Fused fused = {nullptr, nullptr, true, nullptr};
    backend->linear(view(whole.data(), most, n), read(x, most, k), w.matrix, bias.data(), {},
                    fused);
    for (size_t i = 0; i < plain.size(); ++i) {
      const double expected = gelu(static_cast<double>(plain[i]));
      ASSERT_NEAR(whole[i], expected, 1e-6 * std::fabs(expected) + 1e-7) << dtype_name(type);
    }
    const int64_t first = 2 * most / 5;
    for (const int64_t count : {int64_t{1}, int64_t{3}, most / 4}) {
      Floats part(static_cast<size_t>(count * n));
      backend->linear(view(part.data(), count, n), read(x, most, k).slice(first, count), w.matrix,
                      bias.data(), {}, fused);
      ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * n, part.size() * 4));
    }
  }
}

// 127 divided by the largest of them is infinite; beside one that is no number at all.
TEST_P(Linear, SmallestNumbersGiveAlmostZero) {
  for (const float tiny : {1e-45f, 1e-40f, 3e-38f, 1e-37f})
    for (const bool broken : {false, true}) {
      for (const DType type : product_types()) {
        const auto [most, k, n] = fit(type, {16, 128, 33});
        Floats x(static_cast<size_t>(most * k), tiny);
        for (int64_t t = 0; broken && t < most; ++t) x[static_cast<size_t>(t * k + 70)] = NAN;
        const Weights w(type, n, k, 28);
        for (const int64_t t : {1, 16}) {
          Floats out(static_cast<size_t>(t * n));
          backend->linear(view(out.data(), t, n), read(x, t, k), w.matrix, nullptr, {});
          for (const float y : out)
            ASSERT_TRUE(broken ? std::isnan(y) : std::fabs(y) < 1e-30f) << dtype_name(type) << y;
        }
      }
    }
}

// That the instruction sets that are usable give the same bits.
void expect_same_bits(DType type, const std::vector<std::string>& isas) {
  for (const Shape& shape : {Shape{1, 768, 70}, Shape{1, 50, 3}, Shape{2, 130, 33},
                             Shape{16, 200, 50}, Shape{23, 64, 16}, Shape{24, 96, 47},
                             Shape{31, 3072, 20}, Shape{65, 1600, 129}, Shape{300, 140, 37}}) {
    const Shape s = fit(type, shape);
    const Weights w(type, s.n, s.k, 29);
    Floats x = normal(s.t * s.k, 30), first;
    x[0] = 1e-39f;
    const Floats bias = normal(s.n, 31), add = normal(s.t * s.n, 32);
    for (const std::string& isa : isas) {
      Floats out(add.size());
      make_table_backend(2, isa)->linear(view(out.data(), s.t, s.n), read(x, s.t, s.k), w.matrix,
                                         bias.data(), read(add, s.t, s.n));
      if (first.empty()) first = out;
      EXPECT_EQ(0, std::memcmp(first.data(), out.data(), out.size() * 4))
          << isas[0] << " and " << isa << " T=" << s.t;
    }
  }
}

// Whatever multiplies bytes rounds and adds alike, in vectors of every width and in tiles.
TEST(LinearTables, ProductsOfBytesHaveTheSameBitsInAll) {
  std::vector<std::string> isas;
  for (const char* isa : {"avx2_vnni", "avx512_vnni", "avx512_bf16", "avx512_amx", "imitated_amx"})
    if (is_usable(isa)) isas.emplace_back(isa);
  if (isas.size() < 2) GTEST_SKIP() << "fewer than two instruction sets that multiply bytes";
  for (const DType type : {DType::I8, DType::I8Tiles, DType::I4}) expect_same_bits(type, isas);
}

// Where the numbers lie changes no bit where bytes are multiplied.
TEST_P(Linear, BytesInTilesGiveTheBitsOfRows) {
  if (!multiplies_bytes(GetParam())) GTEST_SKIP() << "f32 sums have another order in tiles";
  for (const int64_t t : {1, 2, 7, 16, 24, 25, 100})
    for (const int64_t k : {64, 768, 1088}) {
      const int64_t n = 80, outputs = 69;
      const Weights rows(DType::I8, n, k, 33), tiles(DType::I8Tiles, n, k, 33);
      ASSERT_EQ(rows.values, tiles.values);
      const Floats x = normal(t * k, 34);
      Floats by_rows(static_cast<size_t>(t * outputs)), by_tiles(by_rows.size());
      backend->linear(view(by_rows.data(), t, outputs), read(x, t, k),
                      rows.matrix.slice(0, outputs), nullptr, {});
      backend->linear(view(by_tiles.data(), t, outputs), read(x, t, k),
                      tiles.matrix.slice(0, outputs), nullptr, {});
      EXPECT_EQ(0, std::memcmp(by_rows.data(), by_tiles.data(), by_rows.size() * 4))
          << t << " " << k;
    }
}

TEST(LinearTables, TilesAreWhatTheirImitationIs) {
  if (!is_usable("avx512_amx")) GTEST_SKIP() << "this processor cannot run avx512_amx";
  for (const DType type : {DType::BF16, DType::I8Tiles})
    expect_same_bits(type, {"avx512_amx", "imitated_amx"});
}

TEST_P(Linear, NoRowsIsNoWork) {
  const Weights w(DType::F32, 3, 4, 17);
  backend->linear(view(static_cast<float*>(nullptr), 0, 3),
                  view(static_cast<const float*>(nullptr), 0, 4), w.matrix, nullptr, {});
}

TEST(LinearChecks, MismatchedShapesAreInternalErrors) {
  const auto backend = make_cpu_backend(1);
  const Weights w(DType::F32, 3, 4, 18);
  Floats x(8), out(8);
  try {
    backend->linear(view(out.data(), 1, 3), read(x, 1, 5), w.matrix, nullptr, {});
    FAIL() << "accepted 5 columns for 4";
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Internal);
  }
}

}  // namespace
}  // namespace barkrt
