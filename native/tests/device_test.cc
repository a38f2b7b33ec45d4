// device_test.cc: what the machine says about itself, and the choice of kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "cpu/cpu_backend.h"
#include "error.h"
#include "reference.h"

namespace barkrt {
namespace {

TEST(Devices, FirstOneIsTheCpu) {
  ASSERT_GE(device_count(), 1);
  const DeviceDescription cpu = describe_device(0);
  EXPECT_EQ(cpu.id, "cpu");
  EXPECT_EQ(cpu.kind, "cpu");
  EXPECT_FALSE(cpu.name.empty());
  EXPECT_EQ(cpu.name.find('\n'), std::string::npos);
  EXPECT_GE(cpu.n_cores, 1);
  EXPECT_GT(cpu.total_bytes, 0);
  // The detail names the kernels that run.
  EXPECT_EQ(cpu.detail.find(cpu_instruction_sets().front()), 0u) << cpu.detail;
}

TEST(Devices, MemoryIsWithinTheMachine) {
  int64_t free_bytes = 0, total_bytes = 0;
  device_memory(0, &free_bytes, &total_bytes);
  EXPECT_GT(free_bytes, 0);
  EXPECT_LE(free_bytes, total_bytes);
}

TEST(Devices, IndexOutOfRangeIsNotFound) {
  for (const int index : {-1, device_count(), 1000}) {
    try {
      describe_device(index);
      ADD_FAILURE() << index;
    } catch (const Error& e) {
      EXPECT_EQ(e.status(), Status::NotFound);
    }
    EXPECT_THROW(make_backend(index, 1), Error);
  }
}

TEST(InstructionSets, GenericIsAlwaysThere) {
  EXPECT_EQ(cpu_instruction_sets().back(), "generic");
  EXPECT_EQ(make_cpu_backend(1, "generic")->device(), "cpu");
}

TEST(InstructionSets, UnknownNameIsUnsupported) {
  try {
    make_cpu_backend(1, "mmx");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::Unsupported);
  }
}

class Sample : public reference::EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(Sample);

TEST_P(Sample, RowsAreDrawnEachWithItsOwnParameters) {
  const int64_t rows = 50, n = 37;
  const reference::Floats logits = reference::normal(rows * n, 81);
  std::vector<SampleParams> params(static_cast<size_t>(rows));
  for (int64_t t = 0; t < rows; ++t) {
    params[static_cast<size_t>(t)].temperature = static_cast<float>(t % 3);
    params[static_cast<size_t>(t)].coin = random_uniform(1, 0, 0, static_cast<uint32_t>(t));
  }
  std::vector<int32_t> ids(static_cast<size_t>(rows), -1);
  std::vector<float> scratch(static_cast<size_t>(2 * n));
  backend->sample(ids.data(), reference::read(logits, rows, n), params.data());
  for (int64_t t = 0; t < rows; ++t)
    EXPECT_EQ(ids[static_cast<size_t>(t)],
              sample_row(logits.data() + t * n, n, params[static_cast<size_t>(t)], scratch.data()));
}

TEST_P(Sample, ErrorOfARowReachesTheCaller) {
  reference::Floats logits = reference::normal(20 * 5, 82);
  logits[63] = NAN;
  const std::vector<SampleParams> params(20);
  std::vector<int32_t> ids(20);
  EXPECT_THROW(backend->sample(ids.data(), reference::read(logits, 20, 5), params.data()), Error);
}

}  // namespace
}  // namespace barkrt
