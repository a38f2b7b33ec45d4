// lstm.cu: the recurrent half of an LSTM layer, (T, 4H) gates to (T, H), in one launch.
//
//   z = gates[t] + W_hh h;  c = sigmoid(z_f) c + sigmoid(z_i) tanh(z_g);  h = sigmoid(z_o) tanh(c)
//
// A warp has a hidden unit with its four gates and keeps their rows of W_hh in registers for all
// steps. The units are spread over the multiprocessors. After each step the grid waits for itself;
// the h of a step is then out[t]. Where the rows do not fit (H above 512, or few multiprocessors)
// they are read in each step, from the second-level cache if it holds them.
#include <cooperative_groups.h>

#include <algorithm>

#include "common.cuh"
#include "ops.h"

namespace barkrt::cuda {
namespace {

constexpr int kGates = 4;       // i f g o
constexpr int kMostKept = 16;   // weights of a gate in a lane
constexpr int kMostWarps = 16;  // of a block: threads have up to 128 registers

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// One unit's row of every gate: weight(gate, k).
template <typename W>
struct UnitWeights {
  const W* first;  // gate i
  int64_t hidden;
  __device__ float operator()(int gate, int64_t k) const {
    return to_float(first[gate * hidden * hidden + k]);
  }
};

// The step of one unit, by a warp. sums: its products with the last h, the lane's part.
__device__ void step_unit(float* out, const float (&sums)[kGates], const float* scale,
                          const float* gates, float* c, int64_t hidden, int64_t unit, int lane) {
  float products[kGates];
#pragma unroll
  for (int g = 0; g < kGates; ++g) products[g] = warp_sum(sums[g]);
  // Lane g has gate g; the others repeat them.
  const int gate = lane % kGates;
  float z = gate == 0   ? products[0]
            : gate == 1 ? products[1]
            : gate == 2 ? products[2]
                        : products[3];
  if (scale) z *= scale[gate * hidden + unit];
  z += gates[gate * hidden + unit];
  const float active = gate == 2 ? tanhf(z) : sigmoid(z);
  const float i = __shfl_sync(kAllLanes, active, 0);
  const float f = __shfl_sync(kAllLanes, active, 1);
  const float g = __shfl_sync(kAllLanes, active, 2);
  const float o = __shfl_sync(kAllLanes, active, 3);
  if (lane == 0) {
    const float cell = fmaf(f, c[unit], i * g);
    c[unit] = cell;
    out[unit] = o * tanhf(cell);
  }
}

// Steps first .. last-1; more than one only in a cooperative launch. h: before step 0.
// kKeep: a warp per unit at least, and H at most kMostKept * kWarp.
template <typename W, bool kKeep>
__global__ void __launch_bounds__(kMostWarps* kWarp)
    lstm_steps(float* out, int64_t out_stride, const float* gates, int64_t gates_stride,
               int64_t first, int64_t last, const W* w, const float* scale, const float* h,
               float* c, int64_t hidden) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = blockDim.x / kWarp;
  const int64_t first_unit = blockIdx.x * warps + threadIdx.x / kWarp;
  float kept[kGates][kKeep ? kMostKept : 1] = {};
  if (kKeep && first_unit < hidden) {
    const UnitWeights<W> weights = {w + first_unit * hidden, hidden};
#pragma unroll
    for (int j = 0; j < kMostKept; ++j)
#pragma unroll
      for (int g = 0; g < kGates; ++g) {
        const int64_t k = lane + j * kWarp;
        if (k < hidden) kept[g][kKeep ? j : 0] = weights(g, k);
      }
  }
  for (int64_t t = first; t < last; ++t) {
    const float* const before = t == 0 ? h : out + (t - 1) * out_stride;
    for (int64_t unit = first_unit; unit < hidden; unit += gridDim.x * warps) {
      float sums[kGates] = {};
      if (kKeep) {
#pragma unroll
        for (int j = 0; j < kMostKept; ++j) {
          const int64_t k = lane + j * kWarp;
          if (k >= hidden) break;
          const float x = before[k];
#pragma unroll
          for (int g = 0; g < kGates; ++g) sums[g] = fmaf(kept[g][kKeep ? j : 0], x, sums[g]);
        }
      } else {
        const UnitWeights<W> weights = {w + unit * hidden, hidden};
#pragma unroll 4
        for (int64_t k = lane; k < hidden; k += kWarp) {
          const float x = before[k];
#pragma unroll
          for (int g = 0; g < kGates; ++g) sums[g] = fmaf(weights(g, k), x, sums[g]);
        }
      }
      step_unit(out + t * out_stride, sums, scale, gates + t * gates_stride, c, hidden, unit, lane);
    }
    if (t + 1 < last) cooperative_groups::this_grid().sync();
  }
}

}  // namespace

void lstm(Stream& stream, View out, ConstView gates, const Matrix& w_hh, float* h, float* c) {
  if (out.rows == 0) return;
  const Properties& properties = stream.properties();
  const int64_t hidden = out.cols;
  // A block per multiprocessor at most, so that all run at once.
  const int64_t units = divide_up<int64_t>(hidden, properties.n_multiprocessors);
  const bool keep = units <= kMostWarps && hidden <= kMostKept * kWarp;
  const int64_t warps = std::min<int64_t>(units, kMostWarps);
  const dim3 block(static_cast<unsigned>(warps * kWarp));
  const dim3 grid(static_cast<unsigned>(
      std::min<int64_t>(divide_up(hidden, warps), properties.n_multiprocessors)));
  int cooperative = 0;
  check(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, properties.index),
        "cudaDevAttrCooperativeLaunch");
  with_type(w_hh.type, [&](auto type) {
    using W = decltype(type);
    const auto kernel = keep ? lstm_steps<W, true> : lstm_steps<W, false>;
    const auto run = [&](auto&& launch_steps, int64_t first, int64_t last) {
      launch_steps(stream.handle(), grid, block, int64_t{0}, kernel, out.data, out.stride,
                   gates.data, gates.stride, first, last, static_cast<const W*>(w_hh.data),
                   w_hh.scale, h, c, hidden);
    };
    if (cooperative) {
      run([](auto&&... args) { launch_cooperative(args...); }, 0, out.rows);
    } else {
      for (int64_t t = 0; t < out.rows; ++t) run([](auto&&... args) { launch(args...); }, t, t + 1);
    }
  });
  check(cudaMemcpyAsync(h, out.row(out.rows - 1), static_cast<size_t>(hidden) * sizeof(float),
                        cudaMemcpyDeviceToDevice, stream.handle()),
        "cudaMemcpyAsync");
}

}  // namespace barkrt::cuda
