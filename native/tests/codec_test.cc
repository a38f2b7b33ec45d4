// codec_test.cc: the decoder against a plain double-precision one in the reference's own layout,
// and in chunks against itself.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "error.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

// (channels, length), as the reference has it.
using Signal = std::vector<std::vector<double>>;

Signal zeros(int64_t channels, int64_t length) {
  return Signal(channels, std::vector<double>(length, 0.0));
}

double elu(double x) { return x > 0 ? x : std::expm1(x); }

Signal elu(Signal x) {
  for (auto& row : x)
    for (double& v : row) v = elu(v);
  return x;
}

// EncodecConv1d, stride 1, causal, reflect padding with its short-input rule, weight norm folded.
Signal conv(const Signal& x, const std::string& name, int64_t out, int64_t kernel,
            int64_t dilation) {
  const int64_t in = static_cast<int64_t>(x.size()), n = static_cast<int64_t>(x[0].size());
  const FoldedConv w = folded_conv(name, out, in, kernel, out);
  const int64_t pad = (kernel - 1) * dilation;
  const int64_t extra = n <= pad ? pad - n + 1 : 0;
  Signal padded = zeros(in, pad + n);
  for (int64_t c = 0; c < in; ++c) {
    std::vector<double> extended = x[c];
    extended.resize(n + extra, 0.0);
    for (int64_t t = 0; t < pad; ++t) padded[c][t] = extended[pad - t];
    for (int64_t t = 0; t < n; ++t) padded[c][pad + t] = extended[t];
  }
  Signal y = zeros(out, n);
  for (int64_t o = 0; o < out; ++o)
    for (int64_t t = 0; t < n; ++t) {
      double sum = w.bias[o];
      for (int64_t c = 0; c < in; ++c)
        for (int64_t j = 0; j < kernel; ++j)
          sum += w.weight[(o * in + c) * kernel + j] * padded[c][t + j * dilation];
      y[o][t] = sum;
    }
  return y;
}

// Scatter, then cut kernel - stride samples off the right.
Signal conv_transpose(const Signal& x, const std::string& name, int64_t out, int64_t stride) {
  const int64_t in = static_cast<int64_t>(x.size()), n = static_cast<int64_t>(x[0].size());
  const int64_t kernel = 2 * stride;
  const FoldedConv w = folded_conv(name, in, out, kernel, out);
  Signal full = zeros(out, (n - 1) * stride + kernel);
  for (int64_t c = 0; c < in; ++c)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t t = 0; t < n; ++t)
        for (int64_t j = 0; j < kernel; ++j)
          full[o][t * stride + j] += w.weight[(c * out + o) * kernel + j] * x[c][t];
  for (int64_t o = 0; o < out; ++o) {
    full[o].resize(n * stride);
    for (double& v : full[o]) v += w.bias[o];
  }
  return full;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Signal lstm(const Signal& x, const std::string& name, int64_t n_layer) {
  const int64_t width = static_cast<int64_t>(x.size()), n = static_cast<int64_t>(x[0].size());
  Signal in = x;
  for (int64_t l = 0; l < n_layer; ++l) {
    const std::string s = "_l" + std::to_string(l);
    const int64_t area = 4 * width * width;
    const std::vector<float> ih = synthetic_values(name + "weight_ih" + s, area, 0.0625);
    const std::vector<float> hh = synthetic_values(name + "weight_hh" + s, area, 0.0625);
    const std::vector<float> bi = synthetic_values(name + "bias_ih" + s, 4 * width, 0.0625);
    const std::vector<float> bh = synthetic_values(name + "bias_hh" + s, 4 * width, 0.0625);
    std::vector<double> h(width, 0.0), c(width, 0.0), z(4 * width);
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t r = 0; r < 4 * width; ++r) {
        z[r] = static_cast<double>(bi[r]) + bh[r];
        for (int64_t k = 0; k < width; ++k)
          z[r] += ih[r * width + k] * in[k][t] + hh[r * width + k] * h[k];
      }
      for (int64_t k = 0; k < width; ++k) {
        c[k] = sigmoid(z[width + k]) * c[k] + sigmoid(z[k]) * std::tanh(z[2 * width + k]);
        h[k] = sigmoid(z[3 * width + k]) * std::tanh(c[k]);
      }
      for (int64_t k = 0; k < width; ++k) in[k][t] = h[k];
    }
  }
  for (int64_t k = 0; k < width; ++k)
    for (int64_t t = 0; t < n; ++t) in[k][t] += x[k][t];
  return in;
}

