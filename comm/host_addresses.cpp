#include "comm/host_addresses.hpp"

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <netdb.h>

namespace troupe::comm {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

// Waits for as long as the system does.
HostAddresses ask_system(const Address& address, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* first = nullptr;
  const int failure = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &first);
  HostAddresses answer;
  if (failure != 0) {
    answer.why = gai_strerror(failure);
    return answer;
  }
  const std::unique_ptr<addrinfo, FreeAddresses> list(first);
  for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
    HostAddress found;
    if (entry->ai_addrlen > sizeof found.storage) continue;
    found.bytes = entry->ai_addrlen;
    std::memcpy(&found.storage, entry->ai_addr, entry->ai_addrlen);
    answer.found.push_back(found);
  }
  return answer;
}

struct Answer {
  std::mutex mutex;
  std::condition_variable came;
  std::optional<HostAddresses> addresses;
};

}  // namespace

// Nothing can end a getaddrinfo() that is under way, so a call whose patience ends first leaves one thread
// behind. What bounds them: the system gives up by itself, by default after half a minute (three servers,
// each asked twice for 5 s), and who dials asks one name at a time. A node does so once a view.
HostAddresses wait_for_addresses(std::function<HostAddresses()> ask, const Patience& patience) {
  const auto answer = std::make_shared<Answer>();
  try {
    std::thread([answer, ask = std::move(ask)] {
      HostAddresses addresses;
      try {
        addresses = ask();
      } catch (const std::exception& failure) {
        addresses.why = failure.what();
      }
      const std::lock_guard lock(answer->mutex);
      answer->addresses = std::move(addresses);
      answer->came.notify_all();
    }).detach();
  } catch (const std::system_error& failure) {
    return {{}, fmt::format("no thread can be had to ask for it: {}", failure.what())};
  }
  std::unique_lock lock(answer->mutex);
  while (!answer->addresses && !patience.over()) answer->came.wait_until(lock, patience.next_look());
  if (!answer->addresses) return {{}, "the resolver did not answer in time"};
  return std::move(*answer->addresses);
}

std::vector<HostAddress> find_addresses(const Address& address, bool passive, const Patience& patience,
                                        std::string& why) {
  const int flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  HostAddresses known = ask_system(address, flags | AI_NUMERICHOST);
  if (known.found.empty())
    known = wait_for_addresses([address, flags] { return ask_system(address, flags); }, patience);
  if (known.found.empty())
    why =
        fmt::format("cannot resolve '{}': {}; check the name or give an IP address", address.host, known.why);
  return std::move(known.found);
}

}  // namespace troupe::comm
