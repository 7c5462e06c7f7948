// Links between hubs of one process: what is told, in which order, and what is refused.
#include "comm/link.hpp"

#include "tests/comm/link_support.hpp"

namespace troupe::comm::test {

using Kind = Event::Kind;

TEST_CASE("two hubs link, talk in order both ways, and part") {
  Node a("n1"), b("n2");
  a.link_to(b);
  for (uint64_t i = 1; i <= 500; ++i) {
    REQUIRE(a.hub.send("n2", claim(i)) == Sent::ok);
    REQUIRE(b.hub.send("n1", claim(1000 + i)) == Sent::ok);
  }
  REQUIRE(a.recorder.wait(message("n2"), 500));
  REQUIRE(b.recorder.wait(message("n1"), 500));
  a.hub.close(5000);
  REQUIRE(b.recorder.wait(down("n1")));
  const auto events = b.recorder.all();
  REQUIRE(events.size() == 502);
  CHECK(events.front().kind == Kind::up);
  CHECK(events.front().peer.incarnation == a.options.incarnation);
  for (size_t i = 1; i <= 500; ++i) REQUIRE(events[i].envelope.claim().sequence() == i);
  CHECK(events.back().kind == Kind::down);
  CHECK(events.back().error == ErrorKind::peer_lost);
  CHECK(a.recorder.all().back().kind == Kind::down);
  CHECK(a.recorder.all().back().error == ErrorKind::cancelled);
  CHECK(b.hub.send("n1", claim(1)) == Sent::down);
  CHECK(a.hub.send("n2", claim(1)) == Sent::down);
}

TEST_CASE("messages that were sent before closing arrive, from either end") {
  for (const bool dialler_closes : {true, false}) {
    Node a("n1"), b("n2");
    a.link_to(b);
    Node& first = dialler_closes ? a : b;
    Node& second = dialler_closes ? b : a;
    for (uint64_t i = 0; i < 30; ++i)
      REQUIRE(first.hub.send(second.options.node, chunk(i, 100'000)) == Sent::ok);
    first.hub.close(30000);
    CHECK(second.recorder.wait(down(first.options.node)));
    CHECK(second.recorder.count(message(first.options.node)) == 30);
  }
}

TEST_CASE("closing is quick with many peers, with none, and while dialling nobody") {
  const auto begin = std::chrono::steady_clock::now();
  {
    Node alone("n9");
    Node dialling("n8");
    dialling.hub.dial("n7", "127.0.0.1:1");
    Node star("n0");
    Node a("n1"), b("n2"), c("n3");
    for (Node* each : {&a, &b, &c}) star.link_to(*each);
    star.hub.close(20000);
    star.hub.close(20000);
    alone.hub.close(20000);
    dialling.hub.close(20000);
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15));
}

TEST_CASE("dialling goes on until the other side is there, and tells why not once") {
  Node late("n2");
  const std::string address = late.hub.listen_address();
  late.hub.close(1000);
  Node a("n1");
  a.hub.dial("n2", address);
  const Event failed = a.recorder.first(down("n2"));
  CHECK(failed.error == ErrorKind::network);
  CHECK(failed.peer.incarnation.empty());
  CHECK(failed.text.find("n2") != std::string::npos);
  CHECK(failed.text.find(address) != std::string::npos);
  Node back("n2", [&](LinkOptions& options) { options.listen_address = address; });
  REQUIRE(a.recorder.wait(up("n2")));
  CHECK(a.recorder.count(down("n2")) <= 2);
}

TEST_CASE("a node that restarts on its port with a new incarnation is linked again, many times") {
  Node a("n1");
  std::string address = "127.0.0.1:0";
  for (size_t round = 1; round <= 10; ++round) {
    Node b("n2", [&](LinkOptions& options) { options.listen_address = address; });
    address = b.hub.listen_address();
    a.hub.dial("n2", address);
    REQUIRE(a.recorder.wait(up("n2"), round));
    REQUIRE(b.recorder.wait(up("n1")));
    REQUIRE(a.hub.send("n2", claim(round)) == Sent::ok);
    REQUIRE(b.recorder.wait(message("n1")));
    b.hub.close(5000);
    REQUIRE(a.recorder.wait(down("n2"), round));
  }
}

TEST_CASE("a newer incarnation takes the older one's place, which is never let in again") {
  Node hub("n1");
  const auto quiet = [](LinkOptions& options) { options.listen_address = ""; };
  Node older("n2", quiet);
  older.link_to(hub);
  Node newer("n2", quiet);
  newer.hub.dial("n1", hub.hub.listen_address());
  REQUIRE(newer.recorder.wait(up("n1")));
  const Event refusal = older.recorder.first([](const Event& event) {
    return event.kind == Kind::down && event.peer.incarnation.empty() &&
           event.text.find("replaced") != std::string::npos;
  });
  CHECK(refusal.error == ErrorKind::peer_lost);
  CHECK(newer.recorder.count(down("n1")) == 0);
  REQUIRE(hub.recorder.wait(up("n2"), 2));
  const auto events = hub.recorder.all();
  std::vector<Kind> kinds;
  for (const Event& event : events)
    if (event.kind != Kind::refused) kinds.push_back(event.kind);
  CHECK(kinds == std::vector<Kind>{Kind::up, Kind::down, Kind::up});
}

TEST_CASE("the same incarnation may come back on a new stream") {
  Node hub("n1");
  Node a("n2");
  for (size_t round = 1; round <= 5; ++round) {
    a.hub.dial("n1", hub.hub.listen_address());
    REQUIRE(a.recorder.wait(up("n1"), round));
    a.hub.forget("n1");
    REQUIRE(a.recorder.wait(down("n1"), round));
    REQUIRE(hub.recorder.wait(down("n2"), round));
  }
  CHECK(a.recorder.all().back().error == ErrorKind::cancelled);
}

TEST_CASE("two nodes that dial one another at once end with one link, and it stays") {
  for (int round = 0; round < 20; ++round) {
    Node a("n1"), b("n2");
    a.hub.dial("n2", b.hub.listen_address());
    b.hub.dial("n1", a.hub.listen_address());
    REQUIRE(a.recorder.wait(up("n2")));
    REQUIRE(b.recorder.wait(up("n1")));
    // Sooner or later both have the same stream, and it carries messages.
    const auto linked = [](const Node& node, const std::string& peer) {
      return node.recorder.count(up(peer)) == node.recorder.count(down(peer)) + 1 &&
             node.recorder.count(message(peer)) > 0;
    };
    const auto well = [&] { return linked(a, "n2") && linked(b, "n1"); };
    const auto deadline = std::chrono::steady_clock::now() + kDeadline;
    bool settled = false;
    while (!(settled = well()) && std::chrono::steady_clock::now() < deadline) {
      const size_t heard = b.recorder.count(message("n1"));
      a.hub.send("n2", claim(1));
      b.hub.send("n1", claim(1));
      b.recorder.wait(message("n1"), heard + 1, std::chrono::milliseconds(50));  // or it was lost
    }
    CHECK(settled);
    CHECK(a.recorder.count(up("n2")) <= 2);
    CHECK(b.recorder.count(up("n1")) <= 2);
  }
}

TEST_CASE("a client that knows an address alone learns which node is there") {
  Node node("n1");
  Node client("client:0a0b", [](LinkOptions& options) { options.cluster.clear(); });
  client.hub.dial(std::string(kAnyNode), node.hub.listen_address());
  const Event linked = client.recorder.first(up("n1"));
  CHECK(linked.peer.incarnation == node.options.incarnation);
  REQUIRE(client.hub.send("n1", claim(1)) == Sent::ok);
  REQUIRE(node.recorder.wait(message("client:0a0b")));
  REQUIRE(node.hub.send("client:0a0b", claim(2)) == Sent::ok);
  CHECK(client.recorder.wait(message("n1")));
}

TEST_CASE("a client links and is told apart from nodes") {
  Node hub("n1");
  Node client("client:00ff");
  client.link_to(hub);
  CHECK(hub.recorder.first(up("client:00ff")).peer.client);
  CHECK(!client.recorder.first(up("n1")).peer.client);
  REQUIRE(hub.hub.send("client:00ff", claim(7)) == Sent::ok);
  REQUIRE(client.recorder.wait(message("n1")));
}

TEST_CASE("clients beyond the bound are turned away") {
  Node hub("n1", [](LinkOptions& options) { options.clients_max = 2; });
  Node a("client:01"), b("client:02"), c("client:03");
  a.link_to(hub);
  b.link_to(hub);
  c.hub.dial("n1", hub.hub.listen_address());
  CHECK(c.recorder.first(down("n1")).text.find("2 clients") != std::string::npos);
  a.hub.close(5000);
  REQUIRE(c.recorder.wait(up("n1")));
}

TEST_CASE("another cluster, another name and our own name are refused, with both values named") {
  Node hub("n1");
  const std::string address = hub.hub.listen_address();
  const auto refusal = [&](Node& node, const std::string& dialled) {
    node.hub.dial(dialled, address);
    const Event event = node.recorder.first(down(dialled));
    CHECK(event.error == ErrorKind::usage);
    return event.text;
  };
  Node other("n2", [](LinkOptions& options) { options.cluster = "other"; });
  const std::string cluster = refusal(other, "n1");
  CHECK(cluster.find("'other'") != std::string::npos);
  CHECK(cluster.find("'test'") != std::string::npos);
  CHECK(hub.recorder.first(refused).error == ErrorKind::usage);

  Node lost("n3");
  const std::string name = refusal(lost, "n4");
  CHECK(name.find("'n1'") != std::string::npos);
  CHECK(name.find("'n4'") != std::string::npos);

  Node twin("n1");
  twin.hub.dial("n5", address);
  CHECK(twin.recorder.first(down("n5")).error == ErrorKind::usage);
}

TEST_CASE("a full queue says busy, holds no more than its bound, and drains") {
  Node a("n1"), b("n2");
  a.link_to(b);
  constexpr size_t kBytes = 1 << 20;
  size_t sent = 0;
  {
    const std::lock_guard stalled(b.recorder.gate);  // a peer that does not read
    // Sockets and gRPC take in a little more for a while: then nothing goes any more.
    for (int busy = 0; busy < 50 && sent < 1000;) {
      const Sent result = a.hub.send("n2", chunk(sent, kBytes));
      REQUIRE(result != Sent::down);
      if (result == Sent::ok) ++sent;
      busy = result == Sent::busy ? busy + 1 : 0;
    }
    CHECK(sent >= 7);
    CHECK(sent < 64);  // the queue, and what is beyond it
  }
  REQUIRE(b.recorder.wait(message("n1"), sent));
  CHECK(a.hub.send("n2", chunk(sent, kBytes)) == Sent::ok);
  REQUIRE(b.recorder.wait(message("n1"), sent + 1));
}

TEST_CASE("an address beyond this machine needs certificates, or the word that it may be insecure") {
  for (const char* address : {"0.0.0.0:0", "[::]:0", "10.1.2.3:9100", "node-1:9100"}) {
    CAPTURE(address);
    CHECK_THROWS_WITH_AS(Node("n1", [&](LinkOptions& options) { options.listen_address = address; }),
                         doctest::Contains("insecure = true"), Error);
    Node a("n1");
    CHECK_THROWS_WITH_AS(a.hub.dial("n2", address), doctest::Contains("troupe certs"), Error);
  }
  Node open("n1", [](LinkOptions& options) {
    options.listen_address = "0.0.0.0:0";
    options.security.insecure = true;
  });
  CHECK(open.hub.listen_address().starts_with("0.0.0.0:"));
}

TEST_CASE("wrong options and a port in use are errors that say so") {
  Node a("n1");
  CHECK_THROWS_WITH_AS(
      Node("n2", [&](LinkOptions& options) { options.listen_address = a.hub.listen_address(); }),
      doctest::Contains("in use"), Error);
  CHECK_THROWS_WITH_AS(Node("bad name"), doctest::Contains("bad name"), Error);
  CHECK_THROWS_WITH_AS(Node("n2", [](LinkOptions& options) { options.patience_ms = 1; }),
                       doctest::Contains("patience"), Error);
  CHECK_THROWS_AS(a.hub.dial("n1", "127.0.0.1:1"), Error);
  for (const char* address :
       {"", ":", "nowhere", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "a b:1"}) {
    CAPTURE(address);
    CHECK_THROWS_WITH_AS(a.hub.dial("n2", address), doctest::Contains("host:port"), Error);
  }
}

}  // namespace troupe::comm::test
