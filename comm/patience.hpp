// How long a wait may take: until its deadline, or until somebody sets a flag that is looked at every few
// milliseconds. A value; the flag may be set by any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>

#include "comm/bulk.hpp"

namespace troupe::comm {

class Patience {
 public:
  Patience(Deadline deadline) : deadline_(deadline) {}  // NOLINT(google-explicit-constructor)
  Patience(Deadline deadline, std::shared_ptr<const std::atomic<bool>> cancelled)
      : deadline_(deadline), cancelled_(std::move(cancelled)) {}

  bool cancelled() const { return cancelled_ && *cancelled_; }
  bool over() const { return cancelled() || Clock::now() >= deadline_; }
  // How far to wait before over() is asked again.
  Deadline next_look() const {
    return cancelled_ ? std::min(deadline_, Clock::now() + std::chrono::milliseconds(10)) : deadline_;
  }
  Patience at_most(Deadline deadline) const { return {std::min(deadline, deadline_), cancelled_}; }
  // With an equal part of the time left, for the first of so many attempts that come one after another.
  Patience share_of(size_t parts) const {
    const auto now = Clock::now();
    return {now + (deadline_ - now) / Clock::rep(parts), cancelled_};
  }

 private:
  Deadline deadline_;
  std::shared_ptr<const std::atomic<bool>> cancelled_;
};

}  // namespace troupe::comm
