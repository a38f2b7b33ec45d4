#include "gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "error.h"
#include "gguf_cursor.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF images are used in place");

namespace barkrt {

using gguf::Cursor;
using gguf::shown;
using gguf::Value;

namespace {

constexpr int64_t kAlignment = 64;          // of tensor data: what the kernels are promised
constexpr int64_t kMaxAlignment = 1 << 20;  // above it the padding itself is an attack
constexpr int kMaxDims = 4;                 // by the GGUF standard

struct TensorType {
  uint32_t id;
  const char* name;
};
constexpr TensorType kOtherTensorTypes[] = {
    {2, "Q4_0"},     {3, "Q4_1"},    {6, "Q5_0"},     {7, "Q5_1"},   {8, "Q8_0"},    {9, "Q8_1"},
    {10, "Q2_K"},    {11, "Q3_K"},   {12, "Q4_K"},    {13, "Q5_K"},  {14, "Q6_K"},   {15, "Q8_K"},
    {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
    {22, "IQ2_S"},   {23, "IQ4_XS"}, {25, "I16"},     {27, "I64"},   {28, "F64"},    {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"}};

DType read_tensor_type(Cursor& in, std::string_view name, const std::string& origin) {
  const int64_t start = in.at();
  const auto type = in.read<uint32_t>("a tensor's type");
  switch (type) {
    case 0:
      return DType::F32;
    case 1:
      return DType::F16;
    case 24:
      return DType::I8;
    case 26:
      return DType::I32;
    case 30:
      return DType::BF16;
    default:
      break;
  }
  for (const TensorType& known : kOtherTensorTypes)
    if (known.id == type)
      fail(Status::Unsupported,
           "%s: tensor %s is of type %s; F32, F16, BF16, I8 and I32 are supported", origin.c_str(),
           shown(name).c_str(), known.name);
  in.bad(start, "tensor " + shown(name) + " is of unknown type " + std::to_string(type));
}

}  // namespace

struct Gguf::Impl {
  ~Impl() {
    if (mapped != nullptr) ::munmap(mapped, static_cast<size_t>(bytes));
    if (fd >= 0) ::close(fd);
  }

  void parse();
  void read_metadata(Cursor& in, int64_t count);
  void read_tensor(Cursor& in);
  void place_tensors(Cursor& in);
  int64_t alignment(const Cursor& in) const;

  const Value& need(std::string_view key, bool right_type(const Value&), const char* wanted) const;
  int64_t integer(std::string_view key, uint32_t type, int64_t offset, int64_t min,
                  int64_t max) const;
  template <typename T>
  T load(int64_t offset) const {
    T v;
    std::memcpy(&v, data + offset, sizeof v);
    return v;
  }
  [[noreturn]] void bad_key(std::string_view key, const std::string& why) const {
    fail(Status::BadModel, "%s: %s %s", origin.c_str(), shown(key).c_str(), why.c_str());
  }

  std::string origin;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  void* mapped = nullptr;
  int fd = -1;  // of the mapped file, for further mappings: its name may mean another file by now
  std::unordered_map<std::string_view, Value> metadata;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string_view, size_t> by_name;
};

void Gguf::Impl::parse() {
  Cursor in(data, bytes, origin);
  if (bytes < 4 || std::memcmp(data, "GGUF", 4) != 0)
    in.bad(0, "this is not a GGUF file: it does not begin with \"GGUF\"");
  in.skip(4, "the magic");
  const auto version = in.read<uint32_t>("the version");
  if (version == 0x03000000) fail(Status::Unsupported, "%s: big-endian GGUF", origin.c_str());
  if (version != 3)
    fail(Status::Unsupported, "%s: GGUF version %u; version 3 is supported", origin.c_str(),
         version);
  const int64_t n_tensors = in.read_count(24, "the number of tensors");
  const int64_t n_metadata = in.read_count(13, "the number of metadata values");
  read_metadata(in, n_metadata);
  for (int64_t i = 0; i < n_tensors; i++) read_tensor(in);
  place_tensors(in);
}

void Gguf::Impl::read_metadata(Cursor& in, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const int64_t start = in.at();
    const std::string_view key = in.read_name("a metadata key");
    if (!metadata.emplace(key, gguf::read_value(in)).second)
      in.bad(start, "metadata key " + shown(key) + " occurs twice");
  }
}

// Name, shape, type and relative offset; place_tensors turns the offset into an absolute one.
void Gguf::Impl::read_tensor(Cursor& in) {
  const int64_t start = in.at();
  GgufTensor t;
  t.name = in.read_name("a tensor name");
  const auto n_dims = in.read<uint32_t>("a tensor's shape");
  if (n_dims < 1 || n_dims > kMaxDims)
    in.bad(start, "tensor " + shown(t.name) + " has " + std::to_string(n_dims) + " dimensions");
  t.shape.resize(n_dims);
  int64_t n = 1;
  for (size_t i = n_dims; i-- > 0;) {
    const auto dim = in.read<uint64_t>("a tensor's shape");
    // Elements are at least one byte each: no product of honest dimensions exceeds the file.
    if (dim < 1 || dim > static_cast<uint64_t>(bytes / n))
      in.bad(start, "tensor " + shown(t.name) + " has a dimension of " + std::to_string(dim) +
                        ", which this file cannot hold");
    t.shape[i] = static_cast<int64_t>(dim);
    n *= t.shape[i];
  }
  t.type = read_tensor_type(in, t.name, origin);
  t.bytes = checked_mul(n, dtype_bytes(t.type));
  const auto offset = in.read<uint64_t>("a tensor's offset");
  if (offset > static_cast<uint64_t>(bytes) || t.bytes > bytes)
    in.bad(start, "tensor " + shown(t.name) + " lies outside the file; it may be incomplete");
  t.offset = static_cast<int64_t>(offset);
  if (!by_name.emplace(t.name, tensors.size()).second)
    in.bad(start, "tensor " + shown(t.name) + " occurs twice");
  tensors.push_back(std::move(t));
}

int64_t Gguf::Impl::alignment(const Cursor& in) const {
  constexpr const char* kKey = "general.alignment";
  const auto found = metadata.find(kKey);
  int64_t value = 32;  // what the GGUF standard says when the key is absent
  if (found != metadata.end()) {
    if (found->second.type != gguf::kU32)
      in.bad(found->second.offset, "general.alignment is not a u32");
    value = load<uint32_t>(found->second.offset);
  }
  if (value < kAlignment || value > kMaxAlignment || (value & (value - 1)) != 0)
    bad_key(kKey, "is " + std::to_string(value) +
                      "; weights are used in place and need 64 (or a larger power of two)");
  return value;
}

void Gguf::Impl::place_tensors(Cursor& in) {
  const int64_t align = alignment(in);
  const int64_t start = (in.at() + align - 1) / align * align;
  std::vector<const GgufTensor*> order;
  order.reserve(tensors.size());
  for (GgufTensor& t : tensors) {
    if (t.offset % align != 0)
      in.bad(start, "tensor " + shown(t.name) + " is not aligned to " + std::to_string(align));
    t.offset += start;
    if (t.offset > bytes || t.bytes > bytes - t.offset)
      in.bad(t.offset, "tensor " + shown(t.name) + " needs " + std::to_string(t.bytes) +
                           " bytes and the file has " + std::to_string(bytes) +
                           " in all; it may be incomplete");
    order.push_back(&t);
  }
  std::sort(order.begin(), order.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); i++)
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset)
      in.bad(order[i]->offset,
             "tensors " + shown(order[i - 1]->name) + " and " + shown(order[i]->name) + " overlap");
}

const Value& Gguf::Impl::need(std::string_view key, bool right_type(const Value&),
                              const char* wanted) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) bad_key(key, "is missing from the metadata");
  const Value& value = found->second;
  if (right_type(value)) return value;
  const std::string is = value.type == gguf::kArray
                             ? std::string("array of ") + gguf::kValueName[value.element]
                             : gguf::kValueName[value.type];
  bad_key(key, "is of type " + is + "; expected " + wanted);
}

