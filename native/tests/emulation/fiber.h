// fiber.h: a call stack of its own that runs when it is resumed and stops where it yields; what one
// device thread runs on.
#pragma once

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <functional>
#include <memory>

namespace emulation {

// Used by one thread at a time, not always the same, but by one from start() to done().
class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;

  void start(const std::function<void()>& body);  // only when done(); body runs at resume()
  void resume();                                  // until the body yields or returns
  void yield();                                   // from the body
  bool done() const { return done_; }
  // Addresses of the stack that the body may use.
  bool on_stack(const void* p) const { return p >= bottom_ && p < top_; }

 private:
  void loop();
  void to_resumer();

  const std::byte* bottom_;
  const std::byte* top_;
  const std::function<void()>* body_ = nullptr;
  bool done_ = true;
  boost::context::fiber self_, resumer_;
  // Of the stack that resumed this one, for AddressSanitizer.
  const void* resumer_bottom_ = nullptr;
  size_t resumer_bytes_ = 0;
};

}  // namespace emulation
