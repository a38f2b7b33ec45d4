// attention.cu: out[t] = softmax(q[t] k^T / sqrt(head_dim)) v for rows of any number of sequences,
// after their keys and values were put into the caches. Few rows: attention_step.cu, which puts
// them there itself. Many: attention_tile.cu or attention_tile_f32.cu where they fit.
#include "cuda/attention.cuh"

namespace barkrt::cuda {
namespace {

struct AppendArgs {
  const float* qkv;  // (rows, 3 n_embd)
  int64_t qkv_stride;
  const int32_t* slot;
  const int32_t* pos;
  const KvLayer* kv;
  int n_embd;
  int head_dim;
};

// As 8 bits: a warp takes a head's keys or values.
__device__ void append_row_of_8_bits(const AppendArgs& a, const KvLayer& layer, const float* from,
                                     int64_t pos) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int n_head = a.n_embd / a.head_dim;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < 2 * n_head;
       i += static_cast<int>(blockDim.x) / kWarp) {
    const float* const x = from + static_cast<int64_t>(i) * a.head_dim;
    int top = 0;
    for (int c = lane; c < a.head_dim; c += kWarp) top = max(top, Scale8::magnitude(x[c]));
    const auto [scale, inverse] = Scale8::of(warp_max(top));
    const auto cache =
        head_cache<int8_t>(i < n_head ? layer.k : layer.v, layer.n_ctx, i % n_head, a.head_dim);
    for (int c = lane; c < a.head_dim; c += kWarp)
      cache.numbers[pos * a.head_dim + c] = Scale8::round(x[c], inverse);
    if (lane == 0) cache.scales[pos] = scale;
  }
}

template <typename T>
__device__ void append_row(const AppendArgs& a, const KvLayer& layer, const float* from,
                           int64_t pos) {
  for (int i = static_cast<int>(threadIdx.x); i < 2 * a.n_embd; i += static_cast<int>(blockDim.x)) {
    T* const half = static_cast<T*>(i < a.n_embd ? layer.k : layer.v);
    const int c = i < a.n_embd ? i : i - a.n_embd;
    const int head = c / a.head_dim;
    half[(head * layer.n_ctx + pos) * a.head_dim + (c - head * a.head_dim)] = round_to<T>(from[i]);
  }
}

// One block per row: its keys and values, all heads.
__global__ void append_rows(AppendArgs a) {
  const int64_t row = blockIdx.x;
  const KvLayer layer = a.kv[a.slot[row]];
  const float* const from = a.qkv + row * a.qkv_stride + a.n_embd;
  if (layer.type == DType::F16)
    append_row<__half>(a, layer, from, a.pos[row]);
  else if (layer.type == DType::BF16)
    append_row<__nv_bfloat16>(a, layer, from, a.pos[row]);
  else if (layer.type == DType::I8)
    append_row_of_8_bits(a, layer, from, a.pos[row]);
  else
    append_row<float>(a, layer, from, a.pos[row]);
}

void append(Stream& stream, ConstView qkv, const DeviceRows& rows, int64_t n_head) {
  const int n_embd = static_cast<int>(qkv.cols / 3);
  const AppendArgs args = {qkv.data,
                           qkv.stride,
                           rows.slot,
                           rows.pos,
                           rows.kv,
                           n_embd,
                           static_cast<int>(n_embd / n_head)};
  launch(stream.handle(), dim3(static_cast<unsigned>(rows.count)), dim3(256), 0, append_rows, args);
}

// Whether the tiled kernels can do it.
bool tiles_fit(View out, ConstView qkv, const DeviceRows& rows, int64_t head_dim) {
  return rows.first_pos >= 0 && rows.same_type && (head_dim == 64 || head_dim == 128) &&
         aligned(qkv, 16) && aligned(out, 16);
}

bool on_tensor_cores(const Properties& device, DType type) {
  return type == DType::F16 || type == DType::I8 || (type == DType::BF16 && device.at_least(8, 0));
}

}  // namespace

void attention(Stream& stream, View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
               bool causal) {
  if (rows.count == 0) return;
  const bool few = rows.count <= kFewRows;
  const bool step_appends = few && causal;
  if (!step_appends) append(stream, qkv, rows, n_head);
  if (few || !tiles_fit(out, qkv, rows, out.cols / n_head))
    attention_step(stream, out, qkv, rows, n_head, causal, step_appends);
  else if (on_tensor_cores(stream.properties(), rows.type))
    attention_tile(stream, out, qkv, rows, n_head, causal);
  else
    attention_tile_f32(stream, out, qkv, rows, n_head, causal);
}

}  // namespace barkrt::cuda