int64_t Gguf::Impl::integer(std::string_view key, uint32_t type, int64_t offset, int64_t min,
                            int64_t max) const {
  int64_t v = 0;
  switch (type) {
    case gguf::kU8:
      v = load<uint8_t>(offset);
      break;
    case gguf::kI8:
      v = load<int8_t>(offset);
      break;
    case gguf::kU16:
      v = load<uint16_t>(offset);
      break;
    case gguf::kI16:
      v = load<int16_t>(offset);
      break;
    case gguf::kU32:
      v = load<uint32_t>(offset);
      break;
    case gguf::kI32:
      v = load<int32_t>(offset);
      break;
    case gguf::kI64:
      v = load<int64_t>(offset);
      break;
    default: {
      const auto u = load<uint64_t>(offset);
      if (u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        bad_key(key, "is " + std::to_string(u) + ", which is too large");
      v = static_cast<int64_t>(u);
    }
  }
  if (v < min || v > max)
    bad_key(key, "is " + std::to_string(v) + "; expected " + std::to_string(min) + " to " +
                     std::to_string(max));
  return v;
}

Gguf::Gguf() : impl_(std::make_unique<Impl>()) {}
Gguf::~Gguf() = default;

std::shared_ptr<const Gguf> Gguf::open(const std::string& path) {
  std::shared_ptr<Gguf> gguf(new Gguf());
  // O_NONBLOCK: a named pipe must not hold us up before it is refused.
  const int fd = gguf->impl_->fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    fail(Status::NotFound, "cannot open model %s: %s", path.c_str(), std::strerror(errno));
  struct stat st = {};
  if (::fstat(fd, &st) != 0)
    fail(Status::NotFound, "cannot read model %s: %s", path.c_str(), std::strerror(errno));
  if (!S_ISREG(st.st_mode)) fail(Status::BadModel, "%s is not a file", path.c_str());
  if (st.st_size == 0) fail(Status::BadModel, "%s: the file is empty (at byte 0)", path.c_str());
  // No MADV_WILLNEED: an estimate maps a file of gigabytes to read its header. The kernel's default
  // readahead suits both the header's walk and the weights' streaming.
  void* p = ::mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED)
    fail(Status::OutOfMemory, "cannot map model %s (%lld bytes): %s", path.c_str(),
         static_cast<long long>(st.st_size), std::strerror(errno));
  gguf->impl_->mapped = p;
  gguf->impl_->origin = path;
  gguf->impl_->data = static_cast<const std::byte*>(p);
  gguf->impl_->bytes = st.st_size;
  gguf->impl_->parse();
  return gguf;
}

