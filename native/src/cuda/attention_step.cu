// attention_step.cu: out[t] = softmax(q k^T / sqrt(head_dim)) v, the keys of a row split over
// blocks.
//
// One block: 128 keys of one head of one row; one warp: 32 of them, all of whose loads are under
// way at once. A block leaves (largest score, sum of weights, weighted sum of values) in scratch,
// and the last one of a row and head adds the parts up in the order of the keys: where the splits
// lie and how they are added depends on nothing but the row's own position. The grid covers n_ctx,
// so that a recorded launch goes on serving as positions grow; blocks without keys leave at once.
//
// Keys of the call itself are read from qkv, rounded as the cache's, because the block that puts
// them into the cache runs beside the others.
#include <algorithm>
#include <climits>

#include "cuda/attention_keys.cuh"

namespace barkrt::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kWarpKeys = 32;
constexpr int kSplitKeys = kWarps * kWarpKeys;

struct StepArgs {
  float* out;  // (rows, n_head head_dim)
  int64_t out_stride;
  const float* qkv;  // (rows, 3 n_head head_dim)
  int64_t qkv_stride;
  const int32_t* slot;
  const int32_t* pos;
  const KvLayer* kv;
  int n_rows;  // of the whole call
  int first_row;
  int n_head;
  int head_dim;
  float scale;
  bool causal;
  bool append;
  float* parts;        // (rows from first_row on, n_head, splits, 2 + head_dim)
  unsigned* counters;  // (rows from first_row on, n_head)
};

// Which of the call's rows holds a key that is not in the cache yet.
struct Fresh {
  const int32_t* slot;  // of the call's rows
  const int32_t* pos;
  int row;    // the block's,
  int at;     // and its position
  int first;  // keys before it are in the cache

  // All lanes make it.
  __device__ Fresh(const StepArgs& a, int block_row, int block_pos)
      : slot(a.slot), pos(a.pos), row(block_row), at(block_pos), first(INT_MAX) {
    if (!a.append) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const bool seen = lane <= row && slot[lane] == slot[row];
    first = pos[__ffs(__ballot_sync(kAllLanes, seen)) - 1];
  }
  // -1: none. Rows of one sequence come in ascending position.
  __device__ int row_of(int key) const {
    if (key == at) return row;
    if (first == at) return -1;
#pragma unroll 1
    for (int t = row - 1; t >= 0; --t)
      if (pos[t] == key && slot[t] == slot[row]) return t;
    return -1;
  }
};

// Where a warp leaves its part, in shared memory.
struct WarpPart {
  float* values;  // (head_dim)
  float* top;
  float* total;
  float* weights;   // (kWarpKeys), the warp's own
  float* inverses;  // the same, of the values' Scale8
};

