// Strangers with TLS: what they show, and what they say in place of a handshake.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include <doctest/doctest.h>
#include <openssl/ssl.h>

#include "comm/certificates.hpp"
#include "comm/tls.hpp"
#include "tests/comm/attack.hpp"
#include "tests/comm/certificate_files.hpp"
#include "tests/comm/hostile_inputs.hpp"
#include "tests/support/process.hpp"

namespace troupe::comm::test {

// Sanitizers keep what is freed, and are slow.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// A dialler that trusts everyone and shows the certificate of `name`, or none.
inline SslContext dialler(const std::string& folder, const std::string& name, bool links) {
  SslContext context(SSL_CTX_new(TLS_client_method()));
  REQUIRE(context != nullptr);
  if (!name.empty()) {
    const Security files = files_of(folder, name);
    REQUIRE(SSL_CTX_use_certificate_file(context.get(), files.certificate_file.c_str(), SSL_FILETYPE_PEM) ==
            1);
    REQUIRE(SSL_CTX_use_PrivateKey_file(context.get(), files.key_file.c_str(), SSL_FILETYPE_PEM) == 1);
  }
  const unsigned char http2[] = {2, 'h', '2'};
  if (links) REQUIRE(SSL_CTX_set_alpn_protos(context.get(), http2, sizeof http2) == 0);
  return context;
}

// The first flight of a TLS handshake.
inline std::string client_hello(SSL_CTX* context) {
  const SslHandle ssl(SSL_new(context));
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), in, out);  // owns both
  SSL_connect(ssl.get());
  take_ssl_errors();
  std::string bytes(4096, '\0');
  bytes.resize(size_t(std::max(BIO_read(out, bytes.data(), int(bytes.size())), 0)));
  REQUIRE(bytes.size() > 100);
  return bytes;
}

// The strangers' certificates: none, one of another authority, and a node's that is not asked for.
struct Strangers {
  Strangers(const std::string& ours, const std::string& theirs, bool links)
      : contexts{dialler(ours, "", links), dialler(theirs, "node-0", links),
                 dialler(ours, LinkInputs::kName, links)},
        hello(client_hello(contexts[2].get())) {}

  // Chooses what is inside of TLS and what instead of it.
  void dress(AttackInput& input, uint64_t index) const {
    Dice dice(~index);
    switch (index % 16) {
      case 0:
      case 1:
      case 2:
        input.tls = contexts[index % 3].get();
        return;
      case 3:
      case 4:
        input.tls = contexts[2].get();  // gets furthest
        return;
      case 5:
        input.bytes = flipped(dice, hello);
        return;
      case 6:
        input.bytes = clipped(dice, hello);
        return;
      case 7:
        input.bytes = hello + input.bytes;
        return;
      default:
        return;
    }
  }

  SslContext contexts[3];
  std::string hello;
};

struct Siege {
  explicit Siege(bool encrypted) {
    if (!encrypted) return;
    certificates = folder / "ours";
    make_certificates({certificates, "test", {{"node-0", {}}, {"node-1", {}}, {LinkInputs::kName, {}}}, 30});
    make_certificates({folder / "theirs", "test", {{"node-0", {}}}, 30});
    at_links.emplace(certificates, folder / "theirs", true);
    at_bulk.emplace(certificates, folder / "theirs", false);
  }

  const troupe::test::TemporaryFolder folder;
  std::string certificates;
  std::optional<Strangers> at_links, at_bulk;
};

}  // namespace troupe::comm::test
