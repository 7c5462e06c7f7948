// Links with mutual TLS: who gets in, and what those who do not are told.
#include "comm/certificates.hpp"
#include "tests/comm/certificate_files.hpp"
#include "tests/comm/link_support.hpp"
#include "tests/comm/raw_stream.hpp"
#include "tests/support/process.hpp"

namespace troupe::comm::test {

namespace {

void make_folder(const std::string& folder) {
  CertificateOptions options;
  options.folder = folder;
  for (const char* name : {"n1", "n2", "n3", "client"}) options.nodes.push_back({name, {}});
  make_certificates(options);
}

// Two clusters' certificates, and two nodes of the first that are linked and must not notice what a test
// does.
struct SecureCluster {
  SecureCluster() {
    make_folder(folder / "ours");
    make_folder(folder / "theirs");
    a.emplace("n1", with("ours", "n1"));
    b.emplace("n2", with("ours", "n2"));
    a->link_to(*b);
    address = b->hub.listen_address();
  }
  ~SecureCluster() {
    CHECK(a->recorder.count(down("n2")) == 0);
    CHECK(b->recorder.count(down("n1")) == 0);
    CHECK(a->hub.send("n2", claim(99)) == Sent::ok);
    CHECK(b->recorder.wait(message("n1")));
  }
  std::function<void(LinkOptions&)> with(const std::string& cluster, const std::string& node) const {
    return
        [security = files_of(folder / cluster, node)](LinkOptions& options) { options.security = security; };
  }
  Credentials credentials(const std::string& cluster, const std::string& node) const {
    return load_credentials(files_of(folder / cluster, node), node);
  }

  troupe::test::TemporaryFolder folder;
  std::optional<Node> a, b;
  std::string address;
};

}  // namespace

TEST_CASE("nodes and clients with certificates of one authority link and talk") {
  SecureCluster cluster;
  Node client("client:0abc", cluster.with("ours", "client"));
  client.link_to(*cluster.b);
  for (uint64_t i = 0; i < 100; ++i) REQUIRE(client.hub.send("n2", claim(i)) == Sent::ok);
  REQUIRE(cluster.b->recorder.wait(message("client:0abc"), 100));
  REQUIRE(cluster.b->hub.send("client:0abc", chunk(1, 3'000'000)) == Sent::ok);
  REQUIRE(client.recorder.wait(message("n2")));
}

TEST_CASE("a certificate of another authority is refused by both ends") {
  SecureCluster cluster;
  Node stranger("n3", cluster.with("theirs", "n3"));
  stranger.hub.dial("n2", cluster.address);
  CHECK(stranger.recorder.first(down("n2")).error == ErrorKind::security);
  // One that trusts our authority, but shows a certificate of another.
  Credentials mixed = cluster.credentials("theirs", "n3");
  mixed.ca_pem = cluster.credentials("ours", "n1").ca_pem;
  const auto answer = talk_raw(cluster.address, {raw_hello("n3").SerializeAsString()}, RawTls{mixed, "n2"});
  CHECK(answer.status != 0);
  CHECK(answer.messages.empty());
}

TEST_CASE("a peer that shows no certificate is refused") {
  SecureCluster cluster;
  const Credentials none{cluster.credentials("ours", "n1").ca_pem, "", ""};
  const auto answer = talk_raw(cluster.address, {raw_hello("n3").SerializeAsString()}, RawTls{none, "n2"});
  CHECK(answer.status != 0);
  CHECK(answer.messages.empty());
  CHECK(cluster.b->recorder.count(up("n3")) == 0);
}

TEST_CASE("a node with another node's certificate is refused, whichever end it is at") {
  SecureCluster cluster;
  const RawTls as_third{cluster.credentials("ours", "n3"), "n2"};
  const auto answer = talk_raw(cluster.address, {raw_hello("n1").SerializeAsString()}, as_third);
  CHECK(answer.text.find("'n1'") != std::string::npos);
  CHECK(answer.text.find("'n3'") != std::string::npos);
  CHECK(cluster.b->recorder.first(refused).error == ErrorKind::security);

  Node third("n3", cluster.with("ours", "n3"));
  third.hub.dial("n1", cluster.address);  // where n2 answers
  CHECK(third.recorder.first(down("n1")).error == ErrorKind::security);

  CHECK_THROWS_WITH_AS(Node("n1", cluster.with("ours", "n3")), doctest::Contains("not for node 'n1'"), Error);
}

TEST_CASE("plain text does not reach a node with certificates, nor the other way round") {
  SecureCluster cluster;
  Node plain("n3");
  plain.hub.dial("n2", cluster.address);
  const Event to_tls = plain.recorder.first(down("n2"));
  INFO(to_tls.text);
  CHECK(to_tls.text.find("certificates") != std::string::npos);
  Node secure("n4x", [&](LinkOptions& options) {
    options.node = "n3";
    options.security = files_of(cluster.folder / "ours", "n3");
  });
  secure.hub.dial("n3x", plain.hub.listen_address());
  const Event to_plain = secure.recorder.first(down("n3x"));
  INFO(to_plain.text);
  CHECK((to_plain.error == ErrorKind::security || to_plain.error == ErrorKind::network));
  CHECK(to_plain.text.find("certificates") != std::string::npos);
}

}  // namespace troupe::comm::test
