// Connections that no node makes: each sends its bytes to a listener, in plain text or inside TLS, says that
// it has no more, and reads until the other end closes. One thread, many connections at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

using SSL_CTX = struct ssl_ctx_st;

namespace troupe::comm::test {

struct AttackInput {
  std::string address;
  std::string bytes;
  SSL_CTX* tls = nullptr;  // the dialler's side of a handshake that comes first; none: the bytes as they are
  bool reset = false;      // breaks the connection behind the bytes, and reads nothing
};

struct AttackTotals {
  uint64_t inputs = 0;
  uint64_t answered = 0;         // something was said back
  uint64_t handshakes = 0;       // of TLS, that ended well as far as the dialler can tell
  uint64_t bytes = 0;            // sent
  uint64_t not_ended = 0;        // the other end did not close within the deadline
  uint64_t descriptors_max = 0;  // open in this process, as seen now and then
  double seconds = 0;
};

// Sends next(0) to next(count - 1), at most `at_once` at a time.
AttackTotals attack(uint64_t count, size_t at_once, const std::function<AttackInput(uint64_t)>& next);

// Of this process.
uint64_t open_descriptors();
uint64_t resident_bytes();  // after what is free was given back to the system

}  // namespace troupe::comm::test
