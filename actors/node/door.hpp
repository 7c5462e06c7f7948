// Keeps what comes before there is anybody to take it: links are up, and bring messages, while the actor that
// takes them is still being made. Thread-safe; what is delivered arrives in the order in which it was passed.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace troupe::actors {

class Door {
 public:
  using Deliver = std::function<void()>;
  static constexpr size_t kWaitingMax = 4096;

  // Delivers at once when the door is open, and else when it opens. False when it will never be delivered:
  // the door is closed for good, or more wait than may. `deliver` must not block or come back to this door.
  bool pass(Deliver deliver) {
    const std::lock_guard lock(mutex_);
    if (closed_ || (!open_ && waiting_.size() >= kWaitingMax)) return false;
    if (open_)
      deliver();
    else
      waiting_.push_back(std::move(deliver));
    return true;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    for (const Deliver& deliver : std::exchange(waiting_, {})) deliver();
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    waiting_.clear();
  }

 private:
  std::mutex mutex_;
  bool open_ = false, closed_ = false;
  std::vector<Deliver> waiting_;
};

}  // namespace troupe::actors
