#include "tracing.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>

#include "races.h"
#include "report.h"
#include "runtime.h"

namespace emulation {
namespace {

bool is_traced = false;

// Pieces of device memory that have a cell: halves, the smallest that kernels write.
constexpr size_t kPiece = 2;
constexpr size_t kHistoryBytes = kArenaBytes / kPiece * sizeof(Cell);

struct Seen {
  const void* p;
  size_t bytes;
  bool write, atomic;
  const void* from;    // the instruction
  bool whole = false;  // a whole struct, which may have gaps that nobody writes
};

struct Image {
  uintptr_t base = 0;
  uintptr_t begin = 0, end = 0;  // of one segment
};

// The program's segment with the address, if it is one that cannot be written.
bool in_constants(const void* p) {
  Image wanted;
  wanted.begin = reinterpret_cast<uintptr_t>(p);
  return dl_iterate_phdr(
             [](dl_phdr_info* info, size_t, void* data) {
               const uintptr_t at = static_cast<Image*>(data)->begin;
               for (int i = 0; i < info->dlpi_phnum; ++i) {
                 const ElfW(Phdr)& part = info->dlpi_phdr[i];
                 const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
                 if ((part.p_type == PT_LOAD && (part.p_flags & PF_W) == 0) ||
                     part.p_type == PT_GNU_RELRO)
                   if (at >= begin && at < begin + part.p_memsz) return 1;
               }
               return 0;
             },
             &wanted) != 0;
}

// "file:line" of an instruction, by addr2line of binutils.
std::string place_of(const void* instruction) {
  Image image;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {  // the first is the program
        static_cast<Image*>(data)->base = info->dlpi_addr;
        return 1;
      },
      &image);
  char command[128], line[512], text[2048] = "";
  std::snprintf(command, sizeof(command), "addr2line -C -i -s -e /proc/%d/exe %#zx", getpid(),
                reinterpret_cast<uintptr_t>(instruction) - 1 - image.base);
  FILE* out = popen(command, "r");
  while (out != nullptr && std::fgets(line, sizeof(line), out) != nullptr) {
    line[std::strcspn(line, " \n")] = 0;
    if (std::strlen(text) + std::strlen(line) + 8 < sizeof(text)) {
      std::strcat(text, text[0] == 0 ? "" : " from ");
      std::strcat(text, line);
    }
  }
  if (out != nullptr) pclose(out);
  return text;
}

struct Reported {
  std::mutex mutex;
  std::set<std::pair<const void*, std::string>> all;
};
Reported& reported() {
  static auto* k = new Reported;
  return *k;
}

// Once for each instruction and kind, between two take_reports().
void found(const Seen& s, const char* what) {
  {
    Reported& k = reported();
    const std::lock_guard<std::mutex> lock(k.mutex);
    if (!k.all.insert({s.from, what}).second) return;
  }
  report(std::string(what) + ": " +
         (s.atomic  ? "atomic"
          : s.write ? "store"
                    : "load") +
         " of " + std::to_string(s.bytes) + " bytes at " + place_of(s.from) + where());
}

bool inside(const void* p, size_t bytes, const void* begin, size_t size) {
  const auto at = reinterpret_cast<uintptr_t>(p), first = reinterpret_cast<uintptr_t>(begin);
  return at >= first && at + bytes <= first + size;
}

void note(const Seen& s, Cell* cells, size_t count, uint32_t oldest, const Thread& t,
          const char* undefined, const char* race) {
  size_t n_undefined = 0;
  for (size_t i = 0; i < count; ++i) {
    const Found f =
        s.write ? note_write(cells[i], t, oldest, s.atomic) : note_read(cells[i], t, oldest);
    n_undefined = f == Found::Undefined ? n_undefined + 1 : 0;
    if (n_undefined * s.bytes >= (s.whole ? 8 : 1) * count) return found(s, undefined);
    if (f == Found::Race) return found(s, race);
  }
}

Cell* cells_of(const Device& device, const void* p) {
  return static_cast<Cell*>(device.history) +
         static_cast<size_t>(static_cast<const std::byte*>(p) - device.arena) / kPiece;
}

bool note_shared(const Seen& s, const Thread& t) {
  for (SharedObject& object : t.block->shared) {
    const std::byte* begin = object.data.get();
    if (!inside(s.p, 1, begin, object.bytes)) continue;
    if (!inside(s.p, s.bytes, begin, object.bytes))
      found(s, "beyond the end of shared memory");
    else
      note(s, object.history.get() + (static_cast<const std::byte*>(s.p) - begin), s.bytes,
           t.block->begin_time, t, "undefined shared memory", "race in shared memory");
    return true;
  }
  return false;
}

// The last allocation that was met; good while none is made or freed.
struct Met {
  uint64_t changes = 0;
  const std::byte *begin = nullptr, *end = nullptr;
  const Device* device = nullptr;
};

bool note_device(const Seen& s, const Thread& t) {
  static Met met;
  const auto* at = static_cast<const std::byte*>(s.p);
  if (met.changes == runtime().n_allocation_changes && at >= met.begin && at + s.bytes <= met.end &&
      s.bytes >= kPiece) {
    note(s, cells_of(*met.device, s.p), s.bytes / kPiece, kHostTime, t, "undefined device memory",
         "race in device memory");
    return true;
  }
  const Device* device = device_of(s.p);
  if (device == nullptr) return false;
  if (device != runtime().devices[static_cast<size_t>(t.block->limits->index)].get())
    found(s, "memory of another device");
  else if (allocation_of(s.p, s.bytes) == nullptr)
    found(s, "outside of an allocation of device memory");
  else if (s.bytes >= kPiece) {
    const std::byte* begin = std::prev(device->live.upper_bound(at))->first;
    met = {runtime().n_allocation_changes, begin, begin + device->live.at(begin).bytes, device};
    note(s, cells_of(*device, s.p), s.bytes / kPiece, kHostTime, t, "undefined device memory",
         "race in device memory");
  }
  return true;
}

void see(const Seen& s) {
  Thread* t = current();
  if (t != nullptr && t->in_emulation) return;
  if (t == nullptr) {
    if (device_of(s.p) != nullptr) found(s, "device memory in host code");
    return;
  }
  if (t->fiber.on_stack(s.p)) return;
  const InEmulation here;
  if (note_shared(s, *t) || note_device(s, *t)) return;
  const Warp& warp = t->block->warps[static_cast<size_t>(t->number / 32)];
  if (!s.write) {
    if (inside(s.p, s.bytes, warp.values, sizeof(warp.values))) return;
    if (inside(s.p, s.bytes, t->block->call->begin(), t->block->call->size())) return;
    for (const void* own : {&threadIdx, &blockIdx, &blockDim, &gridDim})
      if (inside(s.p, s.bytes, own, sizeof(threadIdx))) return;
    if (in_constants(s.p)) return;
  }
  found(s, "host memory in a kernel");
}

}  // namespace

