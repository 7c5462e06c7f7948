#include "comm/address.hpp"

#include <cerrno>
#include <charconv>
#include <cstring>

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/base/error.hpp"
#include "kernels/base/host_name.hpp"

namespace troupe::comm {

std::string Address::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

Address parse_address(std::string_view text) {
  const auto bad = [&](std::string_view what) {
    return error(ErrorKind::usage,
                 "bad address '{}': {}; an address is host:port, such as node-1:9100, "
                 "127.0.0.1:0 or [::1]:9100",
                 text.substr(0, 300), what);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) throw bad("it has no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (const char* why = why_no_host(host)) throw bad(why);
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  Address address{std::string(host), 0};
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (failure != std::errc() || end != port.data() + port.size() || port.empty())
    throw bad("the port is not a number from 0 to 65535");
  return address;
}

bool is_loopback(std::string_view host) {
  const std::string name(host);
  if (name == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, name.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, name.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

void require_allowed(const Address& address, const Security& security, std::string_view use) {
  if (security.tls() || security.insecure || is_loopback(address.host)) return;
  throw error(
      ErrorKind::usage,
      "will not {} {} without security: the address leaves this machine, and anyone who reaches it could "
      "take part in the job. Make certificates with 'troupe certs' and name them in the cluster file, or set "
      "insecure = true there if the network is trusted",
      use, address.text());
}

std::string why_not_bindable(const Address& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failure = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (failure != 0)
    return fmt::format("the host '{}' does not resolve: {}", address.host, gai_strerror(failure));
  std::string why = "the port was taken for a moment: try again";
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    const int descriptor = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
    if (descriptor < 0 || bind(descriptor, each->ai_addr, each->ai_addrlen) != 0) why = std::strerror(errno);
    if (descriptor >= 0) ::close(descriptor);
  }
  freeaddrinfo(found);
  return why;
}

}  // namespace troupe::comm
