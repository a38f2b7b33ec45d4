// reference.h: the ops once more, in double precision and in the plainest form, and what the op
// tests share: backends of every instruction set and device, weights of every type, random numbers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend.h"
#include "cpu/cpu_backend.h"
#include "host_views.h"

namespace barkrt {
#if defined(BARKRT_IMITATED_TILES)
extern const Kernels kKernelsImitatedAmx;  // kernels_avx512.cc with amx_imitation.h
#endif
}  // namespace barkrt

namespace barkrt::reference {

// Unit roundoff of float: one operation's relative error.
constexpr double kRoundoff = 0x1p-24;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline Floats normal(int64_t n, uint32_t seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> distribution;
  Floats values(static_cast<size_t>(n));
  for (float& v : values) v = distribution(bits);
  return values;
}

inline ConstView read(const Floats& v, int64_t rows, int64_t cols) {
  return view(v.data(), rows, cols);
}

// The values of half-precision formats from their definitions.
inline double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
inline double bf16_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float f;
  std::memcpy(&f, &wide, 4);
  return static_cast<double>(f);
}

// A matrix of random values in any storage type, and the same values as doubles.
struct Weights {
  Weights(DType type, int64_t rows, int64_t cols, uint32_t seed)
      : values(Doubles(static_cast<size_t>(rows * cols))) {
    std::mt19937 bits(seed);
    if (type == DType::I4) {
      fill_i4(rows, cols, bits);
      matrix = {data.data(), type, rows, cols, nullptr};
      return;
    }
    std::normal_distribution<float> distribution;
    data.resize(static_cast<size_t>(rows * cols * dtype_bytes(type)));
    for (int64_t r = 0; r < rows; ++r) scale.push_back(0.01f + 0.001f * static_cast<float>(r % 7));
    for (int64_t i = 0; i < rows * cols; ++i) {
      double& value = values[static_cast<size_t>(i)];
      std::byte* to = data.data() + i * dtype_bytes(type);
      if (type == DType::F32) {
        const float f = distribution(bits);
        value = static_cast<double>(f);
        std::memcpy(to, &f, 4);
      } else if (type == DType::I8 || type == DType::I8Tiles) {
        const auto q = static_cast<int8_t>(static_cast<int>(bits() % 255) - 127);
        value = q * static_cast<double>(scale[static_cast<size_t>(i / cols)]);
        data[static_cast<size_t>(type == DType::I8 ? i : in_tiles(i / cols, i % cols, cols))] =
            static_cast<std::byte>(q);
      } else if (type == DType::F16) {  // subnormals too; below 2
        const auto h = static_cast<uint16_t>((bits() & 0x8000) | bits() % 0x4000);
        value = f16_value(h);
        std::memcpy(to, &h, 2);
      } else {  // from 2^-7 to 2
        const auto h = static_cast<uint16_t>((bits() & 0x8000) | (0x3c00 + bits() % 0x400));
        value = bf16_value(h);
        std::memcpy(to, &h, 2);
      }
    }
    const bool scaled = type == DType::I8 || type == DType::I8Tiles;
    matrix = {data.data(), type, rows, cols, scaled ? scale.data() : nullptr};
  }
  Weights(const Weights&) = delete;

  std::vector<std::byte> data;
  Floats scale;
  Doubles values;
  Matrix matrix;

 private:
  // Where the number of a row and column lies in tiles of bytes.
  static int64_t in_tiles(int64_t r, int64_t c, int64_t cols) {
    return r / 16 * 16 * cols + c / 64 * 1024 + c % 64 / 4 * 64 + r % 16 * 4 + c % 4;
  }
  // Any q, and scales of both signs from 2^-7 to 2^-5.
  void fill_i4(int64_t rows, int64_t cols, std::mt19937& bits) {
    data.resize(static_cast<size_t>(matrix_bytes(DType::I4, rows, cols)));
    for (std::byte& b : data) b = static_cast<std::byte>(bits());
    std::byte* tile = data.data();
    for (int64_t row = 0; row < rows; row += kTileRows)
      for (int64_t col = 0; col < cols; col += kTileCols, tile += tile_bytes(DType::I4)) {
        uint16_t scales[2][kTileRows];
        for (auto& group : scales)
          for (uint16_t& s : group)
            s = static_cast<uint16_t>((bits() & 0x8000) | (0x2000 + bits() % 0x800));
        std::memcpy(tile + 512, scales, sizeof scales);
        for (int64_t r = 0; r < kTileRows; ++r)
          for (int64_t c = 0; c < kTileCols; ++c) {
            const int pair = static_cast<int>(tile[c % 32 / 4 * 64 + r * 4 + c % 4]);
            const int q = c < 32 ? pair & 15 : pair >> 4;
            values[static_cast<size_t>((row + r) * cols + col + c)] =
                (q - 8) * f16_value(scales[c / 32][r]);
          }
      }
  }
};