// Keys begin .. end-1 with head_dim 64 or 128: a key to 4, 8 or 16 lanes.
template <typename T, int D>
__device__ void attend_keys(const StepArgs& a, const Half<T>& keys, const Half<T>& values,
                            const Fresh& fresh, const float* query, int begin, int end,
                            const WarpPart& part) {
  using Channels = Packed<T, D>;
  constexpr int kCount = Channels::kCount, kLanes = D / kCount, kGroups = kWarp / kLanes;
  // Keys of a lane whose loads are under way at once: 128 bytes of keys, as many of values; of 8
  // bits half of that, which is all that the warp has where D is 64.
  constexpr int kTurns = sizeof(T) == 2 ? 8 : 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int channel = lane % kLanes * kCount;

  float q[kCount];
  load_floats(q, query + channel);
  for (int c = 0; c < kCount; ++c) q[c] *= a.scale;

  float top = -INFINITY, total = 0, sum[kCount] = {};
  for (int base = begin; base < end; base += kTurns * kGroups) {
    Channels k[kTurns], v[kTurns];
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const int key = base + i * kGroups + lane / kLanes;
      k[i] = v[i] = {};
      if (key < min(end, fresh.first))
        k[i].load(keys.cache, key, channel), v[i].load(values.cache, key, channel);
    }
    if (end > fresh.first) {
#pragma unroll
      for (int i = 0; i < kTurns; ++i) {
        const int key = base + i * kGroups + lane / kLanes;
        const bool late = key >= fresh.first && key < end;
        const int own = late ? fresh.row_of(key) : -1;
        if (late && own < 0)
          k[i].load(keys.cache, key, channel), v[i].load(values.cache, key, channel);
        k[i].take(keys, key, channel, own, own == fresh.row);
        v[i].take(values, key, channel, own, own == fresh.row);
      }
    }
    float score[kTurns], high = top;
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      float x[kCount], dot = 0;
      k[i].read(x);
      for (int c = 0; c < kCount; ++c) dot = fmaf(q[c], x[c], dot);
      for (int offset = kLanes / 2; offset > 0; offset /= 2)
        dot += __shfl_xor_sync(kAllLanes, dot, offset);
      score[i] = base + i * kGroups + lane / kLanes < end ? k[i].scaled(dot) : -INFINITY;
      high = fmaxf(high, score[i]);
    }
    for (int offset = kLanes; offset < kWarp; offset *= 2)
      high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, offset));
    const float kept = exp2f(top - high);
    top = high, total *= kept;
    for (int c = 0; c < kCount; ++c) sum[c] *= kept;
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const float weight = exp2f(score[i] - high), scaled = v[i].scaled(weight);
      float x[kCount];
      v[i].read(x);
      total += weight;
      for (int c = 0; c < kCount; ++c) sum[c] = fmaf(scaled, x[c], sum[c]);
    }
  }
  for (int offset = kLanes; offset < kWarp; offset *= 2) {
    total += __shfl_xor_sync(kAllLanes, total, offset);
    for (int c = 0; c < kCount; ++c) sum[c] += __shfl_xor_sync(kAllLanes, sum[c], offset);
  }
  if (lane < kLanes)
    for (int c = 0; c < kCount; ++c) part.values[channel + c] = sum[c];
  if (lane == 0) *part.top = top, *part.total = total;
}

// Of a key, of which the call's row `own` has the numbers, or the cache where that is -1.
template <typename T>
__device__ Scale8 scale_of(const Half<T>& half, int key, int own, bool append, int head_dim) {
  if constexpr (sizeof(T) > 1) return {1, 0};
  if (own < 0) return {half.cache.scales[key], 0};
  int top = 0;
  for (int c = 0; c < head_dim; ++c)
    top = max(top, Scale8::magnitude(half.own[own * half.own_stride + c]));
  const Scale8 scale = Scale8::of(top);
  if (append) half.cache.scales[key] = scale.scale;
  return scale;
}

// The same with any head_dim: first a key to a lane, then a channel to a lane.
template <typename T>
__device__ void attend_keys_plainly(const StepArgs& a, const Half<T>& keys, const Half<T>& values,
                                    const Fresh& fresh, const float* query, int begin, int end,
                                    const WarpPart& part) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto row_of = [&](int key) { return key >= fresh.first ? fresh.row_of(key) : -1; };
  const auto number = [&](const Half<T>& of, int key, int own, int c, float inverse) {
    T* const cached = of.cache.numbers + static_cast<int64_t>(key) * a.head_dim + c;
    if (own < 0) return to_float(*cached);
    const float x = of.own[own * of.own_stride + c];
    T rounded;
    if constexpr (sizeof(T) == 1)
      rounded = Scale8::round(x, inverse);
    else
      rounded = round_to<T>(x);
    if (own == fresh.row) *cached = rounded;
    return to_float(rounded);
  };
  const int mine = begin + lane;
  float score = -INFINITY;
  Scale8 of_value = {};
  if (mine < end) {
    const int own = row_of(mine);
    const Scale8 of_key = scale_of(keys, mine, own, own == fresh.row, a.head_dim);
    of_value = scale_of(values, mine, own, own == fresh.row, a.head_dim);
    float dot = 0;
    for (int c = 0; c < a.head_dim; ++c)
      dot = fmaf(query[c], number(keys, mine, own, c, of_key.inverse), dot);
    score = dot * of_key.scale * a.scale;
  }
  const float top = warp_max(score);
  const float weight = mine < end ? exp2f(score - top) : 0;
  const float total = warp_sum(weight);
  if (lane == 0) *part.top = top, *part.total = total;
  part.weights[lane] = weight * of_value.scale;
  part.inverses[lane] = of_value.inverse;
  __syncwarp();
  for (int c = lane; c < a.head_dim; c += kWarp) {
    float sum = 0;
    for (int key = begin; key < end; ++key)
      sum = fmaf(part.weights[key - begin],
                 number(values, key, row_of(key), c, part.inverses[key - begin]), sum);
    part.values[c] = sum;
  }
}

