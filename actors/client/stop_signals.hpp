// SIGINT and SIGTERM as something to ask for, not something that strikes. Made before any thread is.
#pragma once

#include <csignal>

namespace troupe::actors {

class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  bool arrived() const {
    const timespec at_once{0, 0};
    return sigtimedwait(&set_, nullptr, &at_once) > 0;
  }
  // One has come of which arrived() has not told yet.
  bool waiting() const {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1;
  }

 private:
  sigset_t set_{}, before_{};
};

}  // namespace troupe::actors
