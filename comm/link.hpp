// Links: what joins nodes. A LinkHub listens, dials, and keeps one stream a pair of nodes, over which
// Envelopes travel in order. Streams are authenticated (mutual TLS when Security has certificates), fenced by
// incarnation, watched by heartbeats, and bounded in every queue. A lost message is never silent: it went to
// a peer that is reported down. Thread-safe. Events come from gRPC's threads, one at a time for a peer: up,
// messages, down, then perhaps up again. Handlers must not block and may call send, dial and forget, but not
// close.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "comm/security.hpp"
#include "kernels/base/error.hpp"

namespace troupe::wire {
class Envelope;
}

namespace troupe::comm {

struct LinkPeer {
  std::string node;         // name in the cluster file, or "client:<hex>"
  std::string incarnation;  // 16 bytes, new at each start of the peer; empty when it has never answered
  bool client = false;
};

// In the refusal of a process whose name a newer one has taken: no dialling helps it.
inline constexpr std::string_view kReplaced = "has been replaced by a newer one";
// What a `down` says when the peer, or the system in its place, has ended the link in good order.
inline constexpr std::string_view kClosed = "closed the link or went away";

struct LinkEvents {
  std::function<void(const LinkPeer&)> up;
  std::function<void(const LinkPeer&, wire::Envelope)> message;
  // Once after each `up`, and for a node that is being dialled and cannot be reached or is refused: once for
  // each reason in a row (then the peer's incarnation is empty). Dialling goes on until forget().
  std::function<void(const LinkPeer&, Error why)> down;
  // May be empty. Somebody who dialled us was turned away; at most 10 a second are told.
  std::function<void(Error why)> refused;
};

struct LinkOptions {
  std::string node;            // own name, or "client:<hex>"
  std::string cluster;         // both ends must have the same
  std::string incarnation;     // 16 random bytes; see new_incarnation()
  std::string listen_address;  // "host:port"; port 0: the system chooses; empty: does not listen
  Security security;
  int interval_ms = 500;                     // a sign of life at least this often
  int patience_ms = 3000;                    // a peer that was silent this long is down
  size_t queue_bytes_max = size_t{8} << 20;  // for each peer; beyond it send() says busy
  int clients_max = 64;                      // clients linked at a time; more are turned away
};

enum class Sent : uint8_t {
  ok = 1,  // queued; delivered in order unless the peer goes down
  busy,    // the peer's queue is full: try again later, or drop what will be out of date
  down,    // no link to that node now
};

// To be dialled by a client that does not know which node listens there. Not with TLS, which proves a name.
inline constexpr std::string_view kAnyNode = "*";

class LinkHub {
 public:
  // Listens at once. Throws Error(usage) for impossible options or an address beyond loopback without
  // security, Error(file) or Error(security) for bad certificates, Error(network) when it cannot listen.
  LinkHub(LinkOptions options, LinkEvents events);
  ~LinkHub();  // close(2000)
  LinkHub(const LinkHub&) = delete;
  LinkHub& operator=(const LinkHub&) = delete;

  // With the real port. Empty when not listening.
  std::string listen_address() const;

  // Keeps trying to link with `node` at `address` until forget(). Of a pair one side dials: by custom
  // the lower rank, or the client; when both do, one of the two streams stays. Dialling a node anew changes
  // its address. Throws Error(usage) for a bad address.
  void dial(const std::string& node, const std::string& address);

  // Stops dialling and ends the link, if any (its `down` says cancelled).
  void forget(const std::string& node);

  // REQUIRES: the envelope is within its bounds (wire::validate). Never blocks.
  Sent send(const std::string& node, const wire::Envelope& envelope);

  // Sends what is queued, ends all links and stops listening, within about `deadline_ms`. Afterwards no event
  // comes, and send() says down. May be called more than once.
  void close(int deadline_ms);

  class Core;

 private:
  std::shared_ptr<Core> core_;
};

// 16 bytes from the operating system's random source.
std::string new_incarnation();

}  // namespace troupe::comm
