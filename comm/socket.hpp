// File descriptors and TCP sockets: owners and the few calls that bulk connections need. Every wait has a
// deadline. All sockets are non-blocking. Not thread-safe, but for Wakeup::signal().
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "comm/host_addresses.hpp"
#include "comm/patience.hpp"

namespace troupe::comm {

// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Ends a poll() from another thread; stays signalled until clear().
class Wakeup {
 public:
  Wakeup();
  void signal() noexcept;
  void clear() noexcept;
  int fd() const { return event_.get(); }

 private:
  Descriptor event_;
};

int milliseconds_until(Deadline deadline);  // rounded up, 0 when past

// Listens on "host:port" and gives back the address with the real port. Throws Error(network).
Descriptor listen_on(const std::string& address, std::string& real_address);
// Keeps the port for processes that listen there with SO_REUSEADDR one after another, and gives back the
// address with the real port; meanwhile the system gives it to nobody else. Throws Error(network).
Descriptor reserve_address(const std::string& address, std::string& real_address);
// One attempt at each of the host's addresses; invalid when it has none now, the peer refused or cannot be
// reached (`why` says which). Throws Error(usage) when this is no address.
Descriptor connect_to(const std::string& address, const Patience& patience, std::string& why);
// At the first of these that lets us in. Each gets an equal share of the time that those before it have left.
Descriptor connect_to_first(std::span<const HostAddress> addresses, const Patience& patience,
                            std::string& why);
// One waiting connection, made non-blocking and without delay; invalid when there is none.
Descriptor accept_from(int listener);

// True when the descriptor is ready for reading (or writing), false at the deadline.
bool wait_readable(int fd, Deadline deadline);
bool wait_writable(int fd, Deadline deadline);

}  // namespace troupe::comm
