// Plain sockets for tests: whole strings out and in, with a deadline.
#pragma once

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>

#include <doctest/doctest.h>
#include <sys/socket.h>

#include "comm/socket.hpp"
#include "kernels/base/random.hpp"

namespace troupe::comm::test {

inline Deadline raw_deadline() {
  return deadline_in_ms(60'000);
}

inline Descriptor raw_connect(const std::string& address) {
  std::string why;
  Descriptor socket = connect_to(address, raw_deadline(), why);
  if (!socket.valid()) FAIL("cannot connect to ", address, ": ", why);
  return socket;
}

inline Descriptor raw_accept(const Descriptor& listener) {
  if (!wait_readable(listener.get(), raw_deadline())) FAIL("nobody connected");
  return accept_from(listener.get());
}

// False when the connection broke or the deadline came.
inline bool send_all(const Descriptor& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) bytes.remove_prefix(size_t(sent));
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (sent < 0 && !wait_writable(socket.get(), raw_deadline())) return false;
  }
  return true;
}

struct Received {
  std::string bytes;
  int error = 0;       // errno, 0 when nothing broke
  bool ended = false;  // the other end will send no more
};

// At most `bytes_max`; less only when the stream ends or breaks. Fails the test case at the deadline.
inline Received receive_up_to(const Descriptor& socket, size_t bytes_max) {
  Received got;
  std::string buffer(65536, '\0');
  while (got.bytes.size() < bytes_max && !got.ended && got.error == 0) {
    const ssize_t count =
        recv(socket.get(), buffer.data(), std::min(buffer.size(), bytes_max - got.bytes.size()), 0);
    if (count > 0) got.bytes.append(buffer, 0, size_t(count));
    got.ended = count == 0;
    if (count >= 0 || errno == EINTR) continue;
    if (errno != EAGAIN)
      got.error = errno;
    else if (!wait_readable(socket.get(), raw_deadline()))
      FAIL("nothing came for too long; so far ", got.bytes.size(), " bytes of ", bytes_max);
  }
  return got;
}

inline Received receive_to_end(const Descriptor& socket) {
  return receive_up_to(socket, SIZE_MAX);
}

inline std::string random_text(size_t bytes, uint64_t seed) {
  const Philox philox = philox_from(seed);
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = char(philox(i / 16)[i / 4 % 4] >> (i % 4 * 8));
  return text;
}

}  // namespace troupe::comm::test