std::shared_ptr<const Gguf> Gguf::from_memory(const void* data, int64_t bytes) {
  if (data == nullptr || bytes <= 0)
    fail(Status::InvalidArgument, "the model image in memory is empty");
  if (reinterpret_cast<uintptr_t>(data) % kAlignment != 0)
    fail(Status::InvalidArgument, "the model image in memory is not 64-byte aligned");
  std::shared_ptr<Gguf> gguf(new Gguf());
  gguf->impl_->origin = "memory";
  gguf->impl_->data = static_cast<const std::byte*>(data);
  gguf->impl_->bytes = bytes;
  gguf->impl_->parse();
  return gguf;
}

const std::string& Gguf::origin() const { return impl_->origin; }
bool Gguf::is_file() const { return impl_->fd >= 0; }

std::shared_ptr<const std::byte> Gguf::map(int64_t offset, int64_t bytes) const {
  if (!is_file()) return {std::shared_ptr<const std::byte>(), data() + offset};
  const int64_t skip = offset % static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
  const size_t length = static_cast<size_t>(bytes + skip);
  void* const p = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, impl_->fd, offset - skip);
  if (p == MAP_FAILED)
    fail(Status::OutOfMemory, "cannot map %lld bytes of model %s: %s",
         static_cast<long long>(bytes), origin().c_str(), std::strerror(errno));
  const std::shared_ptr<void> pages(p, [length](void* first) { ::munmap(first, length); });
  return {pages, static_cast<const std::byte*>(p) + skip};
}

