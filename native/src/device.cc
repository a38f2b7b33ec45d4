// device.cc: the devices of this machine. Device 0 is the CPU, those behind it are CUDA's.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "backend.h"
#include "cpu/cpu_backend.h"
#include "error.h"
#ifdef BARKRT_CUDA
#include "cuda/cuda_backend.h"
#else
namespace barkrt::cuda {
namespace {
int device_count() { return 0; }
[[noreturn]] void no_device() { fail(Status::Internal, "this build is for the CPU only"); }
DeviceDescription describe_device(int) { no_device(); }
void device_memory(int, int64_t*, int64_t*) { no_device(); }
int64_t trim_device(int) { no_device(); }
std::unique_ptr<Backend> make_backend(int) { no_device(); }
}  // namespace
}  // namespace barkrt::cuda
#endif

namespace barkrt {
namespace {

void need_device(int index) {
  if (index < 0 || index >= device_count())
    fail(Status::NotFound, "there is no device %d: this machine has %d", index, device_count());
}

// The value behind "key<blanks>:" of a /proc file; "" when absent.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (line.compare(0, key.size(), key) != 0 || colon == std::string::npos) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    const size_t value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

// A number alone in a file; -1 when absent or "max".
int64_t file_number(const std::string& path) {
  std::ifstream file(path);
  int64_t value = -1;
  return file >> value ? value : -1;
}

// "key number" of memory.stat; 0 when absent.
int64_t stat_number(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  int64_t value = 0;
  while (file >> name >> value)
    if (name == key) return value;
  return 0;
}

// Lowers free and total to the tightest limit of this process's control groups (version 2): the
// kernel kills at that limit, whatever the machine has left. Page cache it could drop counts as
// free.
void apply_cgroup_limits(int64_t* free_bytes, int64_t* total_bytes) {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (line.compare(0, 3, "0::") != 0) continue;
    std::string group = line.substr(3);
    for (;;) {
      const std::string folder = "/sys/fs/cgroup" + group;
      const int64_t limit = file_number(folder + "/memory.max");
      const int64_t used = file_number(folder + "/memory.current");
      if (limit >= 0 && used >= 0) {
        const int64_t cache = stat_number(folder + "/memory.stat", "inactive_file");
        *total_bytes = std::min(*total_bytes, limit);
        *free_bytes = std::min(*free_bytes, std::max<int64_t>(limit - used + cache, 0));
      }
      const size_t slash = group.rfind('/');
      if (group.size() <= 1 || slash == std::string::npos) break;
      group.resize(slash);
    }
  }
}

// Resident bytes of this process that no file backs; 0 where /proc does not tell. Mapped weights
// are left out: the kernel takes and gives those as it likes.
int64_t anonymous_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;
  if (!(file >> size >> resident >> shared)) return 0;
  return (resident - shared) * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
}

std::string cpu_name() {
  for (const char* key : {"model name", "Model", "Hardware"}) {
    const std::string value = proc_value("/proc/cpuinfo", key);
    if (!value.empty()) return value;
  }
  return "unnamed processor";
}

std::string kernels_detail() {
  const std::string chosen = cpu_instruction_sets().front();
#if defined(__x86_64__)
  if (chosen == "avx512_amx")
    return "avx512_amx kernels: the processor has AVX-512 F, BW, DQ, VL, VNNI (for 8- and 4-bit "
           "weights) and BF16, and AMX (for bf16 weights, from 16 rows on for 8-bit weights, and "
           "for attention of the fine stage)";
  if (chosen == "avx512_bf16")
    return "avx512_bf16 kernels: the processor has AVX-512 F, BW, DQ, VL, VNNI (for 8- and 4-bit "
           "weights) and BF16 (for bf16 weights, and attention of the fine stage)";
  if (chosen == "avx512_vnni")
    return "avx512_vnni kernels: the processor has AVX-512 F, BW, DQ, VL and VNNI (for 8- and "
           "4-bit weights), but not BF16";
  if (chosen == "avx512")
    return "avx512 kernels: the processor has AVX-512 F, BW, DQ and VL, but not VNNI";
  if (chosen == "avx2_vnni")
    return "avx2_vnni kernels: the processor has AVX2, FMA and AVX-VNNI (for 8- and 4-bit "
           "weights), but not AVX-512";
  if (chosen == "avx2")
    return "avx2 kernels: the processor has AVX2 and FMA, but neither AVX-VNNI nor AVX-512";
  return "generic kernels (SSE2): the processor lacks AVX2 or FMA";
#else
  return chosen + " kernels: the only ones for this architecture";
#endif
}

std::string cpu_detail() {
  if (!cpu_amx_is_refused()) return kernels_detail();
  return kernels_detail() +
         "; it has AMX too, but the operating system refuses its use (Linux 5.16 is the first that "
         "permits it)";
}

}  // namespace

int device_count() { return 1 + cuda::device_count(); }

DeviceDescription describe_device(int index) {
  need_device(index);
  if (index > 0) return cuda::describe_device(index - 1);
  int64_t free_bytes = 0, total_bytes = 0;
  device_memory(0, &free_bytes, &total_bytes);
  return {"cpu", "cpu", cpu_name(), cpu_detail(), cpu_usable_cores(), total_bytes};
}

void device_memory(int index, int64_t* free_bytes, int64_t* total_bytes) {
  need_device(index);
  if (index > 0) return cuda::device_memory(index - 1, free_bytes, total_bytes);
  const auto kilobytes = [](const char* key) {
    int64_t value = 0;
    std::istringstream(proc_value("/proc/meminfo", key)) >> value;
    return value * 1024;
  };
  *free_bytes = kilobytes("MemAvailable");
  *total_bytes = kilobytes("MemTotal");
  if (*total_bytes <= 0) fail(Status::Device, "/proc/meminfo does not tell the machine's memory");
  apply_cgroup_limits(free_bytes, total_bytes);
}

std::shared_ptr<MemoryAccount> device_account(int index) {
  need_device(index);
  static const std::vector<std::shared_ptr<MemoryAccount>> accounts = [] {
    std::vector<std::shared_ptr<MemoryAccount>> all;
    for (int i = 0; i < device_count(); ++i) all.push_back(std::make_shared<MemoryAccount>());
    return all;
  }();
  return accounts[static_cast<size_t>(index)];
}

// The CPU backend caches nothing; the C library's heap does. What other threads allocate meanwhile
// makes the result smaller, never negative.
int64_t trim_device(int index) {
  need_device(index);
  if (index > 0) return cuda::trim_device(index - 1);
  const int64_t before = anonymous_bytes();
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
  return std::max<int64_t>(before - anonymous_bytes(), 0);
}

std::unique_ptr<Backend> make_backend(int index, int n_threads,
                                      const std::string& instruction_set) {
  need_device(index);
  if (index > 0) {
    if (!instruction_set.empty())
      fail(Status::Unsupported, "%s has no instruction set \"%s\" to choose",
           cuda::describe_device(index - 1).id.c_str(), instruction_set.c_str());
    return cuda::make_backend(index - 1);
  }
  return instruction_set.empty() ? make_cpu_backend(n_threads)
                                 : make_cpu_backend(n_threads, instruction_set);
}

}  // namespace barkrt
