// tiny_model.h: a whole Bark model of a few kilobytes, every stage and a voice, as seed and sample.
#pragma once

#include "gguf_writer.h"

namespace barkrt::test {

// `quantized`: I8 matrices in the causal stages. Weights are small pseudo-random numbers.
GgufWriter tiny_model(bool quantized);

}  // namespace barkrt::test
