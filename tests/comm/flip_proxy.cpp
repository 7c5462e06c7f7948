#include "tests/comm/flip_proxy.hpp"

#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

namespace troupe::test {

using namespace comm;

FlipProxy::FlipProxy(const std::string& target, Alter alter) : target_(target), alter_(std::move(alter)) {
  listener_ = listen_on("127.0.0.1:0", address_);
  thread_ = std::thread([this] { run(); });
}

FlipProxy::~FlipProxy() {
  stop_.signal();
  thread_.join();
}

bool FlipProxy::pass(int from, int to, uint64_t* offset) {
  std::array<std::byte, 65536> buffer;
  const ssize_t count = recv(from, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  std::span<std::byte> bytes(buffer.data(), size_t(count));
  if (offset != nullptr) {
    alter_(*offset, bytes);
    *offset += bytes.size();
  }
  while (!bytes.empty()) {
    const ssize_t sent = send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) bytes = bytes.subspan(size_t(sent));
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (sent < 0 && !wait_writable(to, deadline_in_ms(30'000))) return false;
  }
  return true;
}

void FlipProxy::run() {
  std::array<pollfd, 2> first{pollfd{listener_.get(), POLLIN, 0}, pollfd{stop_.fd(), POLLIN, 0}};
  poll(first.data(), first.size(), 30'000);
  const Descriptor dialler = accept_from(listener_.get());
  if (!dialler.valid()) return;
  std::string why;
  const Descriptor target = connect_to(target_, deadline_in_ms(30'000), why);
  if (!target.valid()) return;
  uint64_t offset = 0;
  for (;;) {
    std::array<pollfd, 3> both{pollfd{dialler.get(), POLLIN, 0}, pollfd{target.get(), POLLIN, 0},
                               pollfd{stop_.fd(), POLLIN, 0}};
    poll(both.data(), both.size(), 30'000);
    if ((both[2].revents & POLLIN) != 0) return;
    if (both[0].revents != 0 && !pass(dialler.get(), target.get(), &offset)) return;
    if (both[1].revents != 0 && !pass(target.get(), dialler.get(), nullptr)) return;
  }
}

}  // namespace troupe::test
