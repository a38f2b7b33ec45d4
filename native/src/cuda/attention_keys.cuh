// attention_keys.cuh: neighbouring channels of a key or value in a lane's registers, from a cache
// of each type or from the call's own rows.
#pragma once

#include "cuda/attention.cuh"

namespace barkrt::cuda {

// The keys or the values of one head.
template <typename T>
struct Half {
  HeadCache<T> cache;
  const float* own;  // row t of the call is at own + t * own_stride
  int64_t own_stride;
};

// N neighbours, 16-byte aligned.
template <int N>
__device__ void load_floats(float (&x)[N], const float* from) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
  }
}

// Channels of one of D-channel keys as the cache has them: what a lane reads at once.
template <typename T, int D>
struct Packed {
  static constexpr int kCount = 8;
  static constexpr int kPieces = kCount * sizeof(T) / sizeof(uint4);
  uint4 piece[kPieces];

  __device__ void load(const HeadCache<T>& cache, int64_t key, int channel) {
    const auto* const from = reinterpret_cast<const uint4*>(cache.numbers + key * D + channel);
    for (int i = 0; i < kPieces; ++i) piece[i] = from[i];
  }
  // From the call's row `own`, nothing where that is -1; all lanes call it. append: into the cache
  // too.
  __device__ void take(const Half<T>& half, int64_t key, int channel, int own, bool append) {
    if (own < 0) return;
    float x[kCount];
    load_floats(x, half.own + own * half.own_stride + channel);
    if constexpr (sizeof(T) == sizeof(float))
      memcpy(piece, x, sizeof x);
    else
      piece[0] = {pack<T>(x[0], x[1]), pack<T>(x[2], x[3]), pack<T>(x[4], x[5]),
                  pack<T>(x[6], x[7])};
    if (!append) return;
    auto* const to = reinterpret_cast<uint4*>(half.cache.numbers + key * D + channel);
    for (int i = 0; i < kPieces; ++i) to[i] = piece[i];
  }
  __device__ void read(float (&x)[kCount]) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      memcpy(x, piece, sizeof piece);
    } else {
      const uint32_t word[4] = {piece[0].x, piece[0].y, piece[0].z, piece[0].w};
      for (int i = 0; i < 4; ++i) {
        const float2 two = unpack<T>(word[i]);
        x[2 * i] = two.x, x[2 * i + 1] = two.y;
      }
    }
  }
  // A factor or the sum of products with what read() gives.
  __device__ float scaled(float x) const { return x; }
};

template <int D>
struct Packed<int8_t, D> {
  static constexpr int kCount = 16;
  uint4 piece;
  float scale;

  __device__ void load(const HeadCache<int8_t>& cache, int64_t key, int channel) {
    piece = *reinterpret_cast<const uint4*>(cache.numbers + key * D + channel);
    scale = cache.scales[key];
  }
  __device__ void take(const Half<int8_t>& half, int64_t key, int channel, int own, bool append) {
    float x[kCount] = {};
    if (own >= 0) load_floats(x, half.own + own * half.own_stride + channel);
    int top = 0;
    for (int c = 0; c < kCount; ++c) top = max(top, Scale8::magnitude(x[c]));
    for (int offset = D / kCount / 2; offset > 0; offset /= 2)
      top = max(top, __shfl_xor_sync(kAllLanes, top, offset));
    if (own < 0) return;
    const Scale8 rounding = Scale8::of(top);
    int8_t bytes[kCount];
    for (int c = 0; c < kCount; ++c) bytes[c] = Scale8::round(x[c], rounding.inverse);
    memcpy(&piece, bytes, sizeof piece);
    scale = rounding.scale;
    if (!append) return;
    *reinterpret_cast<uint4*>(half.cache.numbers + key * D + channel) = piece;
    if (channel == 0) half.cache.scales[key] = scale;
  }
  __device__ void read(float (&x)[kCount]) const {
    widen_bytes(piece.x, x), widen_bytes(piece.y, x + 4);
    widen_bytes(piece.z, x + 8), widen_bytes(piece.w, x + 12);
  }
  __device__ float scaled(float x) const { return x * scale; }
};

}  // namespace barkrt::cuda
