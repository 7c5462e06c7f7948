// Strangers who connect to the ports of two nodes and stay: silent, or silent after they have begun as a node
// would. Nodes must get past them, and they must be put out.
#include <array>
#include <thread>

#include <poll.h>

#include "tests/comm/honest_traffic.hpp"
#include "tests/comm/link_support.hpp"
#include "tests/comm/raw_socket.hpp"
#include "tests/comm/siege.hpp"

namespace troupe::comm::test {

namespace {

constexpr size_t kIdle = 1000;  // at each kind of port
constexpr int kPatienceMs = 3000;
constexpr int64_t kHandshakeSeconds = 3;  // what one stranger may take from a listener of bulk connections
constexpr uint64_t kGrowthMax = uint64_t{16} << 20;

// HTTP/2: a question whether we live, and the answer.
constexpr std::string_view kPing("\0\0\x08\x06\0\0\0\0\0", 9), kPong("\0\0\x08\x06\x01\0\0\0\0", 9);

class Idlers {
 public:
  void add(const std::string& address, std::string_view first_words) {
    sockets_.push_back(raw_connect(address));
    send_all(sockets_.back(), first_words);
  }
  size_t size() const { return sockets_.size(); }

  // Until all have been put out. Answers pings meanwhile. Returns how many are left at the deadline.
  size_t wait_for_the_end(Deadline deadline) {
    while (!sockets_.empty() && Clock::now() < deadline) {
      std::vector<pollfd> entries;
      for (const Descriptor& socket : sockets_) entries.push_back({socket.get(), POLLIN, 0});
      poll(entries.data(), entries.size(), milliseconds_until(deadline));
      std::vector<Descriptor> left;
      for (size_t i = 0; i < sockets_.size(); ++i)
        if (entries[i].revents == 0 || lives(sockets_[i])) left.push_back(std::move(sockets_[i]));
      sockets_.swap(left);
    }
    return sockets_.size();
  }

 private:
  static bool lives(const Descriptor& socket) {
    std::array<char, 4096> buffer;
    const ssize_t count = recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count < 0) return errno == EAGAIN;
    const std::string_view heard(buffer.data(), size_t(count));
    const size_t ping = heard.find(kPing);
    if (ping == heard.npos || heard.size() < ping + kPing.size() + 8) return count > 0;
    return send_all(socket, std::string(kPong) + std::string(heard.substr(ping + kPing.size(), 8)));
  }

  std::vector<Descriptor> sockets_;
};

void outlast(bool encrypted) {
  const Siege siege(encrypted);
  const LinkInputs link_inputs;
  const BulkInputs bulk_inputs;
  HonestLink link(siege.certificates, kPatienceMs);
  HonestRing ring(siege.certificates);
  REQUIRE(ring.wait_for_rounds(10));
  const uint64_t resident = resident_bytes(), descriptors = open_descriptors();

  Idlers at_links, at_bulk;
  for (size_t i = 0; i < kIdle; ++i) {
    Dice dice(i);
    const auto hello = bulk_inputs.hello(HonestRing::session(0, ring.rounds() + 1).ballot.number);
    const std::string link_words = encrypted ? siege.at_links->hello : link_inputs.greeting_without_hello();
    const std::string bulk_words = encrypted ? siege.at_bulk->hello : hello;
    const auto part = [&](const std::string& words) -> std::string {
      return i % 4 == 0 ? "" : i % 4 == 1 ? words.substr(0, 1) : i % 4 == 2 ? clipped(dice, words) : words;
    };
    at_links.add(link.address(i / 4 % 2), part(link_words));
    at_bulk.add(ring.address(i / 4 % 2), part(bulk_words));
  }
  const auto begin = Clock::now();
  const uint64_t rounds = ring.rounds();
  CHECK(ring.wait_for_rounds(rounds + 5));
  const double ring_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  CHECK(ring_seconds < 4 * kHandshakeSeconds);
  {
    Node late(LinkInputs::kName, [&](LinkOptions& options) {
      if (encrypted) options.security = files_of(siege.certificates, LinkInputs::kName);
    });
    late.hub.dial("node-1", link.address(1));
    CHECK(late.recorder.wait(up("node-1")));
  }
  const auto deadline = deadline_in_ms(60'000);
  CHECK(at_links.wait_for_the_end(deadline) == 0);
  CHECK(at_bulk.wait_for_the_end(deadline) == 0);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  while (open_descriptors() > descriptors + 20 && Clock::now() < deadline) std::this_thread::yield();
  CHECK(open_descriptors() <= descriptors + 20);  // those of the rings come and go
  const int64_t growth = int64_t(resident_bytes()) - int64_t(resident);
  CHECK(growth < int64_t(kGrowthMax));
  MESSAGE("five rings in ", ring_seconds, " s beside ", 2 * kIdle, " idle connections, all put out after ",
          seconds, " s; grown by ", growth / 1024, " KiB; longest ring ", ring.longest_round_seconds(), " s");
  CHECK(link.finish() == 0);
  CHECK(ring.finish() == 0);
  CHECK(ring.what_went_wrong() == "");
}

}  // namespace

TEST_CASE("a thousand idle connections at each port in plain text keep nobody waiting and are put out") {
  outlast(false);
}

TEST_CASE("a thousand idle connections at each port with certificates keep nobody waiting and are put out") {
  outlast(true);
}

}  // namespace troupe::comm::test
