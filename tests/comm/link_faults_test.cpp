// Links between processes that die, stand still and come back.
#include <csignal>

#include "comm/certificates.hpp"
#include "tests/comm/certificate_files.hpp"
#include "tests/comm/link_support.hpp"
#include "tests/support/process.hpp"
#include "tests/support/silent_port.hpp"

namespace troupe::comm::test {

namespace {

constexpr std::chrono::seconds kStart(60);

// A link_peer process that listens.
class Peer {
 public:
  Peer(const std::string& name, int interval_ms, int patience_ms, const std::string& listen = "127.0.0.1:0",
       const std::string& certificates = "")
      : process_(command(name, interval_ms, patience_ms, listen, certificates)) {
    REQUIRE(process_.wait_for_output("\n", kStart));
    const std::string& said = process_.out();
    REQUIRE(said.starts_with("listening "));
    address_ = said.substr(10, said.find('\n') - 10);
  }
  const std::string& address() const { return address_; }
  troupe::test::Process& process() { return process_; }

 private:
  static std::vector<std::string> command(const std::string& name, int interval_ms, int patience_ms,
                                          const std::string& listen, const std::string& certificates) {
    std::vector<std::string> words{LINK_PEER, name, listen, std::to_string(interval_ms),
                                   std::to_string(patience_ms)};
    if (!certificates.empty()) words.push_back(certificates);
    return words;
  }

  troupe::test::Process process_;
  std::string address_;
};

bool echoes(Node& node, const std::string& peer, uint64_t sequence) {
  if (node.hub.send(peer, claim(sequence)) != Sent::ok) return false;
  return node.recorder.wait([&](const Event& event) {
    return message(peer)(event) && event.envelope.claim().sequence() == sequence;
  });
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

TEST_CASE("a killed process is noticed at once, not when patience ends") {
  Node a("n1");  // patience of 30 s
  Peer b("n2", 200, 30000);
  a.hub.dial("n2", b.address());
  REQUIRE(a.recorder.wait(up("n2")));
  REQUIRE(echoes(a, "n2", 1));
  const auto begin = std::chrono::steady_clock::now();
  b.process().signal(SIGKILL);
  const Event event = a.recorder.first(down("n2"));
  CHECK(seconds_since(begin) < 10);
  CHECK(event.error == ErrorKind::peer_lost);
  CHECK(event.text.find("n2") != std::string::npos);
}

TEST_CASE("a process that comes back on its port is linked again by itself, many times") {
  Node a("n1");
  std::string address = "127.0.0.1:0";
  for (size_t round = 1; round <= 5; ++round) {
    Peer b("n2", 200, 30000, address);
    address = b.address();
    if (round == 1) a.hub.dial("n2", address);
    REQUIRE(a.recorder.wait(up("n2"), round));
    REQUIRE(echoes(a, "n2", round));
    b.process().signal(SIGKILL);
    REQUIRE(a.recorder.wait(
        [](const Event& event) { return down("n2")(event) && !event.peer.incarnation.empty(); }, round));
  }
}

TEST_CASE("a process that stands still is down within patience, and heals when it goes on") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    const troupe::test::TemporaryFolder folder;
    make_certificates({folder / "c", "test", {{"n1", {}}, {"n2", {}}}, 30});
    Node a("n1", [&](LinkOptions& options) {
      options.interval_ms = 100;
      options.patience_ms = 1500;
      if (tls) options.security = files_of(folder / "c", "n1");
    });
    Peer b("n2", 100, 1500, "127.0.0.1:0", tls ? folder / "c" : "");
    a.hub.dial("n2", b.address());
    REQUIRE(a.recorder.wait(up("n2")));
    const auto begin = std::chrono::steady_clock::now();
    b.process().signal(SIGSTOP);
    const auto silent = [](const Event& event) {
      return down("n2")(event) && event.error == ErrorKind::timeout;
    };
    REQUIRE(a.recorder.wait(silent));
    CHECK(seconds_since(begin) < 20);
    CHECK(a.recorder.first(silent).text.find("silent") != std::string::npos);
    const size_t ups = a.recorder.count(up("n2"));
    b.process().signal(SIGCONT);
    REQUIRE(a.recorder.wait(up("n2"), ups + 1));
    // A loaded machine may lose the link once more; what counts is that it is there in the end.
    for (uint64_t attempt = 1; !echoes(a, "n2", attempt); ++attempt) REQUIRE(attempt < 1000);
  }
}

TEST_CASE("an address where nobody answers is left early enough to try others within the patience") {
  const troupe::test::SilentPort silent;
  Node a("n1", [](LinkOptions& options) { options.patience_ms = 9000; });
  a.hub.dial("n2", silent.address());
  CHECK(a.recorder.wait(down("n2"), 1, std::chrono::milliseconds(8000)));  // after three seconds
}

TEST_CASE("memory stays within the queue's bound when a peer stands still") {
  Node a("n1", [](LinkOptions& options) { options.patience_ms = 60000; });
  Peer b("n2", 200, 60000);
  a.hub.dial("n2", b.address());
  REQUIRE(a.recorder.wait(up("n2")));
  b.process().signal(SIGSTOP);
  size_t bytes = 0;
  int busy = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    const Sent result = a.hub.send("n2", chunk(i, 100'000));
    REQUIRE(result != Sent::down);
    if (result == Sent::ok) bytes += 100'000;
    if (result == Sent::busy) ++busy;
  }
  CHECK(busy > 2000);
  CHECK(bytes < 32'000'000);
  const auto begin = std::chrono::steady_clock::now();
  a.hub.close(2000);  // although the peer takes nothing
  CHECK(seconds_since(begin) < 20);
}

TEST_CASE("a process that leaves answers first, and leaves quickly") {
  Node a("n1");
  Peer b("n2", 200, 30000);
  a.hub.dial("n2", b.address());
  REQUIRE(a.recorder.wait(up("n2")));
  wire::Envelope leave;
  leave.mutable_leave()->set_why("the test is over");
  REQUIRE(a.hub.send("n2", leave) == Sent::ok);
  const auto result = b.process().wait(std::chrono::seconds(30));
  REQUIRE(result.has_value());
  CHECK(result->code == 0);
  CHECK(a.recorder.wait(message("n2")));
  CHECK(a.recorder.wait(down("n2")));
}

}  // namespace troupe::comm::test
