#pragma once

#include <chrono>
#include <string>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace troupe::test {

// Tells when a file of a folder, which must be there, is written to.
class FolderWatch {
 public:
  explicit FolderWatch(const std::string& folder) : descriptor_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    REQUIRE(inotify_add_watch(descriptor_, folder.c_str(), IN_MODIFY | IN_CREATE | IN_MOVED_TO) >= 0);
  }
  ~FolderWatch() { close(descriptor_); }
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;
  void wait_for_change(std::chrono::milliseconds deadline) const {
    pollfd wait = {descriptor_, POLLIN, 0};
    poll(&wait, 1, int(deadline.count()));
    char events[4096];
    while (read(descriptor_, events, sizeof events) > 0) {
    }
  }

 private:
  int descriptor_;
};

}  // namespace troupe::test
