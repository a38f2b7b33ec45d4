#include "fiber.h"

#include <boost/context/protected_fixedsize_stack.hpp>

#if defined(BARKRT_WITH_ASAN)
#include <sanitizer/common_interface_defs.h>
#else
namespace {
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
}  // namespace
#endif

namespace emulation {
namespace {

constexpr size_t kStackBytes = 256 << 10;

}  // namespace

Fiber::Fiber() {
  boost::context::protected_fixedsize_stack allocator(kStackBytes);
  const boost::context::stack_context stack = allocator.allocate();
  top_ = static_cast<const std::byte*>(stack.sp);
  bottom_ = top_ - stack.size;
  self_ = boost::context::fiber(
      std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack), allocator,
      [this](boost::context::fiber&& resumer) {
        __sanitizer_finish_switch_fiber(nullptr, &resumer_bottom_, &resumer_bytes_);
        resumer_ = std::move(resumer);
        loop();
        return std::move(resumer_);
      });
}

void Fiber::start(const std::function<void()>& body) {
  body_ = &body;
  done_ = false;
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, bottom_, static_cast<size_t>(top_ - bottom_));
  self_ = std::move(self_).resume();
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void Fiber::yield() { to_resumer(); }

void Fiber::to_resumer() {
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, resumer_bottom_, resumer_bytes_);
  resumer_ = std::move(resumer_).resume();
  __sanitizer_finish_switch_fiber(fake_stack, &resumer_bottom_, &resumer_bytes_);
}

void Fiber::loop() {
  for (;;) {
    (*body_)();
    done_ = true;
    to_resumer();
  }
}

}  // namespace emulation
