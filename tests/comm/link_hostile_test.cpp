// What reaches a node's port that no node sends. A healthy link beside it must notice nothing.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/address.hpp"
#include "tests/comm/link_support.hpp"
#include "tests/comm/raw_stream.hpp"

namespace troupe::comm::test {

namespace {

struct HealthyPair {
  HealthyPair() { a.link_to(b); }
  ~HealthyPair() {
    CHECK(a.recorder.count(down("n2")) == 0);
    CHECK(b.recorder.count(down("n1")) == 0);
    CHECK(a.hub.send("n2", claim(99)) == Sent::ok);
    CHECK(b.recorder.wait(message("n1")));
    CHECK(b.recorder.count(up("n3")) == 0);
  }
  std::string address() const { return b.hub.listen_address(); }
  RawAnswer answer_to(const std::vector<std::string>& messages) const {
    return talk_raw(address(), messages);
  }

  Node a{"n1"}, b{"n2"};
};

int connect_to(const std::string& text) {
  const Address address = parse_address(text);
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(address.port);
  inet_pton(AF_INET, address.host.c_str(), &to.sin_addr);
  if (connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return descriptor;
  close(descriptor);
  return -1;
}

}  // namespace

TEST_CASE("a first message that is no hello, a bad hello or a newer one is refused and told why") {
  HealthyPair pair;
  const auto says = [&](const std::string& bytes, const std::string& text) {
    CAPTURE(text);
    const auto answer = pair.answer_to({bytes});
    CAPTURE(answer.text);
    CHECK(answer.messages.empty());
    CHECK(answer.text.find(text) != std::string::npos);
  };
  says("", "instead of 'hello'");
  says(claim(1).SerializeAsString(), "instead of 'hello'");
  says("\xff\xff\xff", "no message");
  says(std::string(5000, 'x'), "before a hello");
  wire::Envelope hello = raw_hello("n3");
  hello.mutable_hello()->set_wire_version(wire::kWireVersion + 1);
  says(hello.SerializeAsString(), "wire version " + std::to_string(wire::kWireVersion + 1));
  says(raw_hello("no name").SerializeAsString(), "'no name'");
  says(raw_hello("client:XYZ").SerializeAsString(), "'client:XYZ'");
  hello = raw_hello("n3");
  hello.mutable_hello()->set_cluster("theirs");
  says(hello.SerializeAsString(), "'theirs'");
  hello.mutable_hello()->set_incarnation("short");
  says(hello.SerializeAsString(), "incarnation");
}

TEST_CASE("a message out of bounds ends its own link only") {
  HealthyPair pair;
  const auto ends_with = [&](const std::string& bytes, const std::string& text) {
    const auto answer = pair.answer_to({raw_hello("n5").SerializeAsString(), bytes});
    CAPTURE(answer.text);
    CHECK(answer.messages.size() == 1);  // its hello
    CHECK(answer.text.find(text) != std::string::npos);
  };
  wire::Envelope bad;
  bad.mutable_claim()->set_wanted(5000);
  ends_with(bad.SerializeAsString(), "claim.wanted");
  ends_with("\xff\xff\xff", "no message");
  ends_with(raw_hello("n5").SerializeAsString(), "hello twice");
  ends_with(std::string(2 << 20, '\x78'), "larger than");
  ends_with(std::string(5 << 20, 'x'), "larger than max");
  CHECK(pair.b.recorder.wait(down("n5"), 5));
  CHECK(pair.b.recorder.first(down("n5")).error == ErrorKind::protocol);
}

TEST_CASE("a message whose checksum is wrong, missing, or of another place ends its own link only") {
  HealthyPair pair;
  const auto ends_with = [&](const std::vector<std::string>& bytes, size_t answers) {
    const auto answer = talk_bytes(pair.address(), bytes);
    CAPTURE(answer.text);
    CHECK(answer.messages.size() == answers);
    CHECK(answer.text.find("damaged") != std::string::npos);
  };
  const std::string hello = raw_hello("n5").SerializeAsString(), second = claim(1).SerializeAsString();
  const auto sealed = with_checksums({hello, second, second});
  ends_with({hello}, 0);
  ends_with({""}, 0);
  ends_with({sealed[1]}, 0);
  ends_with({sealed[0], second}, 1);
  ends_with({sealed[0], ""}, 1);         // not even a sign of life
  ends_with({sealed[0], sealed[2]}, 1);  // the one before was lost
  ends_with({sealed[0], sealed[1], sealed[1]}, 1);
  std::string flipped = sealed[1];
  flipped[2] = char(flipped[2] ^ 1);
  ends_with({sealed[0], flipped}, 1);
  CHECK(pair.b.recorder.wait(down("n5"), 5));
  CHECK(pair.b.recorder.first(down("n5")).error == ErrorKind::corrupt);
  CHECK(pair.b.recorder.count(message("n5")) == 1);
}

TEST_CASE("a hundred idle connections, and streams that say nothing, disturb nobody and are ended") {
  HealthyPair pair;
  Node impatient("n4", [](LinkOptions& options) { options.patience_ms = 1000; });
  std::vector<int> idle;
  for (int i = 0; i < 100; ++i) idle.push_back(connect_to(pair.address()));
  for (const int descriptor : idle) REQUIRE(descriptor >= 0);
  const auto answer = talk_raw(impatient.hub.listen_address(), {});
  CHECK(answer.messages.empty());
  Node late("n6");
  late.link_to(pair.b);
  for (const int descriptor : idle) close(descriptor);
}

}  // namespace troupe::comm::test
