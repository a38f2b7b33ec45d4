// roofs.h: what this machine can do at best, measured in the same run as what is compared with it.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor.h"

namespace barkrt::bench {

// Rates over all threads. 0: the processor lacks the instruction.
struct Roofs {
  struct Read {
    double bytes;  // working set
    double bytes_per_s;
  };
  int threads = 0;
  std::vector<Read> reads;  // streaming reads, by growing working set
  double f32 = 0;           // fused multiply-adds of the widest vectors, FLOP/s
  double bf16 = 0;          // vdpbf16ps, FLOP/s
  double i8 = 0;            // vpdpbusd, OP/s

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

void print_roofs(const Roofs& roofs);

}  // namespace barkrt::bench
