#include <future>
#include <mutex>

#include <doctest/doctest.h>
#include <sys/socket.h>

#include "comm/certificates.hpp"
#include "comm/socket.hpp"
#include "tests/comm/flip_proxy.hpp"
#include "tests/comm/ring_harness.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;

namespace {

void certify(const std::string& folder, std::initializer_list<std::string> names) {
  CertificateOptions request;
  request.folder = folder;
  for (const std::string& name : names) request.nodes.push_back({name, {"127.0.0.1"}});
  make_certificates(request);
}

std::vector<std::byte> some_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = std::byte(i * 7 + i / 1000);
  return bytes;
}

// Dials with the certificate that `dialler` gives, to a listener that expects rank 0 as node-0; gives the
// dial's error.
Error refused_with(const std::string& server_folder, const std::string& dialler_folder,
                   const std::string& dialler_name, const std::string& server_name = "node-1") {
  BulkListener listener(
      {"127.0.0.1:0", test_context({.certificates = server_folder}, server_name, End::listen)});
  const BulkPeer acceptor{1, member_name(1), listener.address(), ""}, dialler{0, member_name(0), "", ""};
  auto accepting = std::async(std::launch::async, [&] {
    CHECK_THROWS_AS(listener.accept(test_session(1), {&dialler, 1}, soon()), Error);
  });
  std::optional<Error> thrown;
  try {
    bulk_connect(test_session(0), acceptor,
                 test_context({.certificates = dialler_folder}, dialler_name, End::dial), soon());
  } catch (const Error& error) {
    thrown = error;
  }
  listener.cancel();
  accepting.get();
  REQUIRE(thrown.has_value());
  return *thrown;
}

}  // namespace

