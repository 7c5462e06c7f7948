// TLS as the transport of a bulk connection.
#pragma once

#include <memory>
#include <string>

#include "comm/byte_channel.hpp"
#include "comm/socket.hpp"

namespace troupe::comm {

enum class TlsRole : uint8_t { client = 1, server };

// Does the TLS handshake over a connected socket. A client insists on the peer's `name`; a server asks the
// channel's peer_carries() once it knows whom to expect. Null with `why` when the peer is gone or does not
// answer in time; throws Error(security) when a client's peer is not whom it should be.
std::unique_ptr<ByteChannel> make_tls_channel(Descriptor socket, const std::shared_ptr<SSL_CTX>& context,
                                              TlsRole role, const std::string& name, const Patience& patience,
                                              std::string& why);

}  // namespace troupe::comm