void add(Signal& x, const Signal& y) {
  for (size_t c = 0; c < x.size(); ++c)
    for (size_t t = 0; t < x[c].size(); ++t) x[c][t] += y[c][t];
}

Signal dequantise(const CodecConfig& c, const Codes& codes) {
  Signal z = zeros(c.hidden_size, codes.n_frames);
  for (int64_t q = 0; q < codes.n_codebook; ++q) {
    const std::vector<float> table =
        synthetic_values("codec_model.quantizer.layers." + std::to_string(q) + ".codebook.embed",
                         c.codebook_size * c.hidden_size, 1);
    for (int64_t t = 0; t < codes.n_frames; ++t)
      for (int64_t i = 0; i < c.hidden_size; ++i)
        z[i][t] += table[codes.at(q, t) * c.hidden_size + i];
  }
  return z;
}

std::vector<double> reference_decode(const CodecConfig& c, const Codes& codes) {
  int64_t layer = 0;
  const auto name = [&] { return "codec_model.decoder.layers." + std::to_string(layer++); };
  Signal x = conv(dequantise(c, codes), name() + ".conv", c.width(0), c.kernel_size, 1);
  x = lstm(x, name() + ".lstm.", c.n_lstm_layer);
  for (size_t i = 0; i < c.ratios.size(); ++i) {
    layer++;  // ELU
    const int64_t out = c.width(static_cast<int64_t>(i) + 1);
    x = conv_transpose(elu(x), name() + ".conv", out, c.ratios[i]);
    for (int64_t j = 0; j < c.n_residual_layer; ++j) {
      const std::string block = name();
      Signal y = conv(elu(x), block + ".block.1.conv", out / c.compress, c.residual_kernel_size,
                      c.dilation(j));
      y = conv(elu(y), block + ".block.3.conv", out, 1, 1);
      if (c.conv_shortcut) x = conv(x, block + ".shortcut.conv", out, 1, 1);
      add(x, y);
    }
  }
  layer++;  // ELU
  return conv(elu(x), name() + ".conv", 1, c.last_kernel_size, 1)[0];
}

Codes some_codes(const Config& c, int64_t n_frames) {
  Codes codes{c.fine.n_fine_codebook, n_frames, {}};
  for (int64_t q = 0; q < codes.n_codebook; ++q)
    for (int64_t t = 0; t < n_frames; ++t)
      codes.ids.push_back(
          static_cast<int32_t>((17 * t * t + 41 * t * (q + 1) + 97 * q + 5) % c.codebook_size));
  return codes;
}

// Decodes in chunks of the given sizes; the last one repeats.
std::vector<float> decode(const Model& model, const Codes& codes,
                          const std::vector<int64_t>& chunks) {
  MemoryAccount account;
  const CodecPlan plan = CodecPlan::make(model.config().codec, codes.n_frames);
  const Buffer work(model.backend(), account, Category::Activations, plan.work_bytes());
  const Buffer carry(model.backend(), account, Category::Activations, plan.carry_bytes());
  CodecDecoder decoder(model.backend(), model.config().codec, model.weights().codec, plan,
                       static_cast<std::byte*>(work.data()), static_cast<std::byte*>(carry.data()));
  std::vector<float> pcm(codes.n_frames * model.config().codec.hop_length());
  float* out = pcm.data();
  size_t i = 0;
  for (int64_t done = 0; done < codes.n_frames;) {
    const int64_t n = std::min(chunks[std::min(i++, chunks.size() - 1)], codes.n_frames - done);
    std::vector<int32_t> ids;
    for (int64_t q = 0; q < codes.n_codebook; ++q)
      for (int64_t t = 0; t < n; ++t) ids.push_back(codes.at(q, done + t));
    const std::vector<std::byte> used(static_cast<size_t>(plan.work_bytes()), std::byte{0xff});
    model.backend().upload(work.data(), used.data(), plan.work_bytes());  // as others leave it
    decoder.decode(ids.data(), n, out);
    out += n * model.config().codec.hop_length();
    done += n;
  }
  return pcm;
}

