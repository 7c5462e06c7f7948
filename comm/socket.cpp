#include "comm/socket.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/address.hpp"

namespace troupe::comm {
namespace {

// For the name of the host that is listened on: longer than a resolver takes to give up.
constexpr int64_t kOwnNameMs = 60'000;

// The address without the port that `name`, getsockname or getpeername, gives; empty when there is none.
std::string host_of(int fd, decltype(&getsockname) name) {
  sockaddr_storage end{};
  socklen_t size = sizeof end;
  auto* address = reinterpret_cast<sockaddr*>(&end);
  char host[NI_MAXHOST];
  if (name(fd, address, &size) != 0) return {};
  const int failure = getnameinfo(address, size, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return failure == 0 ? host : "";
}

// What fails here costs time only. A connection that never leaves this machine has no path whose rate were to
// be found out: congestion control that paces what is sent, as BBR does where it is the system's default,
// only takes processor time.
void tune(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  constexpr std::string_view kReno = "reno";  // every Linux has it, for every user
  const std::string own = host_of(fd, getsockname);
  if (!own.empty() && own == host_of(fd, getpeername))
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kReno.data(), kReno.size());
}

uint16_t local_port(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  TROUPE_CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) == 0);
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

bool wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    pollfd entry{fd, events, 0};
    const int ready = poll(&entry, 1, milliseconds_until(deadline));
    if (ready > 0) return true;
    if (ready == 0 && Clock::now() >= deadline) return false;
    TROUPE_CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  }
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

Wakeup::Wakeup() : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!event_.valid())
    throw error(ErrorKind::network, "cannot make an event descriptor: {}; raise the limit of open files",
                std::strerror(errno));
}

void Wakeup::signal() noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written =
      write(event_.get(), &one, sizeof one);  // fails only when signalled
}

void Wakeup::clear() noexcept {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = read(event_.get(), &count, sizeof count);  // fails only when clear
}

int milliseconds_until(Deadline deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return int(std::clamp<int64_t>(left, 0, 3'600'000));
}

namespace {

Descriptor bind_to(Address& address) {
  std::string why;
  const auto found = find_addresses(address, true, deadline_in_ms(kOwnNameMs), why);
  if (found.empty()) throw error(ErrorKind::network, "{}", why);
  const HostAddress& own = found.front();
  Descriptor socket(::socket(own.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (socket.valid() && setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
      bind(socket.get(), own.get(), own.bytes) == 0) {
    address.port = local_port(socket.get());
    return socket;
  }
  return {};
}

}  // namespace

Descriptor listen_on(const std::string& text, std::string& real_address) {
  Address address = parse_address(text);
  Descriptor socket = bind_to(address);
  if (!socket.valid() || listen(socket.get(), 128) != 0)
    throw error(ErrorKind::network,
                "cannot listen on {} for bulk connections: {}; choose another port, or 0 for any free one",
                text, std::strerror(errno));
  real_address = address.text();
  return socket;
}

Descriptor reserve_address(const std::string& text, std::string& real_address) {
  Address address = parse_address(text);
  Descriptor socket = bind_to(address);
  if (!socket.valid()) throw error(ErrorKind::network, "cannot reserve {}: {}", text, std::strerror(errno));
  real_address = address.text();
  return socket;
}

namespace {

// Invalid, with `why`, when nobody there lets us in.
Descriptor connect_at(const HostAddress& address, const Patience& patience, std::string& why) {
  Descriptor socket(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  int failure = socket.valid() ? 0 : errno;
  if (failure == 0 && connect(socket.get(), address.get(), address.bytes) != 0) failure = errno;
  if (failure == EINPROGRESS) {
    socklen_t size = sizeof failure;
    bool answered = false;
    while (!answered && !patience.over()) answered = wait_writable(socket.get(), patience.next_look());
    if (!answered)
      failure = ETIMEDOUT;
    else
      getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &failure, &size);
  }
  if (failure != 0) {
    why = std::strerror(failure);
    return {};
  }
  tune(socket.get());
  return socket;
}

}  // namespace

Descriptor connect_to(const std::string& text, const Patience& patience, std::string& why) {
  return connect_to_first(find_addresses(parse_address(text), false, patience, why), patience, why);
}

Descriptor connect_to_first(std::span<const HostAddress> addresses, const Patience& patience,
                            std::string& why) {
  for (; !addresses.empty(); addresses = addresses.subspan(1)) {
    Descriptor socket = connect_at(addresses.front(), patience.share_of(addresses.size()), why);
    if (socket.valid() || patience.over()) return socket;
  }
  return {};
}

Descriptor accept_from(int listener) {
  Descriptor socket(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket.valid()) tune(socket.get());
  return socket;
}

bool wait_readable(int fd, Deadline deadline) {
  return wait_for(fd, POLLIN, deadline);
}
bool wait_writable(int fd, Deadline deadline) {
  return wait_for(fd, POLLOUT, deadline);
}

}  // namespace troupe::comm
