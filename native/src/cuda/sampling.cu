// sampling.cu: sample_row() of sampling.h on the device, a block per row of logits.
//
// Probabilities are whole numbers: a weight exp((x - max) / T), at most 1, counts 2^unit_bits units
// such that the sum of a row stays below 2^64. So sums do not depend on their order, histograms may
// be made by atomics, and no f64 arithmetic is needed but for one number of a row (f64 has 1/32 to
// 1/64 of the f32 rate on most devices: 10 001 exponentials would take longer than all else here).
// Draws equal the host's unless a coin or a threshold lies within about 1e-7 of a boundary.
//
// A filter keeps the first entries in the order "larger first, lower index first among equals", so
// it is a cut in that order, and both filters are the stricter cut. It is found by histograms of
// the bits of the logits, 11 at a time; no entry is ever moved.
#include <algorithm>
#include <cmath>

#include "common.cuh"
#include "ops.h"

namespace barkrt::cuda {
namespace {

using Mass = unsigned long long;

constexpr int kBins = 2048;
constexpr int kMostWarps = 32;
constexpr int kPerThread = 4;  // entries, or more

// The first place of a row of sums at which what went before and it exceed the limit.
struct Found {
  int place;
  Mass before;
  Mass at;
  Mass limit;
  Mass total;
};

// In two words, because shared memory adds 32 bits at a time by itself, 64 only by retries.
struct Sum {
  unsigned low, high;
  __device__ Mass mass() const { return static_cast<Mass>(high) << 32 | low; }
  __device__ void set(Mass m) {
    low = static_cast<unsigned>(m), high = static_cast<unsigned>(m >> 32);
  }
  __device__ void add(Mass m) {  // by any number of threads at once
    const unsigned added = static_cast<unsigned>(m), before = atomicAdd(&low, added);
    const unsigned rest = static_cast<unsigned>(m >> 32) + (before + added < before ? 1 : 0);
    if (rest > 0) atomicAdd(&high, rest);
  }
};

struct Block {
  Sum sums[kBins + kWarp];
  Mass parts[kMostWarps];
  Found found;
};

__device__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

struct Row {
  const float* logits;
  int n;
  int unit_bits;
};

// Larger for larger numbers; -0 and 0 are equal.
constexpr unsigned kNanKey = 0xffffffffu;
__device__ unsigned order_key(float x) {
  if (x != x) return kNanKey;
  const unsigned bits = static_cast<unsigned>(__float_as_int(x + 0.0f));
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ float number_of_key(unsigned key) {
  return __int_as_float(static_cast<int>(key >> 31 ? key & 0x7fffffffu : ~key));
}

// The entries that are kept: those above key, and of those at key the ones up to index `last`.
struct Cut {
  unsigned key = 0;
  int last = 0x7fffffff;
  __device__ bool keeps(float x, int i) const {
    const unsigned k = order_key(x);
    return k > key || (k == key && i <= last);
  }
};
__device__ Cut stricter(const Cut& a, const Cut& b) {
  if (a.key != b.key) return a.key > b.key ? a : b;
  return a.last < b.last ? a : b;
}

// exp((x - max) / temperature) to about one unit in the last place: the argument carries its
// rounding along, so that it counts no more than the exponential's own.
struct Softmax {
  float max;
  float temperature;
  float inverse;       // 1 / temperature ...
  float inverse_rest;  // ... is the sum of both

  __device__ Softmax(float m, float t) : max(m), temperature(t), inverse(1.0f / t) {
    inverse_rest = fmaf(-inverse, t, 1.0f) * inverse;
  }
  __device__ float weight(float x) const {
    const float d = x - max;
    if (d == 0.0f) return 1.0f;  // also where 1 / temperature is infinite
    const float y = d * inverse;
    if (!(y > -104.0f)) return 0.0f;  // the smallest float is exp(-103.28)
    const float subtracted = x - d;   // of max, as far as d tells
    const float d_rest = (x - (d + subtracted)) + (subtracted - max);
    const float rest = fmaf(d, inverse, -y) + fmaf(d, inverse_rest, d_rest * inverse);
    const float e = expf(y);
    return fmaf(e, rest, e);
  }
};

// w * 2^unit_bits rounded down, but at least one for a positive w, which can be drawn.
__device__ Mass units(float w, int unit_bits) {
  if (!(w > 0.0f)) return 0;
  const int bits = __float_as_int(w);
  const Mass fraction = (bits & 0x7fffff) | 0x800000;
  const int shift = (bits >> 23) - 150 + unit_bits;  // w is fraction * 2^(exponent - 150)
  const Mass count = shift >= 0 ? fraction << shift : shift > -24 ? fraction >> -shift : 0;
  return count > 0 ? count : 1;
}

__device__ Mass warp_upto(Mass x, int lane) {
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const Mass other = __shfl_up_sync(kAllLanes, x, offset);
    if (lane >= offset) x += other;
  }
  return x;
}
__device__ Mass warp_sum(Mass x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// combine() over all threads of the block, for all of them. combine is associative and commutative.
template <typename Combine>
__device__ Mass combine_block(Block& block, Mass x, const Combine& combine) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x = combine(x, __shfl_xor_sync(kAllLanes, x, offset));
  if (threadIdx.x % kWarp == 0) block.parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = block.parts[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / kWarp; ++w) x = combine(x, block.parts[w]);
  __syncthreads();
  return x;
}

// Sums are searched in runs, one per lane; a place in between keeps lanes from each other's banks.
__device__ int slot(int place, int run) { return place + place / run; }

// Searches sums[0 .. count), of which one at least is not 0, by the first warp; all threads get
// the result. limit_of(total) is cut to total - 1, so that there is one.
template <typename Limit>
__device__ Found find_first(Block& block, int count, const Limit& limit_of) {
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int lane = threadIdx.x, run = ceil_div(count, kWarp);
    Mass sum = 0;
    for (int p = lane * run; p < (lane + 1) * run && p < count; ++p)
      sum += block.sums[slot(p, run)].mass();
    const Mass upto = warp_upto(sum, lane);
    const Mass total = __shfl_sync(kAllLanes, upto, kWarp - 1);
    const Mass wanted = limit_of(total);
    const Mass limit = wanted < total ? wanted : total - 1;
    const int first = __ffs(static_cast<int>(__ballot_sync(kAllLanes, upto > limit))) - 1;
    Mass before = __shfl_sync(kAllLanes, upto - sum, first);
    for (int p = first * run; p < (first + 1) * run; p += kWarp) {
      const int place = p + lane;
      const bool inside = place < (first + 1) * run && place < count;
      const Mass at = inside ? block.sums[slot(place, run)].mass() : 0;
      const Mass through = before + warp_upto(at, lane);
      const unsigned beyond = __ballot_sync(kAllLanes, through > limit);
      if (beyond != 0) {
        if (lane == __ffs(static_cast<int>(beyond)) - 1)
          block.found = {place, through - at, at, limit, total};
        break;
      }
      before = __shfl_sync(kAllLanes, through, kWarp - 1);
    }
  }
  __syncthreads();
  return block.found;
}

// The entries up to the first, largest one at which their masses exceed limit_of(all masses).
struct Boundary {
  unsigned key = 0;  // order_key() of that entry
  Mass before = 0;   // of larger ones
  Mass at = 0;       // of equal ones
  Mass limit = 0;
};
template <typename MassOf, typename Limit>
__device__ Boundary find_boundary(Block& block, const Row& row, const MassOf& mass_of,
                                  const Limit& limit_of) {
  constexpr int kRun = kBins / kWarp;
  Boundary result;
  unsigned decided = 0;  // the bits of key that are
  for (int digit = 0; digit < 3; ++digit) {
    const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0;
    for (int p = threadIdx.x; p < kBins + kWarp; p += blockDim.x) block.sums[p].set(0);
    __syncthreads();
    for (int i = threadIdx.x; i < row.n; i += blockDim.x) {
      const float x = row.logits[i];
      const unsigned key = order_key(x);
      if ((key & decided) != result.key) continue;
      const Mass mass = mass_of(x);
      const int bin = kBins - 1 - static_cast<int>(key >> shift & (kBins - 1));  // larger first
      if (mass > 0) block.sums[slot(bin, kRun)].add(mass);
    }
    const Found found = find_first(block, kBins, [&](Mass total) {
      return digit == 0 ? limit_of(total) : result.limit - result.before;
    });
    if (digit == 0) result.limit = found.limit;
    result.before += found.before;
    result.at = found.at;
    // The last two digits overlap in a bit, which all that are left share.
    result.key |= static_cast<unsigned>(kBins - 1 - found.place) << shift;
    decided = ~0u << shift;
  }
  return result;
}

// The first index at which the masses up to it exceed limit_of(all masses), and all masses.
struct Drawn {
  int index;
  Mass total;
};
template <typename MassOf, typename Limit>
__device__ Drawn find_index(Block& block, const Row& row, const MassOf& mass_of,
                            const Limit& limit_of) {
  const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const int steps = ceil_div(row.n, kBins * kWarp);
  const int length = kWarp * (steps > kPerThread ? steps : kPerThread);  // of a segment
  const int n_segments = ceil_div(row.n, length), run = ceil_div(n_segments, kWarp);
  for (int s = threadIdx.x / kWarp; s < n_segments; s += warps) {
    Mass sum = 0;
#pragma unroll 4
    for (int i = s * length + lane; i < (s + 1) * length && i < row.n; i += kWarp)
      sum += mass_of(row.logits[i], i);
    sum = warp_sum(sum);
    if (lane == 0) block.sums[slot(s, run)].set(sum);
  }
  const Found segment = find_first(block, n_segments, limit_of);
  const int begin = segment.place * length, left = row.n - begin;
  const int count = left < length ? left : length;  // at most kBins (sample())
  for (int j = threadIdx.x; j < count; j += blockDim.x)
    block.sums[slot(j, ceil_div(count, kWarp))].set(mass_of(row.logits[begin + j], begin + j));
  const Found entry =
      find_first(block, count, [&](Mass) { return segment.limit - segment.before; });
  return {begin + entry.place, segment.total};
}

__device__ Cut top_k(Block& block, const Row& row, int k) {
  Cut cut;
  if (k > 0 && k < row.n)
    cut.key = find_boundary(
                  block, row, [](float) { return Mass{1}; },
                  [&](Mass) { return static_cast<Mass>(k - 1); })
                  .key;
  return cut;
}

// Among the entries that `within` keeps. p below 1.
__device__ Cut top_p(Block& block, const Row& row, const Softmax& softmax, float p, Rules rules,
                     const Cut& within) {
  const double wanted = p > 0.0f ? static_cast<double>(p) : 0.0;
  const auto limit_of = [&](Mass total) {
    const double all = static_cast<double>(total);
    // Suno: down to the first entry at which the sum exceeds p.
    if (rules == Rules::Suno) return static_cast<Mass>(wanted * all);
    // HF: up while the sum is at most 1 - p, but for the largest. So an entry stays whose larger
    // ones sum to less than all but what may be dropped.
    const Mass dropped = static_cast<Mass>((1.0 - wanted) * all);
    return dropped < total ? total - dropped - 1 : 0;
  };
  const Boundary boundary = find_boundary(
      block, row,
      [&](float x) {
        return order_key(x) >= within.key ? units(softmax.weight(x), row.unit_bits) : 0;
      },
      limit_of);
  Cut cut;
  cut.key = boundary.key;
  // Of equal entries the first ones, as many as it takes.
  const Mass each = units(softmax.weight(number_of_key(boundary.key)), row.unit_bits);
  const Mass needed = (boundary.limit - boundary.before) / each + 1;
  if (needed < boundary.at / each)
    cut.last =
        find_index(
            block, row, [&](float x, int) { return Mass{order_key(x) == boundary.key ? 1u : 0u}; },
            [&](Mass) { return needed - 1; })
            .index;
  return cut;
}

__device__ double probability(float weight, Mass total, int unit_bits) {
  return static_cast<double>(weight) * static_cast<double>(Mass{1} << unit_bits) /
         static_cast<double>(total);
}

// By all threads of the block, with the same result.
__device__ int sample_one(Block& block, const Row& row, const SampleParams& params) {
  // The largest, lowest index among equals: in one number, which a NaN makes all ones.
  Mass best = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < row.n; i += blockDim.x) {
    const unsigned key = order_key(row.logits[i]);
    const Mass entry =
        key == kNanKey ? ~Mass{0} : static_cast<Mass>(key) << 32 | ~static_cast<unsigned>(i);
    if (entry > best) best = entry;
  }
  best = combine_block(block, best, [](Mass a, Mass b) { return a > b ? a : b; });
  if (best == ~Mass{0}) return kSampleNan;
  const int largest = static_cast<int>(~static_cast<unsigned>(best));
  const float max = row.logits[largest];
  if (std::isinf(max)) return kSampleInfinite;

