// linear_tile.cu: products of any number of rows: which arithmetic, which tiles, and how K is cut
// when there are too few tiles to fill the device. The sums of the parts of K lie in scratch and
// are added in order.
#include <algorithm>

#include "cuda/tile.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kWideSide = 128, kSmallSide = 64;
constexpr int kDepth = 32;          // a segment is a multiple of the kernels' slices of K
constexpr int kLeastSegment = 256;  // below, adding up costs more than is gained
constexpr int kMostSegments = 16;

int64_t tiles(const TileProduct& p, int64_t side) {
  return divide_up(p.rows, side) * divide_up(p.n, side);
}

// Sets p.segment so that there are about n, none too short.
void cut(TileProduct& p, int64_t n) {
  const int64_t most = std::min<int64_t>(kMostSegments, p.k / kLeastSegment);
  n = std::max<int64_t>(std::min(n, most), 1);
  p.segment = static_cast<int>(divide_up<int64_t>(divide_up<int64_t>(p.k, n), kDepth) * kDepth);
}

// A thread: one output of one row.
__global__ void add_segments(TileProduct p, int segments) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= p.rows * p.n) return;
  float sum = p.partial[i];
  for (int s = 1; s < segments; ++s) sum += p.partial[s * p.rows * p.n + i];
  p.epilogue.store(sum, i / p.n, i % p.n);
}

// `tensor`: on tensor cores.
void run(Stream& stream, ScratchScope& scratch, TileProduct p, bool tensor, bool wide) {
  const int segments = p.segments();
  if (segments > 1) p.partial = scratch.take<float>(segments * p.rows * p.n);
  if (tensor)
    launch_mma(stream.handle(), p, wide);
  else
    launch_ffma(stream.handle(), p, wide);
  if (segments == 1) return;
  constexpr int kThreads = 256;
  launch(stream.handle(), dim3(static_cast<unsigned>(divide_up<int64_t>(p.rows * p.n, kThreads))),
         dim3(kThreads), 0, add_segments, p, segments);
}

TileProduct product(const Taps& x, int64_t rows, const Matrix& w, const Epilogue& epilogue) {
  BARKRT_CHECK(w.cols > 0 && w.cols <= INT32_MAX - kDepth);
  TileProduct p;
  p.x = x;
  p.w = w.data, p.type = w.type;
  p.rows = rows, p.n = w.rows, p.k = static_cast<int>(w.cols);
  p.epilogue = epilogue;
  return p;
}

}  // namespace

void linear_tile(Stream& stream, View out, ConstView x, const Matrix& w, const float* bias,
                 int64_t bias_period, ConstView add, const Fused& fused) {
  if (x.rows == 0 || w.rows == 0) return;
  ScratchScope scratch(stream);
  if (fused.gamma) {
    const View normed = view(scratch.take<float>(x.rows * x.cols), x.rows, x.cols);
    layernorm(stream, normed, x, fused.gamma, fused.beta);
    x = normed;
  }
  const Properties& device = stream.properties();
  TileProduct p = product({x.data, x.stride, static_cast<int>(x.cols), 0}, x.rows, w,
                          Epilogue(out, w, bias, bias_period, add, fused.gelu));
  const bool wide = tiles(p, kWideSide) >= device.n_multiprocessors;
  cut(p, wide ? 1 : 2 * device.n_multiprocessors / tiles(p, kSmallSide));
  const bool tensor = w.type == DType::BF16 ? device.at_least(8, 0) : w.type != DType::F32;
  run(stream, scratch, p, tensor, wide);
}

void tap_product(Stream& stream, View out, const Taps& x, const Matrix& w, const float* bias,
                 int64_t bias_period) {
  if (out.rows == 0 || w.rows == 0) return;
  ScratchScope scratch(stream);
  TileProduct p = product(x, out.rows, w, Epilogue(out, w, bias, bias_period, {}, false));
  cut(p, kMostSegments);
  run(stream, scratch, p, false, tiles(p, kWideSide) >= stream.properties().n_multiprocessors);
}

}  // namespace barkrt::cuda
