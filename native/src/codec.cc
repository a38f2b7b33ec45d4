#include "codec.h"

#include <algorithm>

#include "error.h"

namespace barkrt {

// Walks the layers as decode() does and notes what each needs.
CodecPlan CodecPlan::make(const CodecConfig& c, int64_t chunk_frames) {
  const int64_t n_up = static_cast<int64_t>(c.ratios.size());
  const int64_t hidden = c.width(0);
  CodecPlan p;
  p.first_frames = 1;
  // Reflection reads rows 1 .. history.
  const auto reflects = [&](int64_t history, int64_t rate) {
    p.first_frames = std::max(p.first_frames, (history + 1 + rate - 1) / rate);
  };
  reflects(c.kernel_size - 1, 1);
  for (int64_t i = 1; i <= n_up; ++i)
    for (int64_t j = 0; j < c.n_residual_layer; ++j)
      reflects((c.residual_kernel_size - 1) * c.dilation(j), c.rate(i));
  reflects(c.last_kernel_size - 1, c.rate(n_up));
  p.chunk_frames = std::max(chunk_frames, p.first_frames);

  const int64_t n = p.chunk_frames;
  const auto convolves = [&](int64_t rows, int64_t channels, int64_t history) {
    p.padded = std::max(p.padded, (history + rows) * channels);
    p.carry.push_back(history * channels);
  };
  convolves(n, c.hidden_size, c.kernel_size - 1);
  p.main = n * hidden;
  p.padded = std::max(p.padded, n * 4 * hidden);
  p.side = n * hidden;
  p.carry.insert(p.carry.end(), 2 * c.n_lstm_layer, hidden);
  for (int64_t i = 1; i <= n_up; ++i) {
    convolves(n * c.rate(i - 1), c.width(i - 1), 1);
    const int64_t rows = n * c.rate(i);
    p.main = std::max(p.main, rows * c.width(i));
    for (int64_t j = 0; j < c.n_residual_layer; ++j) {
      convolves(rows, c.width(i), (c.residual_kernel_size - 1) * c.dilation(j));
      p.side = std::max(p.side, rows * (c.width(i) / c.compress));
    }
  }
  convolves(n * c.rate(n_up), c.n_filter, c.last_kernel_size - 1);
  p.side = std::max(p.side, n * c.rate(n_up));
  return p;
}

int64_t CodecPlan::work_bytes() const {
  return buffer_bytes(main * 4) + buffer_bytes(padded * 4) + buffer_bytes(side * 4);
}

int64_t CodecPlan::carry_bytes() const {
  int64_t total = 0;
  for (const int64_t floats : carry) total += buffer_bytes(floats * 4);
  return total;
}

CodecDecoder::CodecDecoder(Backend& backend, const CodecConfig& config, const CodecWeights& weights,
                           const CodecPlan& plan, std::byte* work, std::byte* carry)
    : backend_(backend), config_(config), weights_(weights), plan_(plan) {
  const auto take = [](std::byte*& memory, int64_t floats) {
    float* p = reinterpret_cast<float*>(memory);
    memory += buffer_bytes(floats * 4);
    return p;
  };
  main_ = take(work, plan.main);
  padded_ = take(work, plan.padded);
  side_ = take(work, plan.side);
  for (const int64_t floats : plan.carry) {
    carry_.push_back(take(carry, floats));
    backend.zero(carry_.back(), floats * 4);
  }
}

float* CodecDecoder::next_carry() {
  BARKRT_CHECK(carry_index_ < carry_.size());
  return carry_[carry_index_++];
}

// Where a convolution's input goes: `history` rows are free in front of row 0.
View CodecDecoder::padded_rows(int64_t rows, int64_t channels, int64_t history) const {
  BARKRT_CHECK((history + rows) * channels <= plan_.padded);
  return view(padded_ + history * channels, rows, channels);
}

// Fills the rows in front of x and keeps x's last ones for the next chunk. In front of the clip
// lies its mirror image x[-j] = x[j]; a clip too short for that is extended by zeros first, which
// are cut off again behind, so that only their reflection is ever seen.
void CodecDecoder::exchange_history(View x, int64_t history, bool reflect) {
  float* carry = next_carry();
  const int64_t row_bytes = x.cols * 4;
  if (!first_ || !reflect) {
    backend_.copy(x.row(-history), carry, history * row_bytes);
  } else {
    for (int64_t j = 1; j <= history; ++j) {
      if (j < x.rows)
        backend_.copy(x.row(-j), x.row(j), row_bytes);
      else
        backend_.zero(x.row(-j), row_bytes);
    }
  }
  backend_.copy(carry, x.row(x.rows - history), history * row_bytes);
}

View CodecDecoder::conv(float* out, View x, const ConvWeights& w) {
  const View y = view(out, x.rows, w.weight.rows);
  backend_.conv1d(y, x, w.weight, w.bias, w.kernel, w.dilation);
  return y;
}

// All layers, plus x. x stays in place in main_.
View CodecDecoder::lstm(View x) {
  const View gates = padded_rows(x.rows, 4 * x.cols, 0);
  const View out = view(side_, x.rows, x.cols);
  ConstView in = x;
  for (const LstmWeights& w : weights_.lstm) {
    float* h = next_carry();
    float* c = next_carry();
    backend_.conv1d(gates, in, w.ih, w.bias, 1, 1);  // whose bits no chunk changes
    backend_.lstm(out, gates, w.hh, h, c);
    in = out;
  }
  backend_.add(x, out);
  return x;
}

View CodecDecoder::upsample(View x, const UpWeights& w) {
  const View padded = padded_rows(x.rows, x.cols, 1);
  backend_.elu(padded, x);
  exchange_history(padded, 1, false);
  const View y = view(main_, x.rows * w.stride, w.weight.rows / w.stride);
  backend_.conv_transpose1d(y, padded, w.weight, w.bias, w.stride);
  return y;
}

// shortcut(x) + conv2(elu(conv1(elu(x)))), in main_ again.
View CodecDecoder::residual(View x, const ResidualWeights& w) {
  const View padded = padded_rows(x.rows, x.cols, w.conv1.history());
  backend_.elu(padded, x);
  exchange_history(padded, w.conv1.history(), true);
  const View hidden = conv(side_, padded, w.conv1);
  backend_.elu(hidden, hidden);
  if (!w.shortcut.weight) {
    backend_.add(x, conv(padded_, hidden, w.conv2));
    return x;
  }
  const View shortcut = conv(padded_, x, w.shortcut);
  const View y = conv(main_, hidden, w.conv2);
  backend_.add(y, shortcut);
  return y;
}

void CodecDecoder::decode(const int32_t* ids, int64_t n_frames, float* pcm) {
  BARKRT_CHECK(n_frames >= 1 && n_frames <= plan_.chunk_frames);
  carry_index_ = 0;
  const ConvWeights& in = weights_.conv_in;
  const View z = padded_rows(n_frames, config_.hidden_size, in.history());
  backend_.embed(z, ids, weights_.codebook.data(), static_cast<int64_t>(weights_.codebook.size()),
                 nullptr, nullptr);
  exchange_history(z, in.history(), true);
  View x = lstm(conv(main_, z, in));
  for (const UpWeights& up : weights_.up) {
    x = upsample(x, up);
    for (const ResidualWeights& r : up.residual) x = residual(x, r);
  }
  const ConvWeights& out = weights_.conv_out;
  const View padded = padded_rows(x.rows, x.cols, out.history());
  backend_.elu(padded, x);
  exchange_history(padded, out.history(), true);
  const View samples = conv(side_, padded, out);
  backend_.download(pcm, samples.data, samples.rows * 4);
  first_ = false;
}

}  // namespace barkrt
