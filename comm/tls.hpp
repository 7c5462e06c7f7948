// OpenSSL contexts for bulk connections: mutual TLS 1.3 from the same Security as the links. A context is
// made once, may be shared by threads, and outlives the SSL objects made from it. No connection is trusted by
// its context alone: name the peer with expect_peer() before the handshake, or ask peer_carries_name() after
// it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

using SSL = struct ssl_st;
using SSL_CTX = struct ssl_ctx_st;

#include "comm/security.hpp"

namespace troupe::comm {

struct SslContextFree {
  void operator()(SSL_CTX* context) const noexcept;
};
struct SslFree {
  void operator()(SSL* ssl) const noexcept;
};
using SslContext = std::unique_ptr<SSL_CTX, SslContextFree>;
using SslHandle = std::unique_ptr<SSL, SslFree>;

// REQUIRES security.tls(). Both demand a certificate of the peer that the cluster's authority signed. `node`
// is this node's own name (empty for a client). Throw what load_credentials() throws.
SslContext make_server_context(const Security& security, std::string_view node);
SslContext make_client_context(const Security& security, std::string_view node);

// A new SSL over `descriptor` (blocking or not), which stays the caller's to close.
SslHandle make_ssl(SSL_CTX* context, int descriptor);

// The handshake fails unless the peer's certificate carries `name`.
void expect_peer(SSL* ssl, const std::string& name);

// REQUIRES a finished handshake.
bool peer_carries_name(const SSL* ssl, const std::string& name);

// The reasons in this thread's OpenSSL error queue, joined; empties the queue. Call after every failed SSL_*
// call: a stale entry would make the thread's next call on another connection look broken.
std::string take_ssl_errors();

}  // namespace troupe::comm