inline const std::vector<DType>& weight_types() {
  static const std::vector<DType> types = {DType::F32, DType::F16, DType::BF16, DType::I8};
  return types;
}

// Exact sum and the sum of magnitudes, which scales rounding errors.
struct Sum {
  double value = 0, magnitude = 0;
  void add(double term) { value += term, magnitude += std::fabs(term); }
};

// Roundings that a float sum of n products in lanes of at least four, in chunks of 1024, may see.
inline double dot_roundings(int64_t n) {
  const double chunk = static_cast<double>(std::min<int64_t>(n, 1024)) / 4;
  return chunk + static_cast<double>(n) / 1024;
}
// What they may lose: each is relative to at most the sum of magnitudes.
inline double dot_bound(const Sum& sum, int64_t n) {
  return (dot_roundings(n) + 16) * kRoundoff * sum.magnitude;
}

// Instruction sets of make_table_backend(): the processor's own, and imitated_amx.
inline bool is_usable(const std::string& isa) {
#if defined(BARKRT_IMITATED_TILES)
  if (isa == "imitated_amx") return is_usable("avx512_bf16");
#endif
  const std::vector<std::string> usable = cpu_instruction_sets();
  return std::find(usable.begin(), usable.end(), isa) != usable.end();
}
inline std::unique_ptr<Backend> make_table_backend(int n_threads, const std::string& isa) {
#if defined(BARKRT_IMITATED_TILES)
  if (isa == "imitated_amx") return std::make_unique<CpuBackend>(n_threads, kKernelsImitatedAmx);
#endif
  return make_cpu_backend(n_threads, isa);
}

// A test of every instruction set this build has and of the first CUDA device; the ones that this
// machine lacks are skipped.
class EveryInstructionSet : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (is_cuda()) {
      if (device_count() == 1) GTEST_SKIP() << "no CUDA device";
    } else if (!is_usable(GetParam())) {
      GTEST_SKIP() << "this processor cannot run " << GetParam();
    }
    backend = with_threads(2);
  }
  static bool is_cuda() { return GetParam() == std::string("cuda"); }
  // Of weights that linear() takes.
  std::vector<DType> product_types() const {
    std::vector<DType> types = weight_types();
    for (const DType type : {DType::I8Tiles, DType::I4})
      if (backend->has_weight_type(type)) types.push_back(type);
    return types;
  }
  static std::unique_ptr<Backend> with_threads(int n) {
    return is_cuda() ? make_host_views(make_backend(1, n)) : make_table_backend(n, GetParam());
  }
  // How many rows of a call have the bits that each has alone (backend.h).
  static int64_t rows_of_equal_bits() { return is_cuda() ? 16 : 1000; }

  std::unique_ptr<Backend> backend;
};

// A test of the CPU's best instruction set, "", and of the first CUDA device, where there is one.
class EveryDevice : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (is_cuda() && device_count() == 1) GTEST_SKIP() << "no CUDA device";
  }
  static bool is_cuda() { return GetParam() == std::string("cuda"); }
  // How much of something a test does: an emulated device takes its time.
  static int64_t on_each(int64_t cpu, int64_t cuda) { return is_cuda() ? cuda : cpu; }
};

}  // namespace barkrt::reference

#define BARKRT_EVERY_DEVICE(suite)                  \
  INSTANTIATE_TEST_SUITE_P(                         \
      Device, suite, ::testing::Values("", "cuda"), \
      [](const auto& instance) { return std::string(*instance.param ? "cuda" : "cpu"); })
#define BARKRT_INSTRUCTION_SETS(where, suite, ...)                       \
  INSTANTIATE_TEST_SUITE_P(where, suite, ::testing::Values(__VA_ARGS__), \
                           [](const auto& instance) { return std::string(instance.param); })
#define BARKRT_EVERY_INSTRUCTION_SET(suite)                                                       \
  BARKRT_INSTRUCTION_SETS(Device, suite, "generic", "avx2", "avx2_vnni", "avx512", "avx512_vnni", \
                          "avx512_bf16", "avx512_amx", "cuda")
// Of ops alone, beside those: a model's backend is one of the processor's.
#define BARKRT_IMITATED_AMX(suite) BARKRT_INSTRUCTION_SETS(Imitated, suite, "imitated_amx")
