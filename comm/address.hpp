// Addresses of listeners as "host:port", and the rule that keeps unprotected traffic on this machine.
// Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "comm/security.hpp"

namespace troupe::comm {

struct Address {
  std::string host;  // a name, an IPv4 address or an IPv6 address without brackets
  uint16_t port = 0;
  std::string text() const;  // "host:port", with brackets around an IPv6 address
  bool operator==(const Address&) const = default;
};

// Accepts "name:9100", "127.0.0.1:0" and "[::1]:9100". Throws Error(usage) that says what an address looks
// like.
Address parse_address(std::string_view text);

// True for localhost, 127.0.0.0/8 and ::1. The wildcards 0.0.0.0 and :: are not loopback.
bool is_loopback(std::string_view host);

// Throws Error(usage) when `address` leaves this machine while `security` neither has certificates nor says
// that it is meant to be insecure. `use` completes the message: "listen on", "connect to".
void require_allowed(const Address& address, const Security& security, std::string_view use);

// Why nobody can listen there now, by trying: "Address already in use", a name that does not resolve, and so
// on.
std::string why_not_bindable(const Address& address);

}  // namespace troupe::comm
