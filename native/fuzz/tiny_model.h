// tiny_model.h: a whole Bark model of a few kilobytes, every stage and a voice, as seed and sample.
#pragma once

#include "gguf_writer.h"

namespace barkrt::test {

// matrices: of the causal stages, F32, I8, or tiles (one, and I8). Weights are small pseudo-random
// numbers.
GgufWriter tiny_model(DType matrices);

}  // namespace barkrt::test
