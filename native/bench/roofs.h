// roofs.h: what this machine can do at best, measured in the same run as what is compared with it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor.h"

namespace barkrt::bench {

// On emulated devices the benchmarks are tried, with little work: their numbers mean nothing.
#ifdef BARKRT_EMULATION
constexpr bool kTrial = true;
#else
constexpr bool kTrial = false;
#endif

// Rates over all threads, or of a whole device. 0: it lacks the instruction.
struct Roofs {
  struct Read {
    double bytes;  // working set
    double bytes_per_s;
  };
  std::string device = "cpu";
  int threads = 0;          // of the CPU
  std::vector<Read> reads;  // streaming reads, by growing working set
  double f32 = 0;           // fused multiply-adds of the widest vectors, FLOP/s
  double f16 = 0;           // products of halves (tensor cores), FLOP/s
  double bf16 = 0;          // vdpbf16ps, or tensor cores, FLOP/s
  double i8 = 0;            // vpdpbusd; tensor cores: as f16, OP/s

  // Bytes per second of a working set read again and again, between the sizes measured.
  double read(double working_set_bytes) const;
  // Operations per second of the fastest instruction for weights of this type.
  double peak(DType type) const;
  // Takes over the higher one of each pair.
  void raise_to(const Roofs& other);
};

// Takes about two seconds. Every rate is the best of some repetitions: what other programs take
// only ever lowers it.
Roofs measure_roofs(int threads);
// The same of a device; threads are those of the CPU, device 0. Throws Unsupported in a build
// without CUDA.
Roofs measure_roofs(int device, int threads);

void print_roofs(const Roofs& roofs);

}  // namespace barkrt::bench