TEST_CASE("an encrypted ring gives the bits of the plain sum") {
  TemporaryFolder folder;
  certify(folder / "certs", {"node-0", "node-1", "node-2"});
  kernels::BlockLayout layout;
  layout.append(600'001, 600'001);
  for (const size_t ranks : {2u, 3u}) {
    const auto wanted = plain_total(layout, ranks, {24, 5});
    std::mutex mutex;
    run_ranks_well(ranks, {.certificates = folder / "certs"}, [&](Ring& ring) {
      const auto values = test_values(layout, ring.position());
      kernels::RoundedTotal total;
      ring.reduce(ExactReduction{1,
                                 &layout,
                                 values,
                                 &total,
                                 {24, 5},
                                 test_contributions(ranks),
                                 buckets_last_first(layout, 100'000)},
                  {}, soon());
      std::lock_guard lock(mutex);
      CHECK(total == wanted);
    });
  }
}

TEST_CASE("an encrypted connection carries frames both ways, and also hands over to shared memory") {
  TemporaryFolder folder;
  certify(folder / "certs", {"node-0", "node-1"});
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({.transport = transport, .certificates = folder / "certs"});
    CHECK(pair.dialler->encrypted() == (transport == Transport::tcp));
    const auto bytes = some_bytes(700'000);
    const auto talk = [&](BulkConnection& connection) {
      auto sending = std::async(std::launch::async, [&] {
        for (uint32_t i = 0; i < 20; ++i) connection.send({1, 0, i, 0, {}}, bytes, soon());
        connection.flush(soon());
      });
      bool good = true;
      for (uint32_t i = 0; i < 20; ++i) {
        const Frame frame = connection.receive(soon());
        good =
            good && frame.head.bucket == i && std::equal(bytes.begin(), bytes.end(), frame.payload.begin());
      }
      connection.acknowledge(soon());
      sending.get();
      return good;
    };
    auto other = std::async(std::launch::async, [&] { return talk(*pair.acceptor); });
    CHECK(talk(*pair.dialler));
    CHECK(other.get());
    // The other end leaves: noticed through the life line as well.
    auto waiting =
        std::async(std::launch::async, [&] { CHECK_THROWS_AS(pair.acceptor->receive(soon()), PeerError); });
    pair.dialler.reset();
    waiting.get();
  }
}

TEST_CASE("certificates of another authority or another name are refused") {
  TemporaryFolder folder;
  certify(folder / "certs", {"node-0", "node-1", "node-2"});
  certify(folder / "others", {"node-0", "node-1"});
  // The dialler refuses a server of another authority, and one that has another node's certificate.
  CHECK(refused_with(folder / "others", folder / "certs", "node-0").kind() == ErrorKind::security);
  CHECK(refused_with(folder / "certs", folder / "certs", "node-0", "node-2").kind() == ErrorKind::security);
  // The listener refuses a dialler whose certificate names somebody else.
  CHECK(refused_with(folder / "certs", folder / "certs", "node-2").kind() == ErrorKind::security);
}

TEST_CASE("a dialler without TLS and random bytes do not keep a member from an encrypted listener") {
  TemporaryFolder folder;
  certify(folder / "certs", {"node-0", "node-1"});
  const RingTestOptions options{.certificates = folder / "certs"};
  BulkListener listener({"127.0.0.1:0", test_context(options, "node-1", End::listen)});
  const BulkPeer acceptor{1, member_name(1), listener.address(), ""}, dialler{0, member_name(0), "", ""};
  std::vector<Descriptor> strangers;
  std::string why;
  for (size_t i = 0; i < 20; ++i) {
    strangers.push_back(connect_to(listener.address(), soon(), why));
    const auto noise = some_bytes(i * 31);
    if (!noise.empty()) ::send(strangers.back().get(), noise.data(), noise.size(), MSG_NOSIGNAL);
  }
  auto plain = std::async(std::launch::async, [&] {
    CHECK_THROWS_AS(bulk_connect(test_session(0), acceptor, {}, deadline_in_ms(300)), PeerError);
  });
  auto dialled = std::async(std::launch::async, [&] {
    return bulk_connect(test_session(0), acceptor, test_context(options, "node-0", End::dial), soon());
  });
  CHECK(listener.accept(test_session(1), {&dialler, 1}, soon()).encrypted());
  dialled.get();
  plain.get();
}

TEST_CASE("who loses an encrypted connection is told how") {
  TemporaryFolder folder;
  certify(folder / "certs", {"node-0", "node-1"});
  auto pair = connect_pair({.certificates = folder / "certs"});
  pair.dialler.reset();
  try {
    pair.acceptor->receive(soon());
    FAIL_CHECK("received what nobody sent");
  } catch (const PeerError& error) {
    const std::string what = error.what();
    CAPTURE(what);
    CHECK(error.kind() == ErrorKind::peer_lost);
    CHECK((what.find("closed the connection") != std::string::npos ||
           what.find("Connection reset by peer") != std::string::npos));
  }
}

TEST_CASE("a byte changed under TLS ends the connection with an error") {
  TemporaryFolder folder;
  certify(folder / "certs", {"node-0", "node-1"});
  const RingTestOptions options{.certificates = folder / "certs"};
  BulkListener listener({"127.0.0.1:0", test_context(options, "node-1", End::listen)});
  FlipProxy proxy(listener.address(), [&](uint64_t offset, std::span<std::byte> bytes) {
    if (offset < 100'000 && offset + bytes.size() > 100'000) bytes[100'000 - offset] ^= std::byte{1};
  });
  const BulkPeer acceptor{1, member_name(1), proxy.address(), ""}, dialler{0, member_name(0), "", ""};
  auto sending = std::async(std::launch::async, [&] {
    auto connection =
        bulk_connect(test_session(0), acceptor, test_context(options, "node-0", End::dial), soon());
    CHECK_THROWS_AS(([&] {
                      connection.send({1, 0, 0, 0, {}}, some_bytes(500'000), soon());
                      connection.flush(soon());
                    }()),
                    PeerError);
  });
  {
    auto connection = listener.accept(test_session(1), {&dialler, 1}, soon());
    CHECK_THROWS_AS(connection.receive(soon()), PeerError);
  }
  sending.get();
}
