// roofs.cc: streaming reads and peak arithmetic.
#include "roofs.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#if defined(__x86_64__)
#include "cpu/amx_tiles.h"
#endif
#include "cpu/cpu_backend.h"
#include "error.h"

namespace barkrt::bench {
namespace {

constexpr int kRepetitions = 9;

#if defined(__x86_64__)
#define BARKRT_WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BARKRT_WIDEST
#endif

typedef uint64_t Line __attribute__((vector_size(64)));

// Four streams with software prefetch: what one core gets out of memory with 4 KiB pages too.
BARKRT_WIDEST uint64_t read_lines(const Line* p, int64_t n) {
  constexpr int64_t kAhead = 32;
  const int64_t quarter = n / 4;
  Line s0 = {}, s1 = {}, s2 = {}, s3 = {};
  for (int64_t i = 0; i < quarter; ++i) {
    for (int64_t s = 0; s < 4; ++s) __builtin_prefetch(p + s * quarter + i + kAhead);
    s0 ^= p[i], s1 ^= p[quarter + i], s2 ^= p[2 * quarter + i], s3 ^= p[3 * quarter + i];
  }
  const Line sum = (s0 ^ s1) ^ (s2 ^ s3);
  return sum[0] ^ sum[3] ^ sum[7];
}

// Twelve independent chains, more than latency times throughput of any of these instructions. All
// registers start at zero: the cost of arithmetic does not depend on the values.
#if defined(__x86_64__)
#define ZERO(r, n) "vpxor %%xmm" #n ", %%xmm" #n ", %%xmm" #n "\n\t"
#define OP(ins, r, n) ins " %%" r "12, %%" r "13, %%" r #n "\n\t"
#define TWELVE(op, a, r)                                                                          \
  op(a, r, 0) op(a, r, 1) op(a, r, 2) op(a, r, 3) op(a, r, 4) op(a, r, 5) op(a, r, 6) op(a, r, 7) \
      op(a, r, 8) op(a, r, 9) op(a, r, 10) op(a, r, 11)
#define ZERO_OP(a, r, n) ZERO(r, n)
#define CHAINS(name, ins, r)                                                                   \
  void name(int64_t n) {                                                                       \
    __asm__ volatile(TWELVE(ZERO_OP, , r) ZERO(r, 12) ZERO(r, 13) ".p2align 4\n1:\n\t" TWELVE( \
                         OP, ins, r) "dec %0\n\tjnz 1b\n\tvzeroupper"                          \
                     : "+r"(n)                                                                 \
                     :                                                                         \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",   \
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13");                    \
  }
CHAINS(fma512, "vfmadd231ps", "zmm")
CHAINS(fma256, "vfmadd231ps", "ymm")
CHAINS(bf16_512, "vdpbf16ps", "zmm")
CHAINS(i8_512, "vpdpbusd", "zmm")
CHAINS(i8_256, "%{vex%} vpdpbusd", "ymm")

// Four chains by tiles, whose latency is a little above three times their throughput.
void i8_tiles(int64_t n) {
  configure_tiles();
  for (; n > 0; --n) {
    add_products_of_bytes<0, 4, 6>();
    add_products_of_bytes<1, 4, 7>();
    add_products_of_bytes<2, 5, 6>();
    add_products_of_bytes<3, 5, 7>();
  }
  release_tiles();
}
void bf16_tiles(int64_t n) {
  configure_tiles();
  for (; n > 0; --n) {
    add_products_of_pairs<0, 4, 6>();
    add_products_of_pairs<1, 4, 7>();
    add_products_of_pairs<2, 5, 6>();
    add_products_of_pairs<3, 5, 7>();
  }
  release_tiles();
}
constexpr double kTileProducts = 16 * 16 * 16;  // of words

bool is_usable(const char* isa) {
  const std::vector<std::string> usable = cpu_instruction_sets();
  return std::find(usable.begin(), usable.end(), isa) != usable.end();
}
#endif

// Shortest time in which all threads get through work(thread), started together.
double best_seconds(int threads, const std::function<void(int)>& work) {
  double best = 1e9;
  for (int r = 0; r < kRepetitions; ++r) {
    std::atomic<int> ready{0};
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i)
      others.emplace_back([&, i] {
        ++ready;
        while (ready.load() < threads) {
        }
        work(i);
      });
    ++ready;
    while (ready.load() < threads) {
    }
    const auto start = std::chrono::steady_clock::now();
    work(0);
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

double peak(int threads, void (*chains)(int64_t), double per_iteration) {
  constexpr int64_t kIterations = 2000000;
  const double s = best_seconds(threads, [&](int) { chains(kIterations); });
  return per_iteration * static_cast<double>(kIterations) * threads / s;
}

}  // namespace

double Roofs::read(double working_set) const {
  if (working_set <= reads.front().bytes) return reads.front().bytes_per_s;
  for (size_t i = 1; i < reads.size(); ++i) {
    if (working_set > reads[i].bytes) continue;
    const double t =
        std::log(working_set / reads[i - 1].bytes) / std::log(reads[i].bytes / reads[i - 1].bytes);
    return reads[i - 1].bytes_per_s + t * (reads[i].bytes_per_s - reads[i - 1].bytes_per_s);
  }
  return reads.back().bytes_per_s;
}

double Roofs::peak(DType type) const {
  if (type == DType::F16) return std::max(f16, f32);
  if (type == DType::BF16) return std::max(bf16, f32);
  const bool bytes = type == DType::I8 || type == DType::I8Tiles || type == DType::I4;
  return bytes ? std::max(i8, f32) : f32;
}

void Roofs::raise_to(const Roofs& other) {
  for (size_t i = 0; i < reads.size(); ++i)
    reads[i].bytes_per_s = std::max(reads[i].bytes_per_s, other.reads[i].bytes_per_s);
  f32 = std::max(f32, other.f32), f16 = std::max(f16, other.f16);
  bf16 = std::max(bf16, other.bf16), i8 = std::max(i8, other.i8);
}

Roofs measure_roofs(int threads) {
  constexpr int64_t kMegabyte = 1000000;
  constexpr int64_t kHugePage = 2 << 20;
  constexpr int64_t kMost = 400 * kMegabyte;
  Roofs roofs;
  roofs.threads = threads;
  void* area =
      mmap(nullptr, kMost + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) std::perror("mmap"), std::exit(1);
  const uintptr_t start =
      (reinterpret_cast<uintptr_t>(area) + kHugePage - 1) & ~static_cast<uintptr_t>(kHugePage - 1);
  char* buffer = reinterpret_cast<char*>(start);
  madvise(buffer, kMost, MADV_HUGEPAGE);
  std::memset(buffer, 1, kMost);
  std::atomic<uint64_t> sink{0};
  for (const int64_t size : {4, 10, 20, 50, 80, 110, 160, 200, 400}) {
    const int64_t lines = size * kMegabyte / 64 / threads;
    const int64_t turns = std::max<int64_t>(800 / size, 2);
    const double s = best_seconds(threads, [&](int i) {
      for (int64_t turn = 0; turn < turns; ++turn)
        sink += read_lines(reinterpret_cast<const Line*>(buffer) + i * lines, lines);
    });
    const double bytes = static_cast<double>(size * kMegabyte);
    roofs.reads.push_back({bytes, bytes * static_cast<double>(turns) / s});
  }
  munmap(area, kMost + kHugePage);
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f"))
    roofs.f32 = peak(threads, fma512, 12 * 32);
  else if (__builtin_cpu_supports("fma"))
    roofs.f32 = peak(threads, fma256, 12 * 16);
  if (__builtin_cpu_supports("avx512bf16")) roofs.bf16 = peak(threads, bf16_512, 12 * 64);
  if (__builtin_cpu_supports("avx512vnni"))
    roofs.i8 = peak(threads, i8_512, 12 * 128);
  else if (is_usable("avx2_vnni"))
    roofs.i8 = peak(threads, i8_256, 12 * 64);
  if (is_usable("avx512_amx")) {
    roofs.i8 = std::max(roofs.i8, peak(threads, i8_tiles, 4 * kTileProducts * 8));
    roofs.bf16 = std::max(roofs.bf16, peak(threads, bf16_tiles, 4 * kTileProducts * 4));
  }
#endif
  return roofs;
}

#if defined(BARKRT_CUDA)
Roofs measure_cuda_roofs(int cuda_index);  // roofs_cuda.cu
#endif

Roofs measure_roofs(int device, int threads) {
  if (device == 0) return measure_roofs(threads);
#if defined(BARKRT_CUDA)
  return measure_cuda_roofs(device - 1);
#else
  fail(Status::Unsupported, "device %d: this build has no CUDA", device);
#endif
}

void print_roofs(const Roofs& roofs) {
  std::printf("roofs of %s", roofs.device.c_str());
  if (roofs.threads > 0) std::printf(", %d threads", roofs.threads);
  std::printf(": f32 FMA %.0f, f16 %.0f, bf16 %.0f, int8 %.0f G(FL)OP/s\n", roofs.f32 * 1e-9,
              roofs.f16 * 1e-9, roofs.bf16 * 1e-9, roofs.i8 * 1e-9);
  std::printf("  read GB/s by MB read in turns:");
  for (const Roofs::Read& r : roofs.reads)
    std::printf("  %.0f: %.0f", r.bytes * 1e-6, r.bytes_per_s * 1e-9);
  std::printf("\n");
}

}  // namespace barkrt::bench