// One warp's keys, D 0: any head_dim.
template <typename T, int D>
__device__ void attend_warp(const StepArgs& a, const KvLayer& layer, const Fresh& fresh, int head,
                            int begin, int end, const WarpPart& part) {
  const int64_t n_embd = static_cast<int64_t>(a.n_head) * a.head_dim;
  const int64_t column = static_cast<int64_t>(head) * a.head_dim;
  const float* const query = a.qkv + fresh.row * a.qkv_stride + column;
  const Half<T> keys = {head_cache<T>(layer.k, layer.n_ctx, head, a.head_dim),
                        a.qkv + column + n_embd, a.qkv_stride};
  const Half<T> values = {head_cache<T>(layer.v, layer.n_ctx, head, a.head_dim),
                          a.qkv + column + 2 * n_embd, a.qkv_stride};
  if constexpr (D > 0)
    attend_keys<T, D>(a, keys, values, fresh, query, begin, end, part);
  else
    attend_keys_plainly<T>(a, keys, values, fresh, query, begin, end, part);
}

// One block: head blockIdx.y of row first_row + blockIdx.z, keys from 128 * blockIdx.x on.
template <int D>
__global__ void __launch_bounds__(kSplitKeys, 1) step_rows(StepArgs a) {
  BARKRT_DYNAMIC_SHARED(float, shared);  // (kWarps, head_dim + 2 + 2 kWarpKeys)
  BARKRT_SHARED(bool, last);
  const int split = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int row = a.first_row + static_cast<int>(blockIdx.z);
  const int pos = a.pos[row];
  const int n_keys = a.causal ? pos + 1 : a.n_rows;
  if (split * kSplitKeys >= n_keys) return;

  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  float* const tops = shared + kWarps * a.head_dim;
  float* const totals = tops + kWarps;
  float* const of_keys = totals + kWarps + warp * 2 * kWarpKeys;
  const WarpPart part = {shared + warp * a.head_dim, tops + warp, totals + warp, of_keys,
                         of_keys + kWarpKeys};
  const int begin = split * kSplitKeys + warp * kWarpKeys;
  const int end = min(begin + kWarpKeys, n_keys);
  const Fresh fresh(a, row, pos);
  const KvLayer layer = a.kv[a.slot[row]];
  if (layer.type == DType::F16)
    attend_warp<__half, D>(a, layer, fresh, head, begin, end, part);
  else if (layer.type == DType::BF16)
    attend_warp<__nv_bfloat16, D>(a, layer, fresh, head, begin, end, part);
  else if (layer.type == DType::I8)
    attend_warp<int8_t, D>(a, layer, fresh, head, begin, end, part);
  else
    attend_warp<float, D>(a, layer, fresh, head, begin, end, part);
  __syncthreads();

  float top = tops[0];
  for (int w = 1; w < kWarps; ++w) top = fmaxf(top, tops[w]);
  float factor[kWarps], total = 0;
  for (int w = 0; w < kWarps; ++w)
    factor[w] = exp2f(tops[w] - top), total = fmaf(factor[w], totals[w], total);
  const int n_splits = (n_keys + kSplitKeys - 1) / kSplitKeys;
  float* const out = a.out + row * a.out_stride + static_cast<int64_t>(head) * a.head_dim;
  const int64_t cell = static_cast<int64_t>(blockIdx.z) * a.n_head + head;
  const int64_t record = a.head_dim + 2;
  float* const mine = a.parts + (cell * gridDim.x + split) * record;
  for (int c = thread; c < a.head_dim; c += kSplitKeys) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum = fmaf(factor[w], shared[w * a.head_dim + c], sum);
    if (n_splits == 1)
      out[c] = sum / total;
    else
      mine[2 + c] = sum;
  }
  if (n_splits == 1) return;
  if (thread == 0) mine[0] = top, mine[1] = total;

  __syncthreads();
  if (thread == 0) {
    __threadfence();
    last = atomicAdd(a.counters + cell, 1u) == static_cast<unsigned>(n_splits - 1);
    __threadfence();
    if (last) a.counters[cell] = 0;
  }
  __syncthreads();
  if (!last) return;
  // volatile: other blocks wrote these, so they must come from the second-level cache.
  const volatile float* const parts = a.parts + cell * gridDim.x * record;
  top = -INFINITY;
  for (int s = 0; s < n_splits; ++s) top = fmaxf(top, parts[s * record]);
  for (int c = thread; c < a.head_dim; c += kSplitKeys) {
    float sum = 0;
    total = 0;
    for (int s = 0; s < n_splits; ++s) {
      const float weight = exp2f(parts[s * record] - top);
      total = fmaf(weight, parts[s * record + 1], total);
      sum = fmaf(weight, parts[s * record + 2 + c], sum);
    }
    out[c] = sum / total;
  }
}

}  // namespace

