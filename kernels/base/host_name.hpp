// What stands for a host in an address: a name, or an address of IPv4, or of IPv6 in brackets.
#pragma once

#include <string>
#include <string_view>

#include <arpa/inet.h>

namespace troupe {

// Why `host` is none; null: it is one.
inline const char* why_no_host(std::string_view host) {
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    in6_addr ignored{};
    const bool address =
        inet_pton(AF_INET6, std::string(host.substr(1, host.size() - 2)).c_str(), &ignored) == 1;
    return address ? nullptr : "no IPv6 address in the brackets";
  }
  if (host.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
      host.npos)
    return "the host has a character that no name has (an IPv6 address goes in brackets)";
  if (host.empty()) return "it has no host";
  return host.size() > 253 ? "the host is longer than 253 characters" : nullptr;
}

}  // namespace troupe
