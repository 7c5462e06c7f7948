// How two ends of a new channel agree that they belong to the same view before either believes a byte of the
// other:
//   dialler   Hello{job, ballot, ranks, purpose, transport, host, nonce}
//   acceptor  Challenge{verdict, nonce, MAC}      the acceptor has the key, and this is not an old
//   conversation dialler   Proof{MAC}                          so has the dialler acceptor  Offer{tcp, or
//   where the shared memory is, MAC} dialler   Answer{opened it?, MAC}             only when shared memory
//   was offered
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
  BulkPurpose purpose = BulkPurpose::ring;
  Transport transport = Transport::tcp;
  std::unique_ptr<ByteChannel> channel;
};

inline constexpr size_t kHelloBytes = 256;  // what a listener waits for before it spends time on a dialler

// Empty when the peer asks to try again later or went away half-way (`why` says which). Throws PeerError when
// trying again cannot help.
std::optional<Handshaken> dial_handshake(std::unique_ptr<ByteChannel> channel, const BulkSession& session,
                                         const BulkPeer& peer, BulkPurpose purpose, const Patience& patience,
                                         std::string& why);

// Empty when the dialler was turned away; `why` says why. Throws PeerError only where a member of the view
// needs shared memory that does not work.
std::optional<Handshaken> accept_handshake(std::unique_ptr<ByteChannel> channel, const BulkSession& session,
                                           std::span<const BulkPeer> peers, const Patience& patience,
                                           std::string& why);

}  // namespace troupe::comm
