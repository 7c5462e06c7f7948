#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>

#include "comm/byte_channel.hpp"
#include "comm/socket.hpp"

namespace troupe::comm {
namespace {

class TcpChannel : public ByteChannel {
 public:
  explicit TcpChannel(Descriptor socket) : socket_(std::move(socket)) {}

  Moved read(std::span<std::byte> into) override {
    if (into.empty()) return {};
    const ssize_t count = recv(socket_.get(), into.data(), into.size(), 0);
    if (count == 0) return {0, true, "it closed the connection"};
    return moved(count);
  }
  Moved write(std::span<const std::byte> from) override {
    return moved(send(socket_.get(), from.data(), from.size(), MSG_NOSIGNAL));
  }
  void wait(bool readable, bool writable, Deadline deadline) override {
    const short events = short((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    std::array<pollfd, 2> entries{pollfd{socket_.get(), events, 0}, pollfd{interrupted_.fd(), POLLIN, 0}};
    const int ready = poll(entries.data(), entries.size(), milliseconds_until(deadline));
    TROUPE_CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  }
  void interrupt() noexcept override { interrupted_.signal(); }

 private:
  static Moved moved(ssize_t count) {
    if (count >= 0) return {size_t(count), false, {}};
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS) return {};
    return {0, true, std::strerror(errno)};
  }

  Descriptor socket_;
  Wakeup interrupted_;
};

}  // namespace

std::unique_ptr<ByteChannel> make_tcp_channel(Descriptor socket) {
  return std::make_unique<TcpChannel>(std::move(socket));
}

}  // namespace troupe::comm
