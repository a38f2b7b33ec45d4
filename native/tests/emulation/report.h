// report.h: where detectors leave what they found; read through emulation.h.
#pragma once

#include <string>

namespace emulation {

void report(const std::string& text);

}  // namespace emulation
