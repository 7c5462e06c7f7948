#include "tests/comm/flip_proxy.hpp"

#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

namespace troupe::test {

using namespace comm;

FlipProxy::FlipProxy(const std::string& target, Alter alter, Alter alter_answers)
    : target_(target), alter_(std::move(alter)), alter_answers_(std::move(alter_answers)) {
  listener_ = listen_on("127.0.0.1:0", address_);
  thread_ = std::thread([this] { run(); });
}

FlipProxy::~FlipProxy() {
  stop_.signal();
  thread_.join();
}

bool FlipProxy::pass(int from, int to, const Alter& alter, uint64_t& offset) {
  std::array<std::byte, 65536> buffer;
  const ssize_t count = recv(from, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  std::span<std::byte> bytes(buffer.data(), size_t(count));
  if (alter) alter(offset, bytes);
  offset += bytes.size();
  while (!bytes.empty()) {
    const ssize_t sent = send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) bytes = bytes.subspan(size_t(sent));
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (sent < 0 && !wait_writable(to, deadline_in_ms(30'000))) return false;
  }
  return true;
}

void FlipProxy::run() {
  while (serve()) {
  }
}

// One connection, until either end is gone. False when there will be no other.
bool FlipProxy::serve() {
  std::array<pollfd, 2> first{pollfd{listener_.get(), POLLIN, 0}, pollfd{stop_.fd(), POLLIN, 0}};
  poll(first.data(), first.size(), 30'000);
  const Descriptor dialler = accept_from(listener_.get());
  if (!dialler.valid()) return false;
  std::string why;
  const Descriptor target = connect_to(target_, deadline_in_ms(30'000), why);
  if (!target.valid()) return false;
  uint64_t asked = 0, answered = 0;
  for (;;) {
    std::array<pollfd, 3> both{pollfd{dialler.get(), POLLIN, 0}, pollfd{target.get(), POLLIN, 0},
                               pollfd{stop_.fd(), POLLIN, 0}};
    poll(both.data(), both.size(), 30'000);
    if ((both[2].revents & POLLIN) != 0) return false;
    if (both[0].revents != 0 && !pass(dialler.get(), target.get(), alter_, asked)) return true;
    if (both[1].revents != 0 && !pass(target.get(), dialler.get(), alter_answers_, answered)) return true;
  }
}

}  // namespace troupe::test
