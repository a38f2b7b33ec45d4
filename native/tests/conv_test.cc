// conv_test.cc: convolutions and the LSTM against their definitions in double precision.
#include <algorithm>

#include "reference.h"

namespace barkrt {
namespace {

using namespace reference;

class Conv : public EveryInstructionSet {};
BARKRT_EVERY_INSTRUCTION_SET(Conv);

double at(const Floats& x, int64_t i) { return static_cast<double>(x[static_cast<size_t>(i)]); }

struct ConvShape {
  int64_t t, in, out, kernel, dilation, gap;
};

void expect_conv1d(Backend& backend, const ConvShape& s, DType type) {
  SCOPED_TRACE(std::string(dtype_name(type)) + " T=" + std::to_string(s.t) +
               " in=" + std::to_string(s.in) + " k=" + std::to_string(s.kernel) +
               " dilation=" + std::to_string(s.dilation) + " gap=" + std::to_string(s.gap));
  const int64_t history = (s.kernel - 1) * s.dilation, stride = s.in + s.gap;
  const Weights w(type, s.out, s.kernel * s.in, 61);
  const Floats x = normal((history + s.t) * stride, 62), bias = normal(s.out, 63);
  Floats out(static_cast<size_t>(s.t * s.out), NAN);
  backend.conv1d(view(out.data(), s.t, s.out), {x.data() + history * stride, s.t, s.in, stride},
                 w.matrix, bias.data(), s.kernel, s.dilation);
  for (int64_t t = 0; t < s.t; ++t)
    for (int64_t o = 0; o < s.out; ++o) {
      Sum sum;
      sum.add(at(bias, o));
      for (int64_t j = 0; j < s.kernel; ++j)
        for (int64_t i = 0; i < s.in; ++i)
          sum.add(at(x, (t + j * s.dilation) * stride + i) *
                  w.values[static_cast<size_t>((o * s.kernel + j) * s.in + i)]);
      ASSERT_NEAR(out[static_cast<size_t>(t * s.out + o)], sum.value,
                  dot_bound(sum, s.kernel * s.in));
    }
}

TEST_P(Conv, Conv1dEqualsItsDefinition) {
  for (const DType type : weight_types())
    for (const ConvShape& s : {ConvShape{1, 1, 1, 7, 1, 0}, ConvShape{33, 7, 5, 3, 1, 0},
                               ConvShape{130, 32, 16, 3, 1, 0}, ConvShape{9, 5, 4, 1, 1, 0},
                               ConvShape{9, 5, 4, 1, 1, 3}, ConvShape{20, 6, 3, 3, 2, 0},
                               ConvShape{130, 4, 3, 3, 4, 0}, ConvShape{11, 8, 2, 7, 1, 5}})
      expect_conv1d(*backend, s, type);
}

// y[t*s+j] = b + sum_i w[j,o,1,i] x[t,i] + w[j,o,0,i] x[t-1,i].
void expect_conv_transpose1d(Backend& backend, int64_t rows, int64_t in, int64_t outs,
                             int64_t stride, int64_t gap) {
  SCOPED_TRACE("T=" + std::to_string(rows) + " stride=" + std::to_string(stride));
  const Weights w(DType::F32, stride * outs, 2 * in, 64);
  const int64_t pitch = in + gap;
  const Floats x = normal((rows + 1) * pitch, 65), bias = normal(outs, 66);
  Floats out(static_cast<size_t>(rows * stride * outs), NAN);
  backend.conv_transpose1d(view(out.data(), rows * stride, outs),
                           {x.data() + pitch, rows, in, pitch}, w.matrix, bias.data(), stride);
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t j = 0; j < stride; ++j)
      for (int64_t o = 0; o < outs; ++o) {
        Sum sum;
        sum.add(at(bias, o));
        for (int64_t half = 0; half < 2; ++half)
          for (int64_t i = 0; i < in; ++i)
            sum.add(at(x, (t + half) * pitch + i) *
                    w.values[static_cast<size_t>(((j * outs + o) * 2 + half) * in + i)]);
        ASSERT_NEAR(out[static_cast<size_t>((t * stride + j) * outs + o)], sum.value,
                    dot_bound(sum, 2 * in));
      }
}

TEST_P(Conv, ConvTranspose1dEqualsItsDefinition) {
  for (const int64_t gap : {0, 3}) {
    expect_conv_transpose1d(*backend, 1, 1, 1, 1, gap);
    expect_conv_transpose1d(*backend, 7, 6, 3, 5, gap);
    expect_conv_transpose1d(*backend, 110, 33, 16, 8, gap);
  }
}

// The output of a chunk, given its history, is that part of the whole output.
TEST_P(Conv, ChunksEqualTheWhole) {
  const int64_t t = 60, in = 12, outs = 10, kernel = 7, history = kernel - 1;
  const Weights w(DType::F32, outs, kernel * in, 67);
  const Floats x = normal((history + t) * in, 68), bias = normal(outs, 69);
  Floats whole(static_cast<size_t>(t * outs)), part(whole.size());
  const ConstView rows = {x.data() + history * in, t, in, in};
  backend->conv1d(view(whole.data(), t, outs), rows, w.matrix, bias.data(), kernel, 1);
  for (int64_t first = 0; first < t; first += 11) {
    const int64_t n = std::min<int64_t>(11, t - first);
    backend->conv1d(view(part.data(), t, outs).slice(first, n), rows.slice(first, n), w.matrix,
                    bias.data(), kernel, 1);
  }
  EXPECT_EQ(0, std::memcmp(whole.data(), part.data(), whole.size() * 4));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST_P(Conv, LstmEqualsItsDefinition) {
  for (const int64_t hidden : {1, 7, 33, 96}) {
    const int64_t steps = 20;
    const Weights w(DType::F32, 4 * hidden, hidden, 70);
    const Floats gates = normal(steps * 4 * hidden, 71);
    Floats out(static_cast<size_t>(steps * hidden)), h = normal(hidden, 72), c = normal(hidden, 73);
    // Recurrent weights of unit deviation would make the map chaotic: 1/sqrt(hidden) is what
    // trained ones are like.
    Floats weights(w.values.begin(), w.values.end());
    for (float& v : weights) v /= std::sqrt(static_cast<float>(hidden));
    Doubles expected_h(h.begin(), h.end()), expected_c(c.begin(), c.end());
    backend->lstm(view(out.data(), steps, hidden), read(gates, steps, 4 * hidden),
                  {weights.data(), DType::F32, 4 * hidden, hidden, nullptr}, h.data(), c.data());
    for (int64_t t = 0; t < steps; ++t) {
      Doubles z(static_cast<size_t>(4 * hidden));
      for (int64_t n = 0; n < 4 * hidden; ++n) {
        z[static_cast<size_t>(n)] = at(gates, t * 4 * hidden + n);
        for (int64_t k = 0; k < hidden; ++k)
          z[static_cast<size_t>(n)] +=
              at(weights, n * hidden + k) * expected_h[static_cast<size_t>(k)];
      }
      for (int64_t i = 0; i < hidden; ++i) {
        const auto gate = [&](int64_t which) { return z[static_cast<size_t>(which * hidden + i)]; };
        double& cell = expected_c[static_cast<size_t>(i)];
        cell = sigmoid(gate(1)) * cell + sigmoid(gate(0)) * std::tanh(gate(2));
        expected_h[static_cast<size_t>(i)] = sigmoid(gate(3)) * std::tanh(cell);
        // Errors of a step, some ten roundoffs, are fed back and grow a little over 20 steps.
        ASSERT_NEAR(out[static_cast<size_t>(t * hidden + i)], expected_h[static_cast<size_t>(i)],
                    5e-6)
            << hidden << " step " << t;
      }
    }
    for (int64_t i = 0; i < hidden; ++i) {
      EXPECT_NEAR(c[static_cast<size_t>(i)], expected_c[static_cast<size_t>(i)], 5e-6);
      EXPECT_EQ(h[static_cast<size_t>(i)], out[static_cast<size_t>((steps - 1) * hidden + i)]);
    }
  }
}

// Few steps: the weights of the other types are not small, so differences grow from step to step.
TEST_P(Conv, LstmTakesEveryType) {
  for (const int64_t hidden : {7, 33, 96})
    for (const DType type : weight_types()) {
      const int64_t steps = 4;
      const Weights w(type, 4 * hidden, hidden, 76);
      const Floats values(w.values.begin(), w.values.end()), gates = normal(steps * 4 * hidden, 77);
      const Floats h = normal(hidden, 78), c = normal(hidden, 79);
      const auto run = [&](const Matrix& weights) {
        Floats out(static_cast<size_t>(steps * hidden)), h_carried = h, c_carried = c;
        backend->lstm(view(out.data(), steps, hidden), read(gates, steps, 4 * hidden), weights,
                      h_carried.data(), c_carried.data());
        return out;
      };
      const Floats expected = run({values.data(), DType::F32, 4 * hidden, hidden, nullptr});
      const Floats out = run(w.matrix);
      for (size_t i = 0; i < out.size(); ++i)
        ASSERT_NEAR(out[i], expected[i], 1e-5) << hidden << " " << dtype_name(type) << " " << i;
    }
}

// Gates far out saturate instead of overflowing.
TEST_P(Conv, LstmSaturates) {
  const Floats gates = {1000, -1000, 1000, 1000, -1000, 1000, -1000, 1000};  // two steps of H = 1
  Floats weights(4), out(2), h(1), c = {5};
  backend->lstm(view(out.data(), 2, 1), read(gates, 2, 4),
                {weights.data(), DType::F32, 4, 1, nullptr}, h.data(), c.data());
  EXPECT_NEAR(out[0], std::tanh(1.0), 1e-7);  // forgets 5, stores 1
  EXPECT_NEAR(out[1], std::tanh(1.0), 1e-7);  // keeps it
}

TEST_P(Conv, LstmInPiecesEqualsTheWhole) {
  const int64_t hidden = 40, steps = 30;
  const Floats weights = normal(4 * hidden * hidden, 74), gates = normal(steps * 4 * hidden, 75);
  const Matrix w = {weights.data(), DType::F32, 4 * hidden, hidden, nullptr};
  Floats whole(static_cast<size_t>(steps * hidden)), part(whole.size());
  for (const int64_t piece : {steps, int64_t{7}}) {
    Floats h(static_cast<size_t>(hidden)), c(h);
    Floats& out = piece == steps ? whole : part;
    for (int64_t t = 0; t < steps; t += piece) {
      const int64_t n = std::min(piece, steps - t);
      backend->lstm(view(out.data(), steps, hidden).slice(t, n),
                    read(gates, steps, 4 * hidden).slice(t, n), w, h.data(), c.data());
    }
  }
  EXPECT_EQ(0, std::memcmp(whole.data(), part.data(), whole.size() * 4));
}

}  // namespace
}  // namespace barkrt