const std::byte* Gguf::data() const { return impl_->data; }
int64_t Gguf::bytes() const { return impl_->bytes; }
const std::vector<GgufTensor>& Gguf::tensors() const { return impl_->tensors; }

const GgufTensor* Gguf::find(std::string_view name) const {
  const auto found = impl_->by_name.find(name);
  return found == impl_->by_name.end() ? nullptr : &impl_->tensors[found->second];
}

const GgufTensor& Gguf::need(std::string_view name, const std::vector<int64_t>& shape) const {
  const GgufTensor* t = find(name);
  if (t == nullptr)
    fail(Status::BadModel, "%s: tensor %s is missing", origin().c_str(), shown(name).c_str());
  if (t->shape != shape)
    fail(Status::BadModel, "%s: tensor %s has shape %s; the metadata calls for %s",
         origin().c_str(), shown(name).c_str(), shown(t->shape).c_str(), shown(shape).c_str());
  return *t;
}

bool Gguf::has(std::string_view key) const { return impl_->metadata.count(key) != 0; }

int64_t Gguf::need_int(std::string_view key, int64_t min, int64_t max) const {
  const Value& v = impl_->need(
      key, [](const Value& x) { return gguf::is_integer(x.type); }, "an integer");
  return impl_->integer(key, v.type, v.offset, min, max);
}

double Gguf::need_float(std::string_view key, double min, double max) const {
  const Value& v = impl_->need(
      key, [](const Value& x) { return x.type == gguf::kF32 || x.type == gguf::kF64; },
      "f32 or f64");
  const double x = v.type == gguf::kF32 ? static_cast<double>(impl_->load<float>(v.offset))
                                        : impl_->load<double>(v.offset);
  if (!(x >= min && x <= max))  // so that NaN fails
    impl_->bad_key(key, "is " + std::to_string(x) + "; expected " + std::to_string(min) + " to " +
                            std::to_string(max));
  return x;
}

bool Gguf::need_bool(std::string_view key) const {
  const Value& v = impl_->need(
      key, [](const Value& x) { return x.type == gguf::kBool; }, "bool");
  return impl_->load<uint8_t>(v.offset) != 0;
}

// The string whose length lies at *offset, which moves to the byte after it.
static std::string_view string_at(const std::byte* data, int64_t* offset) {
  uint64_t n = 0;
  std::memcpy(&n, data + *offset, sizeof n);
  const char* first = reinterpret_cast<const char*>(data + *offset + 8);
  *offset += 8 + static_cast<int64_t>(n);
  return {first, static_cast<size_t>(n)};
}

std::string_view Gguf::need_string(std::string_view key) const {
  const Value& v = impl_->need(
      key, [](const Value& x) { return x.type == gguf::kString; }, "string");
  int64_t at = v.offset;
  return string_at(data(), &at);
}

std::vector<std::string_view> Gguf::need_strings(std::string_view key) const {
  const Value& v = impl_->need(
      key, [](const Value& x) { return x.type == gguf::kArray && x.element == gguf::kString; },
      "array of string");
  std::vector<std::string_view> out;
  out.reserve(static_cast<size_t>(v.count));
  int64_t at = v.offset;
  for (int64_t i = 0; i < v.count; i++) out.push_back(string_at(data(), &at));
  return out;
}

std::vector<int64_t> Gguf::need_ints(std::string_view key, int64_t min, int64_t max) const {
  const Value& v = impl_->need(
      key, [](const Value& x) { return x.type == gguf::kArray && gguf::is_integer(x.element); },
      "array of integers");
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(v.count));
  for (int64_t i = 0; i < v.count; i++)
    out.push_back(
        impl_->integer(key, v.element, v.offset + i * gguf::kValueBytes[v.element], min, max));
  return out;
}

}  // namespace barkrt
