// attention.cc: writes new keys and values into the cache, then hands (rows, head) tiles to the
// threads.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"

namespace barkrt {
namespace {

constexpr int64_t kMostHeads = 6;  // of single rows, in one piece

// Rows first .. first+count-1 of one slot, attended together so that keys are converted once.
struct RowGroup {
  int64_t first;
  int64_t count;
};

std::vector<RowGroup> group_rows(const Rows& rows) {
  std::vector<RowGroup> groups;
  for (int64_t t = 0; t < rows.count; ++t) {
    const bool joins = !groups.empty() && groups.back().count < kAttentionRows &&
                       rows.slot[t] == rows.slot[groups.back().first] &&
                       rows.pos[t] > rows.pos[t - 1];
    if (joins)
      ++groups.back().count;
    else
      groups.push_back({t, 1});
  }
  return groups;
}

void check_rows(const KvLayer* kv, const Rows& rows, int64_t n_embd, bool causal) {
  for (int64_t t = 0; t < rows.count; ++t) {
    BARKRT_CHECK(rows.slot[t] >= 0 && rows.pos[t] >= 0);
    const KvLayer& layer = kv[rows.slot[t]];
    BARKRT_CHECK(rows.pos[t] < layer.n_ctx && layer.n_embd == n_embd);
    BARKRT_CHECK(layer.type == DType::F16 || layer.type == DType::F32 || layer.type == DType::I8 ||
                 (layer.type == DType::BF16 && !causal));
    BARKRT_CHECK(causal || (rows.slot[t] == rows.slot[0] && rows.pos[t] < rows.count));
  }
}

// Position `pos` of one head's keys or values.
std::byte* cache_row(const KvLayer& layer, void* half, int64_t head, int64_t pos,
                     int64_t head_dim) {
  return static_cast<std::byte*>(half) + head * kv_head_bytes(layer.type, layer.n_ctx, head_dim) +
         pos * head_dim * dtype_bytes(layer.type);
}

// The scales of one head's keys or values of 8 bits.
float* cache_scales(const KvLayer& layer, void* half, int64_t head, int64_t head_dim) {
  return reinterpret_cast<float*>(cache_row(layer, half, head, 0, head_dim) +
                                  buffer_bytes(layer.n_ctx * head_dim));
}

// Whether these rows attend by products of bf16 pairs.
bool by_pairs(const Kernels& kernels, const KvLayer& layer, int64_t head_dim) {
  return layer.type == DType::BF16 && kernels.attention_pairs &&
         head_dim % kernels.pair_channels == 0 && layer.n_ctx % 32 == 0;
}

// One head of one row of qkv.
void append_head(const Kernels& kernels, const KvLayer& layer, int64_t head, int64_t head_dim,
                 int64_t pos, const float* qkv) {
  for (void* half : {layer.k, layer.v}) {
    const float* src = qkv + (half == layer.k ? 1 : 2) * layer.n_embd + head * head_dim;
    std::byte* dst = cache_row(layer, half, head, pos, head_dim);
    if (layer.type == DType::F16)
      kernels.to_f16(reinterpret_cast<uint16_t*>(dst), src, head_dim);
    else if (layer.type == DType::BF16)
      kernels.to_bf16(reinterpret_cast<uint16_t*>(dst), src, head_dim);
    else if (layer.type == DType::I8)
      cache_scales(layer, half, head, head_dim)[pos] =
          kernels.to_i8(reinterpret_cast<int8_t*>(dst), src, head_dim);
    else
      std::memcpy(dst, src, static_cast<size_t>(head_dim) * sizeof(float));
  }
}

// Has the lines that append_head() will write come.
void fetch_places(const KvLayer& layer, int64_t head, int64_t head_dim, int64_t pos) {
  constexpr int64_t kCacheLine = 64;
  for (void* half : {layer.k, layer.v}) {
    const std::byte* row = cache_row(layer, half, head, pos, head_dim);
    for (int64_t i = 0; i < head_dim * dtype_bytes(layer.type); i += kCacheLine)
      __builtin_prefetch(row + i, 1);
    if (layer.type == DType::I8)
      __builtin_prefetch(cache_scales(layer, half, head, head_dim) + pos, 1);
  }
}

// A decode step: a row for each slot of the call. Nothing that it writes is read by another row.
bool is_step(const Rows& rows) {
  for (int64_t t = 1; t < rows.count; ++t)
    if (rows.slot[t] <= rows.slot[t - 1]) return false;
  return true;
}

}  // namespace

void CpuBackend::attention(View out, ConstView qkv, const KvLayer* kv, const Rows& rows,
                           int64_t n_head, bool causal, const Matrix* next) {
  const int64_t n_embd = out.cols;
  BARKRT_CHECK(rows.count == out.rows && rows.count == qkv.rows);
  BARKRT_CHECK(qkv.cols == 3 * n_embd && n_head > 0 && n_embd % n_head == 0);
  check_rows(kv, rows, n_embd, causal);
  if (rows.count == 0) return;

  const int64_t head_dim = n_embd / n_head;
  const bool pairs = by_pairs(kernels_, kv[rows.slot[0]], head_dim);
  const bool step = !pairs && is_step(rows);
  constexpr int64_t kBlock = 32;
  Op op(*this);
  if (pairs)  // not causal, so row t is position t
    op->chain.for_stretches((rows.count + kBlock - 1) / kBlock, 1, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin * kBlock; t < std::min(end * kBlock, rows.count); t += kBlock)
        for (int64_t head = 0; head < n_head; ++head) {
          const KvLayer& layer = kv[rows.slot[0]];
          const float* keys = qkv.row(t) + n_embd + head * head_dim;
          kernels_.pack_pairs(cache_row(layer, layer.k, head, t, head_dim),
                              cache_row(layer, layer.v, head, t, head_dim), keys, keys + n_embd,
                              qkv.stride, std::min(kBlock, rows.count - t), head_dim);
        }
    });
  else if (!step)
    op->chain.for_stretches(rows.count, kRowMultiple, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t head = 0; head < n_head; ++head)
          append_head(kernels_, kv[rows.slot[t]], head, head_dim, rows.pos[t], qkv.row(t));
    });

  // Last groups first: in a causal call they have the most keys.
  std::vector<RowGroup> groups = group_rows(rows);
  std::reverse(groups.begin(), groups.end());
  const int64_t n_items = static_cast<int64_t>(groups.size()) * n_head;
  const int64_t most_keys =
      causal ? 1 + *std::max_element(rows.pos, rows.pos + rows.count) : rows.count;
  const int64_t own_floats = attention_scratch_floats(most_keys, head_dim);
  const int64_t own_bytes = own_floats * int64_t{sizeof(float)};
  const bool single = rows.count == static_cast<int64_t>(groups.size());
  // As linear(): of single rows all threads' at once.
  std::byte* const all = op->area(0, single ? pool_.n_threads() * own_bytes : 0);
  auto heads = [=, groups = std::move(groups)](int64_t begin, int64_t end, Taker taker) {
    const ScratchPool::Lease own = scratch_.take(single ? 0 : own_bytes);
    void* const area = single ? all + taker.thread * own_bytes : own.data();
    for (int64_t i = begin; i < end; ++i) {
      const RowGroup group = groups[static_cast<size_t>(i / n_head)];
      const int64_t head = i % n_head, column = head * head_dim;
      int32_t n_keys[kAttentionRows];
      for (int64_t r = 0; r < group.count; ++r)
        n_keys[r] = causal ? rows.pos[group.first + r] + 1 : static_cast<int32_t>(rows.count);
      const KvLayer& layer = kv[rows.slot[group.first]];
      AttentionTile tile = {};
      tile.out = out.row(group.first) + column, tile.out_stride = out.stride;
      tile.q = qkv.row(group.first) + column, tile.q_stride = qkv.stride;
      tile.n_keys = n_keys, tile.rows = group.count;
      tile.k = cache_row(layer, layer.k, head, 0, head_dim);
      tile.v = cache_row(layer, layer.v, head, 0, head_dim);
      tile.type = static_cast<int32_t>(layer.type);
      tile.head_dim = head_dim, tile.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
      const int64_t after = std::min(i + 1, n_items - 1), next_head = after % n_head;
      const int64_t next_row = groups[static_cast<size_t>(after / n_head)].first;
      const KvLayer& next_layer = kv[rows.slot[next_row]];
      tile.next = cache_row(next_layer, next_layer.k, next_head, 0, head_dim);
      if (layer.type == DType::I8) {
        tile.k_scale = cache_scales(layer, layer.k, head, head_dim);
        tile.v_scale = cache_scales(layer, layer.v, head, head_dim);
        tile.next_scale = cache_scales(next_layer, next_layer.k, next_head, head_dim);
      }
      if (step) {
        append_head(kernels_, layer, head, head_dim, rows.pos[group.first], qkv.row(group.first));
        fetch_places(next_layer, next_head, head_dim, rows.pos[next_row]);
      }
      tile.scratch = static_cast<float*>(area);
      pairs ? kernels_.attention_pairs(tile) : kernels_.attention(tile);
    }
  };
  // Single rows take as long as reading keys and values: some heads in one go.
  if (!single)
    op->chain.parallel_for(n_items, 1, std::move(heads));
  else if (n_items <= kMostHeads * pool_.n_threads())
    op->chain.for_stretches(n_items, 1, std::move(heads),
                            next ? stretches_of(*next, rows.count) : Ahead{});
  else
    op->chain.parallel_for(n_items, kMostHeads, std::move(heads));
  op.finish();
}

}  // namespace barkrt
