// backend.cc: choice of kernels, memory, and sampling.
#include "cpu/cpu_backend.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "error.h"

namespace barkrt {
namespace {

constexpr size_t kAlignment = 64;
constexpr int64_t kHugePage = 2 << 20;

// Buffers from this size on are pages of their own, which the system has back as soon as they are
// freed. The C library keeps what lies at the end of a thread's arena, tens of megabytes for a
// session, and malloc_trim does not take it away. Sanitizers watch the C library's blocks only.
#if defined(__SANITIZE_ADDRESS__)
bool is_mapped(int64_t) { return false; }
#else
bool is_mapped(int64_t bytes) { return bytes >= kHugePage; }
#endif

// NULL when there is no memory. A cache row is read in slices of one head, far apart: with small
// pages each costs a page walk, so the pages are huge where the system has such.
void* map_pages(int64_t bytes) {
  const size_t size = static_cast<size_t>(bytes), huge = static_cast<size_t>(kHugePage);
  void* mapped =
      ::mmap(nullptr, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  char* const p = begin + (huge - reinterpret_cast<uintptr_t>(begin) % huge) % huge;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  char* const end = p + (size + page - 1) / page * page;
  if (p > begin) ::munmap(begin, static_cast<size_t>(p - begin));
  if (end < begin + size + huge) ::munmap(end, static_cast<size_t>(begin + size + huge - end));
#if defined(MADV_HUGEPAGE)
  ::madvise(p, size, MADV_HUGEPAGE);  // may be refused: only slower
#endif
  return p;
}

#if defined(__x86_64__)
// Not every compiler's __builtin_cpu_supports knows the name.
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 1u << 4) != 0;
}

bool has_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25,
                     kAll = kBf16 | kTile | kInt8;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAll) == kAll;
}

// A process has to ask for tiles before it uses them, once for all its threads.
bool kernel_permits_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // <asm/prctl.h> of Linux 5.16
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

enum class Amx { None, Refused, Usable };
Amx amx() {
  static const Amx found = !has_amx()               ? Amx::None
                           : kernel_permits_tiles() ? Amx::Usable
                                                    : Amx::Refused;
  return found;
}
#endif

// Tables this processor can run, best first.
std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    const bool vnni = __builtin_cpu_supports("avx512vnni");
    const bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
    if (bf16 && amx() == Amx::Usable) usable.push_back(&kKernelsAvx512Amx);
    if (bf16) usable.push_back(&kKernelsAvx512Bf16);
    if (vnni) usable.push_back(&kKernelsAvx512Vnni);
    usable.push_back(&kKernelsAvx512);
  }
  // No name for F16C before GCC 13; every processor with AVX2 has it.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (has_avx_vnni()) usable.push_back(&kKernelsAvx2Vnni);
    usable.push_back(&kKernelsAvx2);
  }
#endif
  usable.push_back(&kKernelsGeneric);
  return usable;
}

std::unique_ptr<Backend> make_with(int n_threads, const Kernels& kernels) {
  BARKRT_CHECK(n_threads >= 0);
  return std::make_unique<CpuBackend>(n_threads > 0 ? n_threads : cpu_usable_cores(), kernels);
}

}  // namespace

void* allocate_pages(int64_t bytes) {
  if (is_mapped(bytes)) return map_pages(bytes);
  const size_t rounded = (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
  return std::aligned_alloc(kAlignment, std::max(rounded, kAlignment));
}

void free_pages(void* p, int64_t bytes) noexcept {
  if (is_mapped(bytes))
    ::munmap(p, static_cast<size_t>(bytes));
  else
    std::free(p);
}

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable_kernels()) names.emplace_back(kernels->name);
  return names;
}

bool cpu_amx_is_refused() {
#if defined(__x86_64__)
  return amx() == Amx::Refused;
#else
  return false;
#endif
}

int cpu_usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails on machines with more processors than cpu_set_t has bits.
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(CPU_COUNT(&set), 1);
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

std::unique_ptr<Backend> make_cpu_backend(int n_threads) {
  return make_with(n_threads, *usable_kernels().front());
}

std::unique_ptr<Backend> make_cpu_backend(int n_threads, const std::string& instruction_set) {
  for (const Kernels* kernels : usable_kernels())
    if (instruction_set == kernels->name) return make_with(n_threads, *kernels);
  fail(Status::Unsupported, "this processor cannot run the instruction set \"%s\"",
       instruction_set.c_str());
}

void* CpuBackend::alloc(int64_t bytes) {
  BARKRT_CHECK(bytes >= 0);
  void* p = allocate_pages(bytes);
  if (p == nullptr)
    fail(Status::OutOfMemory, "cpu: cannot allocate %lld bytes; free memory, then try again",
         static_cast<long long>(bytes));
  return p;
}

void CpuBackend::free(void* p, int64_t bytes) noexcept { free_pages(p, bytes); }

void CpuBackend::upload(void* dst, const void* host_src, int64_t bytes) {
  copy(dst, host_src, bytes);
}

void CpuBackend::download(void* host_dst, const void* src, int64_t bytes) {
  copy(host_dst, src, bytes);
}

void CpuBackend::copy(void* dst, const void* src, int64_t bytes) {
  if (bytes > 0) std::memmove(dst, src, static_cast<size_t>(bytes));
}

void CpuBackend::zero(void* dst, int64_t bytes) {
  if (bytes > 0) std::memset(dst, 0, static_cast<size_t>(bytes));
}

const void* CpuBackend::place_weights(const void* host, int64_t) { return host; }

void CpuBackend::release_weights(const void*) noexcept {}

CpuBackend::Op::Op(CpuBackend& backend, int64_t n_loops) {
  pass_ = current_.of == &backend ? current_.pass
                                  : &own_.emplace(backend.pool_, backend.scratch_, n_loops);
}

void CpuBackend::Op::finish() {
  if (own_) own_->finish();
}

thread_local CpuBackend::Current CpuBackend::current_;

void CpuBackend::repeat(const std::vector<uint64_t>&, const HostBlock&,
                        const std::function<void()>& issue) {
  constexpr int64_t kLoops = 160;  // of a step of one row of bark, 24 layers
  std::unique_ptr<Pass> pass;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!passes_.empty()) {
      pass = std::move(passes_.back());
      passes_.pop_back();
    }
  }
  if (!pass) pass = std::make_unique<Pass>(pool_, scratch_, kLoops);
  pass->chain.begin_early();
  struct Leave {
    Current outer;
    ~Leave() { current_ = outer; }
  };
  {
    const Leave leave{current_};
    current_ = {this, pass.get()};
    issue();
  }
  pass->finish();
  const std::lock_guard<std::mutex> lock(mutex_);
  passes_.push_back(std::move(pass));
}

void CpuBackend::sample(int32_t* ids, ConstView logits, const SampleParams* params) {
  const bool in_pass = current_.of == this;
  Op op(*this);
  op->chain.parallel_for(logits.rows, 4, [=](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(sample_scratch_bytes(logits.cols)) /
                               sizeof(float));
    for (int64_t t = begin; t < end; ++t) {
      try {
        ids[t] = sample_row(logits.row(t), logits.cols, params[t], scratch.data());
      } catch (const Error& error) {
        if (!in_pass || error.status() != Status::Internal) throw;
        ids[t] = -1;  // as repeat() has it
      }
    }
  });
  op.finish();
}

}  // namespace barkrt
