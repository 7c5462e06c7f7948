// How two ends of a new channel agree that they belong to the same view before either believes a byte of the
// other:
//
//   - dialler: Hello {job, ballot, ranks, transport, host, nonce}
//   - acceptor: Challenge {verdict, nonce}, MAC: it has the key, and this is no old conversation
//   - dialler: MAC: so has the dialler
//   - acceptor: Offer {tcp, or where the shared memory is}, MAC
//   - dialler, only when shared memory was offered: Answer {opened it?}, MAC
//
// A MAC is HMAC-SHA256 with the view's key over a label and all that was said before. Messages have fixed
// sizes.
#pragma once

#include <optional>

#include "comm/bulk.hpp"
#include "comm/byte_channel.hpp"
#include "comm/patience.hpp"

namespace troupe::comm {

struct Handshaken {
  BulkPeer peer;
  Transport transport = Transport::tcp;
  std::unique_ptr<ByteChannel> channel;
};

// A refusal of which nothing proves that it is meant: over plain TCP, one flipped bit in the handshake looks
// the same.
class UnprovedRefusal : public PeerError {
 public:
  explicit UnprovedRefusal(const PeerError& refusal) : PeerError(refusal) {}
};

// Empty when the peer asks to try again later or went away half-way (`why` says which). Throws PeerError when
// trying again cannot help, UnprovedRefusal when it most likely cannot.
std::optional<Handshaken> dial_handshake(std::unique_ptr<ByteChannel> channel, const BulkSession& session,
                                         const BulkPeer& peer, const Patience& patience, std::string& why);

// The accepting end, one step at a time, so that a dialler who is slow or silent keeps nobody else waiting.
class AcceptHandshake {
 public:
  explicit AcceptHandshake(std::unique_ptr<ByteChannel> channel);
  ~AcceptHandshake();
  AcceptHandshake(AcceptHandshake&&) noexcept;
  AcceptHandshake& operator=(AcceptHandshake&&) noexcept;

  enum class State : uint8_t {
    waiting = 1,  // for the dialler
    refused,      // or gone
    done,
  };
  // Takes what has come, without waiting for more. `why` says why somebody was refused. `session` and `peers`
  // count from the hello on. Throws PeerError, and is over, only where a member of the view needs shared
  // memory that does not work.
  State step(const BulkSession& session, std::span<const BulkPeer> peers, std::string& why);
  // Whether it goes on in another session than this one: then it cannot succeed any more.
  bool belongs_elsewhere(const BulkSession& session) const;
  Handshaken take();  // REQUIRES that step() said done

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

}  // namespace troupe::comm
