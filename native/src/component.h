// component.h: tensors that the models of a device hold in common. Groups that are equal to the
// last byte are held once and go with their last model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend.h"
#include "gguf.h"
#include "memory.h"

namespace barkrt {

struct ComponentTensor {
  std::string name;
  DType type = DType::F32;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // from the plan's begin
  int64_t bytes = 0;
};

// A group as a file's header describes it. The digest is the file's claim: never trusted, only a
// name under which to look for a group to compare with.
struct ComponentPlan {
  std::string digest;
  int64_t bytes = 0;                     // of the tensors, without padding
  int64_t begin = 0, end = 0;            // where they lie in the file
  std::vector<ComponentTensor> tensors;  // by name
};

// The codec, or nothing when the file names no digest for it or other tensors lie in between.
// BadModel when the digest is not 64 digits of lower-case hexadecimal.
std::optional<ComponentPlan> plan_codec(const Gguf& gguf);

// Immutable after acquire(); its models keep it alive. Any thread.
class Component {
 public:
  // The live component that equals the plan's tensors, else a new one. NULL when the tensors must
  // stay the model's own: the live component has the digest but not the bytes (which is logged), or
  // lies in the memory of another load's caller. `pause` is called between tensors and may throw:
  // nothing is left behind then.
  static std::shared_ptr<const Component> acquire(const Gguf& gguf, const ComponentPlan& plan,
                                                  int device, const std::function<void()>& pause);
  ~Component();
  Component(const Component&) = delete;

  // As the file describes it that the component was made from.
  const ComponentPlan& plan() const { return plan_; }
  int64_t bytes() const { return plan_.bytes; }
  // Where the device finds the tensor; NULL when it is not of this component.
  const void* find(std::string_view name) const;

 private:
  struct Registry;

  Component(const Gguf& gguf, const ComponentPlan& plan, int device);
  void place(const std::function<void()>& pause);
  bool equals(const Component& other, const std::function<void()>& pause) const;

  std::shared_ptr<Registry> registry_;
  Charge charge_;
  const int device_;
  const ComponentPlan plan_;
  const std::shared_ptr<const std::byte> host_;  // the file's bytes from plan_.begin on
  const bool borrowed_;                          // ... are the caller's
  std::unique_ptr<Backend> backend_;  // its own: a model's has threads, and goes with the model
  std::vector<const void*> placed_;   // as plan_.tensors
};

}  // namespace barkrt
