// TLS as the transport of a bulk connection.
#pragma once

#include <memory>
#include <string>

#include "comm/byte_channel.hpp"
#include "comm/socket.hpp"

namespace troupe::comm {

// The dialling end: does the TLS handshake over a connected socket and insists on the peer's `name`. Null
// with `why` when the peer is gone or does not answer in time; throws Error(security) when it is not who it
// should be.
std::unique_ptr<ByteChannel> dial_tls_channel(Descriptor socket, const std::shared_ptr<SSL_CTX>& context,
                                              const std::string& name, const Patience& patience,
                                              std::string& why);

// The accepting end: the handshake is part of reading, so nothing waits here. Ask peer_carries() once
// something was read. REQUIRES that the dialler speaks first, and that reading goes on until something has
// come.
std::unique_ptr<ByteChannel> accept_tls_channel(Descriptor socket, const std::shared_ptr<SSL_CTX>& context);

}  // namespace troupe::comm
