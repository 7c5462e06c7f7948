#pragma once

#include <algorithm>
#include <chrono>
#include <string>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace troupe::test {

// Tells when a file of a folder, which must be there, is written to, or that it is time to look again: a user
// may have a few watches only, and others may hold all of them.
class FolderWatch {
 public:
  explicit FolderWatch(const std::string& folder) : descriptor_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (descriptor_ < 0) return;
    REQUIRE(inotify_add_watch(descriptor_, folder.c_str(), IN_MODIFY | IN_CREATE | IN_MOVED_TO) >= 0);
  }
  ~FolderWatch() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;
  void wait_for_change(std::chrono::milliseconds deadline) const {
    if (descriptor_ < 0) {
      poll(nullptr, 0, int(std::min(deadline, kLookAgain).count()));
      return;
    }
    pollfd wait = {descriptor_, POLLIN, 0};
    poll(&wait, 1, int(deadline.count()));
    char events[4096];
    while (read(descriptor_, events, sizeof events) > 0) {
    }
  }

 private:
  static constexpr std::chrono::milliseconds kLookAgain{50};

  int descriptor_;  // -1: none was to be had
};

}  // namespace troupe::test
