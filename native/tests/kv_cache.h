// kv_cache.h: one sequence's keys and values in a cache of any type, readable as doubles.
#pragma once

#include <cstring>
#include <vector>

#include "backend.h"
#include "reference.h"

namespace barkrt::reference {

struct Cache {
  Cache(DType cache_type, int64_t n_ctx, int64_t n_embd, int64_t heads)
      : type(cache_type),
        n_head(heads),
        k(static_cast<size_t>(heads * kv_head_bytes(cache_type, n_ctx, n_embd / heads))),
        v(k.size()),
        layer{k.data(), v.data(), cache_type, n_ctx, n_embd} {}

  double value(const std::vector<std::byte>& bytes, int64_t pos, int64_t c) const {
    const int64_t head_dim = layer.n_embd / n_head;
    const std::byte* head =
        bytes.data() + c / head_dim * kv_head_bytes(type, layer.n_ctx, head_dim);
    const std::byte* at = head + (pos * head_dim + c % head_dim) * dtype_bytes(type);
    if (type == DType::I8)
      return static_cast<double>(static_cast<int8_t>(*at)) * scale(bytes, pos, c);
    uint16_t half;
    float full;
    std::memcpy(&half, at, 2);
    if (type == DType::F16) return f16_value(half);
    if (type == DType::BF16) return bf16_value(half);
    std::memcpy(&full, at, 4);
    return static_cast<double>(full);
  }
  // Of a cache of 8 bits.
  double scale(const std::vector<std::byte>& bytes, int64_t pos, int64_t c) const {
    float of;
    std::memcpy(&of, bytes.data() + scale_at(pos, c / (layer.n_embd / n_head)), 4);
    return static_cast<double>(of);
  }
  int64_t scale_at(int64_t pos, int64_t head) const {
    const int64_t head_dim = layer.n_embd / n_head;
    return head * kv_head_bytes(type, layer.n_ctx, head_dim) +
           buffer_bytes(layer.n_ctx * head_dim) + pos * 4;
  }

  DType type;
  int64_t n_head;
  std::vector<std::byte> k, v;
  KvLayer layer;
};

}  // namespace barkrt::reference
