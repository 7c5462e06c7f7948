// A port of this machine that somebody listens on and nobody answers.
#pragma once

#include <chrono>
#include <string>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace troupe::test {

class SilentPort {
 public:
  SilentPort() : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(bind(socket_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(listen(socket_, 8) == 0);
    REQUIRE(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    text_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~SilentPort() { close(socket_); }
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;
  const std::string& address() const { return text_; }

  // Until somebody has dialled, whom it hangs up on; false when the time runs out before.
  bool wait_for_dial(std::chrono::milliseconds deadline) const {
    pollfd dialled{socket_, POLLIN, 0};
    if (poll(&dialled, 1, int(deadline.count())) != 1) return false;
    close(accept(socket_, nullptr, nullptr));
    return true;
  }

 private:
  int socket_;
  std::string text_;
};

}  // namespace troupe::test
