// The gRPC ends of links: a listener that accepts streams, and dialling. Settings are those that were
// measured to notice and heal every fault quickly; each is explained where it is set. The only file that
// includes grpcpp is link_grpc.cpp. Thread-safe. Internal to the links.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/address.hpp"
#include "comm/link_stream.hpp"
#include "comm/security.hpp"

namespace troupe::comm {

struct TransportSettings {
  std::optional<Credentials> credentials;  // none: plain text
  int patience_ms = 3000;
};

// How long one address of a host may take to be connected to, TLS and HTTP/2 included. A third of the
// patience, so that where two addresses of three answer nothing, the last one still gets its turn within one
// attempt to dial: the next attempt begins with the first again. But a second at least, since a link that is
// slow lives as well: with 20 ms each way the handshakes alone take 150 ms, and where all cores train, each
// of the dozen times that a thread has to wake up for them may cost some more.
constexpr int connect_ms_max(int patience_ms) {
  return std::max(1000, patience_ms / 3);
}
// How long a whole attempt to dial may take, up to the hello that answers ours: with a short patience longer
// than that, or an address that answers nothing would use up all of it.
constexpr int dial_ms_max(int patience_ms) {
  return std::max(patience_ms, 3 * connect_ms_max(patience_ms));
}

class LinkListener {
 public:
  // The owner of a new stream (the listener starts it), or null: turned away.
  using Accept = std::function<std::shared_ptr<LinkStream::Owner>(const std::shared_ptr<LinkStream>&)>;

  virtual ~LinkListener() = default;
  virtual uint16_t port() const = 0;
  // Ends what is left by the deadline. No Accept is called once it has returned.
  virtual void shutdown(int deadline_ms) = 0;
};

// Throws Error(network) when it cannot listen there.
std::unique_ptr<LinkListener> listen(const Address& address, const TransportSettings& settings,
                                     LinkListener::Accept accept);

// A stream to whoever answers at `address`, who must prove to be `node` when there are certificates.
// Not started. Never fails here: what goes wrong is told by ended(). To be kept by a StreamGrave.
std::unique_ptr<LinkStream> dial(const std::string& node, const Address& address,
                                 const TransportSettings& settings);

// Lets this process open as many files (connections) as the system allows it; what gRPC has to say goes to
// its log only where GRPC_VERBOSITY asks for it.
void prepare_process();

}  // namespace troupe::comm
