// TLS contexts for bulk connections, over a pair of sockets: who can talk to whom.
#include "comm/tls.hpp"

#include <thread>

#include <doctest/doctest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/certificates.hpp"
#include "kernels/base/error.hpp"
#include "tests/comm/certificate_files.hpp"
#include "tests/support/process.hpp"

namespace troupe::comm::test {

namespace {

struct Outcome {
  bool server = false, client = false;  // handshake done and a byte exchanged
  bool named = false;                   // the server found `client_name` in the client's certificate
};

Outcome meet(SSL_CTX* server_context, SSL_CTX* client_context, const std::string& server_name,
             const std::string& client_name) {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  Outcome outcome;
  std::thread server([&] {
    const SslHandle ssl = make_ssl(server_context, ends[0]);
    char byte = 0;
    outcome.server =
        SSL_accept(ssl.get()) == 1 && SSL_read(ssl.get(), &byte, 1) == 1 && SSL_write(ssl.get(), "y", 1) == 1;
    outcome.named = outcome.server && peer_carries_name(ssl.get(), client_name);
    take_ssl_errors();
    shutdown(ends[0], SHUT_RDWR);
  });
  const SslHandle ssl = make_ssl(client_context, ends[1]);
  expect_peer(ssl.get(), server_name);
  char byte = 0;
  outcome.client =
      SSL_connect(ssl.get()) == 1 && SSL_write(ssl.get(), "x", 1) == 1 && SSL_read(ssl.get(), &byte, 1) == 1;
  take_ssl_errors();
  shutdown(ends[1], SHUT_RDWR);
  server.join();
  close(ends[0]);
  close(ends[1]);
  return outcome;
}

}  // namespace

TEST_CASE("both ends of a TLS connection prove who they are, or there is none") {
  const troupe::test::TemporaryFolder folder;
  make_certificates({folder / "ours", "test", {{"n1", {}}, {"n_2", {}}}, 30});
  make_certificates({folder / "theirs", "test", {{"n1", {}}, {"n_2", {}}}, 30});
  const auto server = make_server_context(files_of(folder / "ours", "n1"), "n1");
  const auto client = make_client_context(files_of(folder / "ours", "n_2"), "n_2");
  const auto stranger = make_client_context(files_of(folder / "theirs", "n_2"), "n_2");
  for (int round = 0; round < 3; ++round) {  // a failure leaves nothing behind for the next connection
    Outcome outcome = meet(server.get(), client.get(), "n1", "n_2");
    CHECK(outcome.server);
    CHECK(outcome.client);
    CHECK(outcome.named);
    outcome = meet(server.get(), client.get(), "n1", "n3");
    CHECK(outcome.server);
    CHECK(!outcome.named);
    outcome = meet(server.get(), client.get(), "n9", "n_2");
    CHECK(!outcome.server);
    CHECK(!outcome.client);
    outcome = meet(server.get(), stranger.get(), "n1", "n_2");
    CHECK(!outcome.server);
    CHECK(!outcome.client);
  }
  CHECK_THROWS_AS(make_client_context(files_of(folder / "ours", "n1"), "n_2"), Error);
}

}  // namespace troupe::comm::test
