// weights.h: a model's weights as the stages read them, and where they lie in its file.
#pragma once

#include <functional>

#include "codec.h"
#include "config.h"
#include "gguf.h"
#include "gpt.h"

namespace barkrt {

struct ModelWeights {
  GptWeights semantic, coarse, fine;
  CodecWeights codec;
};

// Called for each tensor in turn, with what it is but for its data; returns it as the device has
// it.
using PlaceTensor = std::function<Matrix(const GgufTensor& tensor, Matrix matrix)>;

// Finds every tensor the config asks for and checks name, shape and type; BadModel names the one
// that is missing, wrong or not part of the model.
ModelWeights build_weights(const Gguf& gguf, const Config& config, const PlaceTensor& place);

}  // namespace barkrt
