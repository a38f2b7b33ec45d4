// fail_on_reports.cc: linked into every test on emulated devices: what a detector reports fails the
// test that runs.
#include <gtest/gtest.h>

#include "emulation.h"

namespace {

class FailOnReports : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo&) override {
    for (const std::string& text : emulation::take_reports())
      ADD_FAILURE() << "emulated device: " << text;
  }
};

const bool listening = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new FailOnReports);
  return true;
}();

}  // namespace
