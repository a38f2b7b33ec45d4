// synthetic.h: Bark models of any shape whose weights are functions of the tensor's name, built in
// memory: no file, no download. The names and scales are those of the reference numbers in
// golden.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config.h"
#include "gguf_writer.h"
#include "model.h"
#include "voice.h"

namespace barkrt::test {

// n values of tensor `hf_name`: offset + scale * v, v in [-1, 1).
std::vector<float> synthetic_values(const std::string& hf_name, int64_t n, double scale,
                                    double offset = 0);

// The shape of golden.h: two layers of 128 channels, Bark's own vocabularies, windows and codec.
Config golden_config();
// Small and odd everywhere: every constant differs from Bark's, biases, three coarse codebooks, two
// dilated residual layers.
Config odd_config();
// As odd_config in size, with Bark's two coarse codebooks and its rates' ratio.
Config small_config();
// small_config with as many channels as 4-bit tiles take.
Config tiled_config();

struct SyntheticOptions {
  DType matrices = DType::F32;  // of tiles where a file may have them, I8 elsewhere
  std::vector<std::pair<std::string, Voice>> voices;
  std::string instruction_set;  // "": the best; "cuda": the first CUDA device
  std::string codec_digest;     // what the file claims; "" leaves the key out
};

// The file's metadata and tensors, apart and together, to be built or damaged first.
GgufWriter synthetic_metadata(const Config& config,
                              const std::vector<std::string>& voice_names = {});
void add_synthetic_tensors(GgufWriter& writer, const Config& config,
                           const SyntheticOptions& options);
GgufWriter synthetic_writer(const Config& config, const SyntheticOptions& options = {});

// A loaded model and the image it uses in place.
struct SyntheticModel {
  std::shared_ptr<Image> image;
  std::shared_ptr<const Model> model;
};
SyntheticModel synthetic_model(const Config& config, int n_threads = 2,
                               const SyntheticOptions& options = {});

// A voice of the given lengths, by the formulas of the reference numbers.
Voice synthetic_voice(const Config& config, int64_t n_semantic, int64_t n_frames);

// The codec's weights in the reference's own layout, weight norm folded, in double precision.
struct FoldedConv {
  std::vector<double> weight;  // [out, in, k], transposed [in, out, k]
  std::vector<double> bias;
};
FoldedConv folded_conv(const std::string& hf_prefix, int64_t dim0, int64_t dim1, int64_t kernel,
                       int64_t n_bias);

}  // namespace barkrt::test