void attention_step(Stream& stream, View out, ConstView qkv, const DeviceRows& rows, int64_t n_head,
                    bool causal, bool append) {
  BARKRT_CHECK(!append || (causal && rows.count <= kFewRows));
  constexpr int64_t kMostChannels = 2048;  // of a head, for the block's shared memory
  const int64_t head_dim = out.cols / n_head;
  if (head_dim > kMostChannels || n_head > Stream::kCounters)
    fail(Status::Unsupported,
         "%lld heads of %lld channels: at most %lld of %lld on a CUDA device; use the CPU",
         static_cast<long long>(n_head), static_cast<long long>(head_dim),
         static_cast<long long>(Stream::kCounters), static_cast<long long>(kMostChannels));
  const int64_t n_splits = divide_up<int64_t>(causal ? rows.n_ctx : rows.count, kSplitKeys);
  const int64_t row_floats = n_splits == 1 ? 0 : n_head * n_splits * (head_dim + 2);
  int64_t most = Stream::kCounters / n_head;
  if (row_floats > 0) most = std::clamp<int64_t>(Stream::kScratchBytes / 4 / row_floats, 1, most);
  most = std::min(most, rows.count);

  ScratchScope scratch(stream);
  StepArgs args = {};
  args.out = out.data, args.out_stride = out.stride;
  args.qkv = qkv.data, args.qkv_stride = qkv.stride;
  args.slot = rows.slot, args.pos = rows.pos, args.kv = rows.kv;
  args.n_rows = static_cast<int>(rows.count);
  args.n_head = static_cast<int>(n_head), args.head_dim = static_cast<int>(head_dim);
  args.scale = score_scale(head_dim);
  args.causal = causal, args.append = append;
  args.parts = row_floats > 0 ? scratch.take<float>(most * row_floats) : nullptr;
  args.counters = stream.counters();
  const bool vectors = aligned(qkv, 16);
  const auto kernel = vectors && head_dim == 64    ? step_rows<64>
                      : vectors && head_dim == 128 ? step_rows<128>
                                                   : step_rows<0>;
  const int64_t shared_bytes =
      kWarps * (head_dim + 2 + 2 * kWarpKeys) * static_cast<int64_t>(sizeof(float));
  for (int64_t row = 0; row < rows.count; row += most) {
    args.first_row = static_cast<int>(row);
    const dim3 grid(static_cast<unsigned>(n_splits), static_cast<unsigned>(n_head),
                    static_cast<unsigned>(std::min(most, rows.count - row)));
    launch(stream.handle(), grid, dim3(kSplitKeys), shared_bytes, kernel, args);
  }
}

}  // namespace barkrt::cuda
