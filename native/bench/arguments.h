// arguments.h: the command line that the benchmarks share.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace barkrt::bench {

// --json=FILE, --device=N (an index as barkrt_device_describe has it; 0, the CPU, by default) and
// --kv=i8 and --isa=NAME (of make_backend; bench_speech's) anywhere; the rest in order.
struct Arguments {
  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i)
      if (std::strncmp(argv[i], "--json=", 7) == 0)
        json = argv[i] + 7;
      else if (std::strncmp(argv[i], "--device=", 9) == 0)
        device = std::atoi(argv[i] + 9);
      else if (std::strcmp(argv[i], "--kv=i8") == 0)
        kv_i8 = true;
      else if (std::strncmp(argv[i], "--isa=", 6) == 0)
        isa = argv[i] + 6;
      else
        rest.push_back(argv[i]);
  }
  // Number i of the rest, or what stands for it.
  int64_t number(size_t i, int64_t otherwise) const {
    return i < rest.size() ? std::atoll(rest[i]) : otherwise;
  }

  const char* json = nullptr;  // NULL: none
  int device = 0;
  bool kv_i8 = false;
  const char* isa = "";  // the best
  std::vector<const char*> rest;
};

}  // namespace barkrt::bench