// small, odd, and two more: three dilated layers in a long chain, and one single upsampling.
std::vector<Config> shapes() {
  std::vector<Config> all = {small_config(), odd_config(), small_config(), small_config()};
  all[2].codec = {8000, 6, 2, 3, 5, 5, 3, 2, 2, 3, 48, 4, {2, 3, 1, 2}, true};
  all[3].codec = {8000, 8, 4, 1, 1, 1, 0, 1, 4, 1, 48, 7, {5}, false};
  return all;
}

class CodecOnEach : public reference::EveryInstructionSet {
 protected:
  static SyntheticModel model(const Config& config) {
    SyntheticOptions options;
    options.instruction_set = GetParam();
    return synthetic_model(config, 2, options);
  }
};
BARKRT_EVERY_INSTRUCTION_SET(CodecOnEach);

TEST_P(CodecOnEach, EqualsThePlainDecoderForEveryShapeAndShortClips) {
  for (const Config& config : shapes()) {
    const SyntheticModel m = model(config);
    for (const int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 19}) {
      const Codes codes = some_codes(config, n);
      const std::vector<double> expected = reference_decode(config.codec, codes);
      const std::vector<float> pcm = decode(*m.model, codes, {n});
      ASSERT_EQ(pcm.size(), expected.size());
      for (size_t i = 0; i < pcm.size(); ++i)
        ASSERT_NEAR(pcm[i], expected[i], 5e-6 * (1 + std::fabs(expected[i])))
            << n << " frames, sample " << i;
    }
  }
}

TEST_P(CodecOnEach, ChunksNeverChangeASample) {
  for (const Config& config : shapes()) {
    const SyntheticModel m = model(config);
    const int64_t n = 41;
    const int64_t first = CodecPlan::make(config.codec).first_frames;
    const Codes codes = some_codes(config, n);
    const std::vector<float> whole = decode(*m.model, codes, {n});
    for (const std::vector<int64_t>& chunks : std::vector<std::vector<int64_t>>{
             {first, 1}, {first, 2}, {first, 3, 1, 5}, {first + 1, 7}, {20}, {n - 1, 1}}) {
      SCOPED_TRACE(std::to_string(first) + " then " + std::to_string(chunks.back()));
      const std::vector<float> pcm = decode(*m.model, codes, chunks);
      if (!is_cuda()) {
        EXPECT_EQ(pcm, whole);
        continue;
      }
      // Sums of more than 16 rows may be in another order there.
      ASSERT_EQ(pcm.size(), whole.size());
      for (size_t i = 0; i < pcm.size(); ++i)
        ASSERT_NEAR(pcm[i], whole[i], 1e-5 * (1 + std::fabs(whole[i])));
    }
  }
}

TEST(Codec, DecodingAPrefixGivesThePrefix) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  const Codes codes = some_codes(config, 30);
  const std::vector<float> whole = decode(*m.model, codes, {30});
  for (const int64_t n : {7, 8, 20, 29}) {
    const std::vector<float> part = decode(*m.model, some_codes(config, n), {n});
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << n;
  }
}

TEST(Codec, BarksFirstChunkNeedsSevenFrames) {
  EXPECT_EQ(CodecPlan::make(golden_config().codec).first_frames, 7);
}

TEST(Codec, AFirstChunkGrowsToWhatReflectionNeeds) {
  const CodecConfig c = golden_config().codec;
  EXPECT_EQ(CodecPlan::make(c, 1).chunk_frames, 7);
}

TEST(Codec, RefusesAChunkLargerThanItsMemory) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  MemoryAccount account;
  const CodecPlan plan = CodecPlan::make(config.codec, 8);
  const Buffer work(m.model->backend(), account, Category::Activations, plan.work_bytes());
  const Buffer carry(m.model->backend(), account, Category::Activations, plan.carry_bytes());
  CodecDecoder decoder(m.model->backend(), config.codec, m.model->weights().codec, plan,
                       static_cast<std::byte*>(work.data()), static_cast<std::byte*>(carry.data()));
  const Codes codes = some_codes(config, 9);
  std::vector<float> pcm(9 * config.codec.hop_length());
  EXPECT_THROW(decoder.decode(codes.ids.data(), 9, pcm.data()), Error);
}

}  // namespace
}  // namespace barkrt::test