bool traced() { return is_traced; }

void report_again() {
  Reported& k = reported();
  const std::lock_guard<std::mutex> lock(k.mutex);
  k.all.clear();
}

void open_history(Device& device) {
  if (!is_traced) return;
  device.history = mmap(nullptr, kHistoryBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (device.history == MAP_FAILED) throw std::bad_alloc();
}
void close_history(Device& device) {
  if (device.history != nullptr) munmap(device.history, kHistoryBytes);
}

void forget(const void* p, size_t bytes) {
  const Device* device = is_traced ? device_of(p) : nullptr;
  if (device == nullptr) return;
  Cell* cell = cells_of(*device, p);
  std::fill(cell, cell + (bytes + kPiece - 1) / kPiece, Cell{});
}
void define(const void* p, size_t bytes) {
  const Device* device = is_traced ? device_of(p) : nullptr;
  if (device == nullptr) return;
  Cell* cell = cells_of(*device, p);
  std::fill(cell, cell + (bytes + kPiece - 1) / kPiece, Cell{{kHostTime, 0}, {}});
}
void define_as(const void* p, const void* from, size_t bytes) {
  const Device* device = is_traced ? device_of(p) : nullptr;
  const Device* other = is_traced ? device_of(from) : nullptr;
  if (device == nullptr || other == nullptr) return define(p, bytes);
  Cell* cell = cells_of(*device, p);
  const Cell* source = cells_of(*other, from);
  for (size_t i = 0; i < (bytes + kPiece - 1) / kPiece; ++i)
    cell[i] = {{source[i].written.time != 0 ? kHostTime : 0, 0}, {}};
}

void atomic_access(const void* p, size_t bytes) {
  if (!is_traced) return;
  see({p, bytes, true, true, __builtin_return_address(0)});
  const InEmulation here;
  note_atomic(p, *current());
}
void fence() {
  if (!is_traced) return;
  const InEmulation here;
  note_fence(*current());
}

}  // namespace emulation

// What -fsanitize=thread calls.
using emulation::see;
#define BARKRT_TRACED(name, bytes, write)                       \
  extern "C" void __tsan_##name(void* p) {                      \
    see({p, bytes, write, false, __builtin_return_address(0)}); \
  }
#define BARKRT_TRACED_OF(bytes)                      \
  BARKRT_TRACED(read##bytes, bytes, false)           \
  BARKRT_TRACED(write##bytes, bytes, true)           \
  BARKRT_TRACED(unaligned_read##bytes, bytes, false) \
  BARKRT_TRACED(unaligned_write##bytes, bytes, true)
BARKRT_TRACED_OF(1)
BARKRT_TRACED_OF(2)
BARKRT_TRACED_OF(4)
BARKRT_TRACED_OF(8)
BARKRT_TRACED_OF(16)
extern "C" {
void __tsan_read_range(void* p, unsigned long bytes) {
  see({p, bytes, false, false, __builtin_return_address(0), true});
}
void __tsan_write_range(void* p, unsigned long bytes) {
  see({p, bytes, true, false, __builtin_return_address(0)});
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_init() { emulation::is_traced = true; }
}

// Atomics of the host's code in .cu files: the operations themselves.
#define BARKRT_ATOMICS(bits, type)                                                                 \
  type __tsan_atomic##bits##_load(const volatile type* p, int) {                                   \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) {                                \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int) {                             \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                            \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int) {                            \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                \
  type __tsan_atomic##bits##_fetch_or(volatile type* p, type v, int) {                             \
    return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                              \
  }                                                                                                \
  type __tsan_atomic##bits##_fetch_and(volatile type* p, type v, int) {                            \
    return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* e, type v, int, int) { \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);        \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* p, type* e, type v, int, int) {   \
    return __atomic_compare_exchange_n(p, e, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);         \
  }
extern "C" {
BARKRT_ATOMICS(8, unsigned char)
BARKRT_ATOMICS(16, unsigned short)
BARKRT_ATOMICS(32, unsigned)
BARKRT_ATOMICS(64, unsigned long long)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
}
