#include "comm/tls.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "comm/openssl.hpp"
#include "kernels/base/error.hpp"

namespace troupe::comm {

namespace {

SslContext make_context(const SSL_METHOD* method, const Security& security, std::string_view node) {
  const Credentials credentials = load_credentials(security, node);
  SslContext context(SSL_CTX_new(method));
  TROUPE_CHECK(context != nullptr, "{}", take_ssl_errors());
  const Certificate authority = parse_certificate(credentials.ca_pem, security.ca_file);
  const Certificate certificate = parse_certificate(credentials.certificate_pem, security.certificate_file);
  const Key key = parse_key(credentials.key_pem, security.key_file);
  const bool good = SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) == 1 &&
                    SSL_CTX_use_certificate(context.get(), certificate.get()) == 1 &&
                    SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1 &&
                    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.get()) == 1;
  if (!good)
    throw error(ErrorKind::security, "OpenSSL refuses certificate {}: {}", security.certificate_file,
                take_ssl_errors());
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  // Connections live as long as a view of the cluster; resuming old ones would only blur who is who.
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return context;
}

}  // namespace

void SslContextFree::operator()(SSL_CTX* context) const noexcept {
  SSL_CTX_free(context);
}
void SslFree::operator()(SSL* ssl) const noexcept {
  SSL_free(ssl);
}

SslContext make_server_context(const Security& security, std::string_view node) {
  return make_context(TLS_server_method(), security, node);
}
SslContext make_client_context(const Security& security, std::string_view node) {
  return make_context(TLS_client_method(), security, node);
}

SslHandle make_ssl(SSL_CTX* context, int descriptor) {
  SslHandle ssl(SSL_new(context));
  TROUPE_CHECK(ssl != nullptr && SSL_set_fd(ssl.get(), descriptor) == 1, "{}", take_ssl_errors());
  return ssl;
}

void expect_peer(SSL* ssl, const std::string& name) {
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_WILDCARDS);
  TROUPE_CHECK(SSL_set1_host(ssl, name.c_str()) == 1, "{}", take_ssl_errors());
}

bool peer_carries_name(const SSL* ssl, const std::string& name) {
  const Certificate certificate(SSL_get1_peer_certificate(ssl));
  return certificate && SSL_get_verify_result(ssl) == X509_V_OK &&
         X509_check_host(certificate.get(), name.data(), name.size(), X509_CHECK_FLAG_NO_WILDCARDS,
                         nullptr) == 1;
}

std::string take_ssl_errors() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {
    if (!text.empty()) text += ", ";
    const char* reason = ERR_reason_error_string(code);
    text += reason != nullptr ? std::string(reason) : fmt::format("error {:x}", code);
  }
  return text.empty() ? "OpenSSL gives no reason" : text;
}

}  // namespace troupe::comm