  const bool hf = params.rules == Rules::Hf, hot = params.temperature > 0.0f;
  const bool may_stop = params.eos >= 0 && params.min_eos_p > 0.0f;
  const double min_eos_p = static_cast<double>(params.min_eos_p);
  const Softmax plain(max, 1.0f);
  if (may_stop && (hf || !hot)) {
    Mass total = 0;
    for (int i = threadIdx.x; i < row.n; i += blockDim.x)
      total += units(plain.weight(row.logits[i]), row.unit_bits);
    total = combine_block(block, total, [](Mass a, Mass b) { return a + b; });
    const double p = probability(plain.weight(row.logits[params.eos]), total, row.unit_bits);
    if (hf ? p > min_eos_p : p >= min_eos_p) return params.eos;
  }
  if (!hot) return largest;

  const Softmax scaled(max, params.temperature);
  Cut cut = top_k(block, row, params.top_k);
  if (params.top_p < 1.0f)
    cut = stricter(cut, hf ? top_p(block, row, scaled, params.top_p, params.rules, cut)
                           : top_p(block, row, plain, params.top_p, params.rules, Cut()));
  const auto weight_of = [&](float x, int i) { return cut.keeps(x, i) ? scaled.weight(x) : 0.0f; };
  const Drawn drawn = find_index(
      block, row, [&](float x, int i) { return units(weight_of(x, i), row.unit_bits); },
      [&](Mass total) { return static_cast<Mass>(params.coin * static_cast<double>(total)); });
  if (may_stop && !hf) {
    const float weight = weight_of(row.logits[params.eos], params.eos);
    if (probability(weight, drawn.total, row.unit_bits) >= min_eos_p) return params.eos;
  }
  return drawn.index;
}

__global__ void __launch_bounds__(kMostWarps* kWarp, 1)
    sample_rows(int32_t* ids, const float* logits, int64_t stride, int n, int unit_bits,
                const SampleParams* params) {
  BARKRT_SHARED(Block, block);
  const Row row = {logits + blockIdx.x * stride, n, unit_bits};
  const int id = sample_one(block, row, params[blockIdx.x]);
  if (threadIdx.x == 0) ids[blockIdx.x] = id;
}

}  // namespace

void sample(Stream& stream, int32_t* ids, ConstView logits, const SampleParams* params) {
  if (logits.rows == 0) return;
  BARKRT_CHECK(logits.cols > 0 && logits.cols <= int64_t{kBins} * kBins);
  int unit_bits = 63;
  while (logits.cols > int64_t{1} << (63 - unit_bits)) --unit_bits;
  const int64_t warps =
      std::min<int64_t>(divide_up<int64_t>(logits.cols, kPerThread * kWarp), kMostWarps);
  launch(stream.handle(), static_cast<unsigned>(logits.rows), static_cast<unsigned>(warps * kWarp),
         0, sample_rows, ids, logits.data, logits.stride, static_cast<int>(logits.cols), unit_bits,
         params);
}

}  // namespace barkrt::cuda
