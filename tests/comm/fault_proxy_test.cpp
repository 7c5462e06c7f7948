// The fault proxy between plain sockets: what it forwards, and each fault by its measure.
#include "comm/fault_proxy.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include "tests/comm/raw_socket.hpp"

namespace troupe::comm::test {

namespace {

constexpr size_t kMega = size_t{1} << 20;

struct Pair {
  Descriptor dialler, acceptor;
};

// A listener and a proxy before it.
struct Path {
  explicit Path(FaultProxyOptions options = {})
      : listener(listen_on("127.0.0.1:0", address)), proxy(with_target(std::move(options))) {}
  FaultProxyOptions with_target(FaultProxyOptions options) const {
    options.target = address;
    return options;
  }
  Pair connect() {
    Pair pair;
    pair.dialler = raw_connect(proxy.address());
    pair.acceptor = raw_accept(listener);
    return pair;
  }
  bool nobody_comes(int ms) const { return !wait_readable(listener.get(), deadline_in_ms(ms)); }

  std::string address;
  Descriptor listener;
  FaultProxy proxy;
};

Faults corrupting(double probability) {
  Faults faults;
  faults.corruption = probability;
  return faults;
}
Faults delaying(double delay_ms) {
  Faults faults;
  faults.delay_ms = delay_ms;
  return faults;
}
Faults cutting() {
  Faults faults;
  faults.cut = true;
  return faults;
}

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

std::future<bool> send_in_background(const Descriptor& socket, const std::string& bytes) {
  return std::async(std::launch::async, [&socket, &bytes] {
    const bool sent = send_all(socket, bytes);
    shutdown(socket.get(), SHUT_WR);
    return sent;
  });
}

// How many bits differ in each piece of 1,024 bytes.
std::vector<int> flips(const std::string& sent, const std::string& received) {
  REQUIRE(sent.size() == received.size());
  std::vector<int> bits((sent.size() + 1023) / 1024);
  for (size_t i = 0; i < sent.size(); ++i)
    bits[i / 1024] += std::popcount(unsigned(uint8_t(sent[i]) ^ uint8_t(received[i])));
  return bits;
}

}  // namespace

TEST_CASE("every byte passes in order, both ways at once on several connections, and then the end") {
  Path path;
  constexpr size_t kPairs = 4;
  std::vector<Pair> pairs;
  std::vector<std::string> texts;
  for (size_t i = 0; i < 2 * kPairs; ++i) texts.push_back(random_text(3 * kMega + 77 * i, i));
  std::vector<std::future<bool>> sending;
  std::vector<std::future<std::string>> receiving;
  for (size_t i = 0; i < kPairs; ++i) pairs.push_back(path.connect());
  for (size_t i = 0; i < 2 * kPairs; ++i) {
    Pair& pair = pairs[i / 2];
    sending.push_back(send_in_background(i % 2 == 0 ? pair.dialler : pair.acceptor, texts[i]));
    receiving.push_back(std::async(std::launch::async, [&socket = i % 2 == 0 ? pair.acceptor : pair.dialler] {
      return receive_to_end(socket).bytes;
    }));
  }
  uint64_t bytes[2] = {};
  for (size_t i = 0; i < 2 * kPairs; ++i) {
    CHECK(sending[i].get());
    CHECK((receiving[i].get() == texts[i]));
    bytes[i % 2] += texts[i].size();
  }
  const FaultStats stats = path.proxy.stats();
  CHECK(stats.to_target.bytes == bytes[0]);
  CHECK(stats.to_dialler.bytes == bytes[1]);
  CHECK(stats.connections == kPairs);
  CHECK(stats.connections_open == 0);
  CHECK(stats.to_target.pieces_corrupted + stats.to_target.pieces_lost + stats.to_target.pieces_delayed == 0);
}

TEST_CASE("a connection that is closed in one direction goes on in the other") {
  Path path;
  Pair pair = path.connect();
  const std::string question = "how many?", answer = random_text(kMega, 5);
  REQUIRE(send_all(pair.dialler, question));
  shutdown(pair.dialler.get(), SHUT_WR);
  const Received asked = receive_to_end(pair.acceptor);
  CHECK(asked.ended);
  CHECK(asked.bytes == question);
  auto answering = send_in_background(pair.acceptor, answer);
  CHECK((receive_to_end(pair.dialler).bytes == answer));
  CHECK(answering.get());
}

TEST_CASE("each byte, and the end, leaves at least the delay after it came; the other way is not delayed") {
  Path path;
  Pair pair = path.connect();
  path.proxy.set(Direction::to_target, delaying(150));
  auto sending = std::async(std::launch::async, [&] {
    for (int i = 0; i < 100; ++i) {
      const int64_t now = Clock::now().time_since_epoch().count();
      if (!send_all(pair.dialler, {reinterpret_cast<const char*>(&now), sizeof now})) return;
      wait_readable(pair.dialler.get(), deadline_in_ms(2));  // spreads them
    }
    shutdown(pair.dialler.get(), SHUT_WR);
  });
  double least_ms = 1e9;
  for (int i = 0; i < 100; ++i) {
    const std::string stamp = receive_up_to(pair.acceptor, sizeof(int64_t)).bytes;
    REQUIRE(stamp.size() == sizeof(int64_t));
    int64_t sent = 0;
    std::memcpy(&sent, stamp.data(), sizeof sent);
    least_ms = std::min(least_ms, ms_since(Clock::time_point(Clock::duration(sent))));
  }
  sending.get();
  CHECK(least_ms >= 150);
  MESSAGE("shortest way with a delay of 150 ms: ", least_ms, " ms");
  CHECK(receive_to_end(pair.acceptor).bytes.empty());

  REQUIRE(send_all(pair.acceptor, "back"));
  CHECK(receive_up_to(pair.dialler, 4).bytes == "back");
  const FaultStats stats = path.proxy.stats();
  CHECK(stats.to_target.pieces_delayed == 1);  // of 16 KiB
  CHECK(stats.to_dialler.pieces_delayed == 0);

  path.proxy.set(Direction::to_dialler, delaying(200));
  const auto begin = Clock::now();
  shutdown(pair.acceptor.get(), SHUT_WR);
  CHECK(receive_to_end(pair.dialler).ended);
  CHECK(ms_since(begin) >= 200);
}

TEST_CASE("a delay may be a fraction of a millisecond") {
  Path path;
  const Pair pair = path.connect();
  path.proxy.set(Direction::both, delaying(0.3));
  double shortest_ms = 1e9;  // on a busy machine some are longer
  for (const auto until = raw_deadline(); shortest_ms >= 1.9 && Clock::now() < until;) {
    const auto begin = Clock::now();
    REQUIRE(send_all(pair.dialler, "there"));
    REQUIRE(receive_up_to(pair.acceptor, 5).bytes == "there");
    REQUIRE(send_all(pair.acceptor, "back"));
    REQUIRE(receive_up_to(pair.dialler, 4).bytes == "back");
    shortest_ms = std::min(shortest_ms, ms_since(begin));
    REQUIRE(shortest_ms >= 0.6);
  }
  CHECK(shortest_ms < 1.9);
}

TEST_CASE("less delay counts for what is queued too, and heal lets it leave at once") {
  Path path;
  Pair pair = path.connect();
  path.proxy.set(Direction::both, delaying(kFaultDelayMsMax));
  const auto begin = Clock::now();
  REQUIRE(send_all(pair.dialler, "slow"));
  while (path.proxy.stats().to_target.pieces == 0) std::this_thread::yield();
  path.proxy.set(Direction::to_target, delaying(100));
  CHECK(receive_up_to(pair.acceptor, 4).bytes == "slow");
  CHECK(ms_since(begin) >= 100);
  REQUIRE(send_all(pair.acceptor, "wols"));
  while (path.proxy.stats().to_dialler.pieces == 0) std::this_thread::yield();
  path.proxy.heal();
  CHECK(receive_up_to(pair.dialler, 4).bytes == "wols");
  CHECK(ms_since(begin) < kFaultDelayMsMax);
}

TEST_CASE("a limited rate is kept") {
  Path path;
  Pair pair = path.connect();
  Faults slow;
  slow.bytes_per_second_max = int64_t(kMega);
  path.proxy.set(Direction::to_target, slow);
  const std::string text = random_text(kMega / 2, 3);
  const auto begin = Clock::now();
  auto sending = send_in_background(pair.dialler, text);
  CHECK((receive_to_end(pair.acceptor).bytes == text));
  CHECK(ms_since(begin) >= 499);
  CHECK(sending.get());
}

TEST_CASE("what is cut hangs silently, in one direction or both, and after heal nothing is missing") {
  Path path;
  Pair pair = path.connect();
  for (const Direction direction : {Direction::to_target, Direction::both}) {
    const std::string text = random_text(40 * kMega, 8);
    auto sending = std::async(std::launch::async, [&] { return send_all(pair.dialler, text); });
    std::string got = receive_up_to(pair.acceptor, 5 * kMega).bytes;
    path.proxy.set(direction, cutting());
    const uint64_t passed = path.proxy.stats().to_target.bytes;
    const uint64_t before = direction == Direction::both ? text.size() : 0;  // of the round before
    got += receive_up_to(pair.acceptor, passed - before - got.size()).bytes;
    REQUIRE(send_all(pair.acceptor, "back"));
    if (direction == Direction::to_target) CHECK(receive_up_to(pair.dialler, 4).bytes == "back");
    CHECK_FALSE(wait_readable(pair.acceptor.get(), deadline_in_ms(200)));
    CHECK_FALSE(wait_readable(pair.dialler.get(), Clock::now()));
    CHECK(path.proxy.stats().to_target.bytes == passed);
    CHECK(path.proxy.stats().connections_open == 1);
    path.proxy.heal();
    if (direction == Direction::both) CHECK(receive_up_to(pair.dialler, 4).bytes == "back");
    got += receive_up_to(pair.acceptor, text.size() - got.size()).bytes;
    CHECK(sending.get());
    CHECK((got == text));
  }
}

TEST_CASE("while it is cut nobody gets through or hears that the other side left; afterwards they do") {
  Path path;
  Pair leaving = path.connect(), staying = path.connect();
  path.proxy.set(Direction::to_dialler, cutting());
  const Descriptor late = raw_connect(path.proxy.address());  // as far as the system knows
  REQUIRE(send_all(late, "here I am"));
  REQUIRE(send_all(leaving.acceptor, "farewell"));
  leaving.acceptor = {};
  CHECK(path.nobody_comes(200));
  CHECK_FALSE(wait_readable(leaving.dialler.get(), Clock::now()));
  CHECK_FALSE(wait_readable(late.get(), Clock::now()));
  path.proxy.heal();
  CHECK(receive_to_end(leaving.dialler).bytes == "farewell");
  const Descriptor accepted = raw_accept(path.listener);
  CHECK(receive_up_to(accepted, 9).bytes == "here I am");
  REQUIRE(send_all(staying.dialler, "still here"));
  CHECK(receive_up_to(staying.acceptor, 10).bytes == "still here");
}

TEST_CASE("a lost piece holds back what is behind it, and nothing is missing; the seed says which are lost") {
  uint64_t lost[3] = {};
  for (const uint64_t seed : {4u, 4u, 5u}) {
    FaultProxyOptions options;
    options.seed = seed;
    options.piece_bytes = 1024;
    Path path(options);
    Pair pair = path.connect();
    Faults lossy;
    lossy.loss = 0.2;
    path.proxy.set(Direction::to_target, lossy);
    const std::string text = random_text(40 * 1024, 6);
    const auto begin = Clock::now();
    auto sending = send_in_background(pair.dialler, text);
    CHECK((receive_to_end(pair.acceptor).bytes == text));
    CHECK(sending.get());
    const FlowStats stats = path.proxy.stats().to_target;
    CHECK(stats.pieces == 40);
    CHECK(stats.pieces_lost >= 1);
    CHECK(stats.pieces_lost < 20);
    CHECK(ms_since(begin) >= kRetransmissionMs);
    CHECK(path.proxy.stats().to_dialler.pieces_lost == 0);
    (lost[0] == 0 ? lost[0] : lost[1] == 0 ? lost[1] : lost[2]) = stats.pieces_lost;
  }
  CHECK(lost[0] == lost[1]);
}

TEST_CASE("corruption flips one bit a piece, as often as counted, where the seed says") {
  std::vector<std::string> received;
  const std::string text = random_text(600 * 1024, 9);
  for (const uint64_t seed : {1u, 1u, 2u}) {
    FaultProxyOptions options;
    options.seed = seed;
    options.piece_bytes = 1024;
    Path path(options);
    path.proxy.set(Direction::to_target, corrupting(0.3));
    Pair pair = path.connect();
    auto sending = send_in_background(pair.dialler, text);
    received.push_back(receive_to_end(pair.acceptor).bytes);
    CHECK(sending.get());
    const auto bits = flips(text, received.back());
    CHECK(std::count(bits.begin(), bits.end(), 1) == int(path.proxy.stats().to_target.pieces_corrupted));
    CHECK(std::count(bits.begin(), bits.end(), 0) + std::count(bits.begin(), bits.end(), 1) == 600);
    CHECK(std::count(bits.begin(), bits.end(), 1) > 120);
    CHECK(std::count(bits.begin(), bits.end(), 1) < 240);
    auto back = send_in_background(pair.acceptor, text);
    CHECK((receive_to_end(pair.dialler).bytes == text));
    CHECK(back.get());
  }
  CHECK((received[0] == received[1]));
  CHECK((received[0] != received[2]));
}

TEST_CASE("reset ends all connections at once, those that nobody has accepted too; later ones pass") {
  Path path;
  Pair one = path.connect(), two = path.connect();
  path.proxy.set(Direction::both, cutting());
  Descriptor waiting = raw_connect(path.proxy.address());
  path.proxy.reset();
  for (const Descriptor* end : {&one.dialler, &one.acceptor, &two.dialler, &two.acceptor, &waiting})
    CHECK(receive_to_end(*end).error == ECONNRESET);
  CHECK(path.proxy.stats().connections_open == 0);
  path.proxy.heal();
  Pair three = path.connect();
  REQUIRE(send_all(three.dialler, "again"));
  CHECK(receive_up_to(three.acceptor, 5).bytes == "again");
}

TEST_CASE("an end that breaks is passed on as a reset, behind what it said last") {
  Path path;
  Pair pair = path.connect();
  const std::string words = random_text(100'000, 2);
  REQUIRE(send_all(pair.acceptor, words));
  const linger at_once{1, 0};
  setsockopt(pair.acceptor.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  REQUIRE(receive_up_to(pair.dialler, 1000).bytes == words.substr(0, 1000));
  while (path.proxy.stats().to_dialler.bytes < words.size()) std::this_thread::yield();
  pair.acceptor = {};
  const Received last = receive_to_end(pair.dialler);
  CHECK((last.bytes == words.substr(1000)));
  CHECK(last.error == ECONNRESET);
}

TEST_CASE("a target may come later and move; one that is not there resets its dialler") {
  std::string first_address, second_address, gone;
  FaultProxy proxy(FaultProxyOptions{});
  const Descriptor early = raw_connect(proxy.address());
  REQUIRE(send_all(early, "early"));
  const Descriptor first = listen_on("127.0.0.1:0", first_address);
  const Descriptor second = listen_on("127.0.0.1:0", second_address);
  proxy.set_target(first_address);
  const Descriptor accepted = raw_accept(first);
  CHECK(receive_up_to(accepted, 5).bytes == "early");
  proxy.set_target(second_address);
  const Descriptor later = raw_connect(proxy.address());
  CHECK(raw_accept(second).valid());
  REQUIRE(send_all(early, "stays"));
  CHECK(receive_up_to(accepted, 5).bytes == "stays");
  const Descriptor reserved = reserve_address("127.0.0.1:0", gone);
  proxy.set_target(gone);
  std::string why = std::strerror(ECONNRESET);  // may come before the call that connects has returned
  const Descriptor refused = connect_to(proxy.address(), raw_deadline(), why);
  if (refused.valid()) CHECK(receive_to_end(refused).error == ECONNRESET);
  CHECK(why == std::strerror(ECONNRESET));
  CHECK(proxy.stats().connections_failed == 1);
  CHECK(proxy.stats().connections == 3);
}

TEST_CASE("memory and connections are bounded: a sender waits for a receiver that does not read") {
  FaultProxyOptions options;
  options.connections_max = 1;
  Path path(options);
  Pair pair = path.connect();
  const std::string block = random_text(kMega, 1);
  size_t taken = 0;
  while (wait_writable(pair.dialler.get(), deadline_in_ms(300)) && taken < 256 * kMega) {
    const ssize_t sent = send(pair.dialler.get(), block.data(), block.size(), MSG_NOSIGNAL);
    if (sent > 0) taken += size_t(sent);
  }
  CHECK(taken < 64 * kMega);  // what the system's own buffers take, twice
  const Descriptor second = raw_connect(path.proxy.address());
  CHECK(path.nobody_comes(100));
  pair.dialler = {};
  CHECK(receive_to_end(pair.acceptor).bytes.size() == taken);
  pair.acceptor = {};
  CHECK(raw_accept(path.listener).valid());
}

TEST_CASE("impossible options and faults are refused by name") {
  const auto refuses = [](const FaultProxyOptions& options, const char* text) {
    CHECK_THROWS_WITH_AS(FaultProxy{options}, doctest::Contains(text), Error);
  };
  FaultProxyOptions options;
  options.listen_address = "0.0.0.0:0";
  refuses(options, "not on loopback");
  options = {};
  options.piece_bytes = 63;
  refuses(options, "piece_bytes");
  options = {};
  options.connections_max = 0;
  refuses(options, "connections_max");
  options = {};
  options.target = "nowhere";
  refuses(options, "nowhere");
  FaultProxy proxy(FaultProxyOptions{});
  const auto refuses_to = [&](const Faults& faults, const char* text) {
    CHECK_THROWS_WITH_AS(proxy.set(Direction::both, faults), doctest::Contains(text), Error);
  };
  refuses_to(delaying(-1), "delay_ms");
  refuses_to(delaying(kFaultDelayMsMax + 1), "delay_ms");
  refuses_to(corrupting(1.1), "corruption");
  Faults faults;
  faults.loss = 1;
  refuses_to(faults, "loss");
  faults = {};
  faults.bytes_per_second_max = -1;
  refuses_to(faults, "bytes_per_second_max");
  CHECK_THROWS_AS(proxy.set_target("no port"), Error);
}

}  // namespace troupe::comm::test
