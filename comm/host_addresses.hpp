// From the name of a host to the addresses that are dialled, or listened on. Names are asked for by threads
// of their own: a resolver that does not answer keeps nobody waiting for longer than his patience.
// Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <sys/socket.h>

#include "comm/address.hpp"
#include "comm/patience.hpp"

namespace troupe::comm {

// Host and port as the system takes them.
struct HostAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;  // of the storage
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

struct HostAddresses {
  std::vector<HostAddress> found;  // the best one first
  std::string why;                 // there are none
};

// Empty, with `why`, when the host has no address now or the resolver says nothing in time. What is a number
// already is not asked for. `passive`: to listen there.
std::vector<HostAddress> find_addresses(const Address& address, bool passive, const Patience& patience,
                                        std::string& why);

// What `ask` gives or throws; when the patience ends before, `why` says so, and the thread in which it was
// asked is left to itself. So `ask` may outlive the call, and everything that it uses must be its own.
HostAddresses wait_for_addresses(std::function<HostAddresses()> ask, const Patience& patience);

}  // namespace troupe::comm
