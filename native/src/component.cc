// component.cc: which tensors form a component, and the components that are live.
#include "component.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "error.h"

namespace barkrt {
namespace {

constexpr const char* kDigestKey = "bark.codec.sha256";
constexpr std::string_view kPrefix = "codec.";
constexpr size_t kDigestLength = 64;

bool is_member(const GgufTensor& t) { return t.name.substr(0, kPrefix.size()) == kPrefix; }

std::string read_digest(const Gguf& gguf) {
  const std::string_view digest = gguf.need_string(kDigestKey);
  const bool hex = digest.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  if (digest.size() != kDigestLength || !hex)
    fail(Status::BadModel, "%s: %s is not a SHA-256 of %zu lower-case hexadecimal digits",
         gguf.origin().c_str(), kDigestKey, kDigestLength);
  return std::string(digest);
}

}  // namespace

std::optional<ComponentPlan> plan_codec(const Gguf& gguf) {
  if (!gguf.has(kDigestKey)) return std::nullopt;
  ComponentPlan plan;
  plan.digest = read_digest(gguf);
  plan.begin = gguf.bytes();
  for (const GgufTensor& t : gguf.tensors()) {
    if (!is_member(t)) continue;
    plan.begin = std::min(plan.begin, t.offset);
    plan.end = std::max(plan.end, t.offset + t.bytes);
    plan.bytes += t.bytes;
  }
  for (const GgufTensor& t : gguf.tensors()) {
    if (is_member(t))
      plan.tensors.push_back(
          {std::string(t.name), t.type, t.shape, t.offset - plan.begin, t.bytes});
    else if (t.offset >= plan.begin && t.offset < plan.end)
      return std::nullopt;
  }
  if (plan.tensors.empty()) return std::nullopt;
  std::sort(plan.tensors.begin(), plan.tensors.end(),
            [](const ComponentTensor& a, const ComponentTensor& b) { return a.name < b.name; });
  return plan;
}

// The live components of the process. Two loads of one component at the same time:
//   1. A and B find none and place the tensors, each its own;
//   2. A publishes; B's publish gives it A's component;
//   3. B compares, takes A's, and its own goes.
// So nobody waits for another's load, and a load that fails takes nothing away.
struct Component::Registry {
  using Key = std::pair<int, std::string>;  // device, digest

  static std::shared_ptr<Registry> instance() {
    static const std::shared_ptr<Registry> one = std::make_shared<Registry>();
    return one;
  }

  std::shared_ptr<const Component> find(const Key& key) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = live.find(key);
    return found == live.end() ? nullptr : found->second.lock();
  }

  // The live component of the key: `mine` unless there is one.
  std::shared_ptr<const Component> publish(const Key& key,
                                           const std::shared_ptr<const Component>& mine) {
    const std::lock_guard<std::mutex> lock(mutex);
    std::weak_ptr<const Component>& entry = live[key];
    std::shared_ptr<const Component> other = entry.lock();
    if (other) return other;
    entry = mine;
    return mine;
  }

  // Called by a component that goes; a successor may have its place already.
  void forget(const Key& key) noexcept {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = live.find(key);
    if (found != live.end() && found->second.expired()) live.erase(found);
  }

  std::mutex mutex;  // guards live
  std::map<Key, std::weak_ptr<const Component>> live;
};

Component::Component(const Gguf& gguf, const ComponentPlan& plan, int device)
    : registry_(Registry::instance()),
      charge_(device_account(device), Category::Shared),
      device_(device),
      plan_(plan),
      host_(gguf.map(plan.begin, plan.end - plan.begin)),
      borrowed_(!gguf.is_file()) {}

Component::~Component() {
  registry_->forget({device_, plan_.digest});
  for (const void* placed : placed_) backend_->release_weights(placed);
}

std::shared_ptr<const Component> Component::acquire(const Gguf& gguf, const ComponentPlan& plan,
                                                    int device,
                                                    const std::function<void()>& pause) {
  const std::shared_ptr<Component> mine(new Component(gguf, plan, device));
  const Registry::Key key(device, plan.digest);
  std::shared_ptr<const Component> live = mine->registry_->find(key);
  if (!live) {
    mine->place(pause);
    live = mine->registry_->publish(key, mine);
    if (live == mine) return mine;
  }
  if (live->borrowed_ && live->host_ != mine->host_) return nullptr;
  if (mine->equals(*live, pause)) return live;
  log_line(kLogWarn,
           "%s: its codec differs from another model's with the same %s, %s: one of the two files "
           "is wrong; each keeps its own tensors",
           gguf.origin().c_str(), kDigestKey, plan.digest.c_str());
  return nullptr;
}

void Component::place(const std::function<void()>& pause) {
  backend_ = make_backend(device_, 1);
  placed_.reserve(plan_.tensors.size());  // so that a placed tensor is never lost
  for (const ComponentTensor& t : plan_.tensors) {
    pause();
    placed_.push_back(backend_->place_weights(host_.get() + t.offset, t.bytes));
    charge_.add(t.bytes);
  }
  backend_->synchronize();
}

bool Component::equals(const Component& other, const std::function<void()>& pause) const {
  if (plan_.tensors.size() != other.plan_.tensors.size()) return false;
  for (size_t i = 0; i < plan_.tensors.size(); ++i) {
    const ComponentTensor& a = plan_.tensors[i];
    const ComponentTensor& b = other.plan_.tensors[i];
    pause();
    if (a.name != b.name || a.type != b.type || a.shape != b.shape) return false;
    const std::byte* const x = host_.get() + a.offset;
    const std::byte* const y = other.host_.get() + b.offset;
    if (x != y && std::memcmp(x, y, static_cast<size_t>(a.bytes)) != 0) return false;
  }
  return true;
}

const void* Component::find(std::string_view name) const {
  const auto found =
      std::lower_bound(plan_.tensors.begin(), plan_.tensors.end(), name,
                       [](const ComponentTensor& t, std::string_view key) { return t.name < key; });
  if (found == plan_.tensors.end() || found->name != name) return nullptr;
  return placed_[static_cast<size_t>(found - plan_.tensors.begin())];
}

}  // namespace barkrt
