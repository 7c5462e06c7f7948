// Strangers who connect to the ports of two nodes and stay: silent, or silent after they have begun as a node
// would. Nodes must get past them, and they must be put out.
#include <array>
#include <functional>
#include <future>
#include <thread>

#include <poll.h>

#include "tests/comm/honest_traffic.hpp"
#include "tests/comm/link_support.hpp"
#include "tests/comm/raw_socket.hpp"
#include "tests/comm/siege.hpp"

namespace troupe::comm::test {

namespace {

constexpr size_t kIdle = kSanitized ? 200 : 1000;  // at each kind of port
// gRPC may need three times as long to put out who is idle.
constexpr int kPatienceMs = 6000;
constexpr double kRingSecondsMax = 20;     // a listener that waited for each stranger would take minutes
constexpr uint64_t kRingDescriptors = 30;  // those of honest rings come and go
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

// What a node would say first, and how much of it each stranger says.
struct FirstWords {
  std::string to_links;
  std::function<std::string()> to_bulk;

  static std::string part(const std::string& words, size_t index) {
    Dice dice(index);
    switch (index % 4) {
      case 0:
        return "";
      case 1:
        return words.substr(0, 1);
      case 2:
        return clipped(dice, words);
      default:
        return words;
    }
  }
};

struct Wave {
  double ring_seconds = 0;  // for five rings beside all idle connections
  double seconds = 0;       // until all were put out
};

// A thousand strangers at each kind of port at once. A node that links anew and rings get past them.
Wave outlast_once(const Siege& siege, const HonestLink& link, const HonestRing& ring,
                  const FirstWords& words) {
  const uint64_t descriptors = open_descriptors();
  Idlers at_links, at_bulk;
  for (size_t i = 0; i < kIdle; ++i) {
    at_links.add(link.address(i / 4 % 2), FirstWords::part(words.to_links, i));
    at_bulk.add(ring.address(i / 4 % 2), FirstWords::part(words.to_bulk(), i));
  }
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  Wave wave;
  CHECK(ring.wait_for_rounds(ring.rounds() + 5));
  wave.ring_seconds = seconds();
  {
    Node late(LinkInputs::kName, [&](LinkOptions& options) {
      if (!siege.certificates.empty()) options.security = files_of(siege.certificates, LinkInputs::kName);
    });
    late.hub.dial("node-1", link.address(1));
    CHECK(late.recorder.wait(up("node-1")));
  }
  const auto deadline = deadline_in_ms(60'000);
  CHECK(at_bulk.wait_for_the_end(deadline) == 0);
  CHECK(at_links.wait_for_the_end(deadline) == 0);
  wave.seconds = seconds();
  while (open_descriptors() > descriptors + kRingDescriptors && Clock::now() < deadline)
    std::this_thread::yield();
  CHECK(open_descriptors() <= descriptors + kRingDescriptors);
  return wave;
}

void outlast(bool encrypted) {
  const Siege siege(encrypted);
  HonestLink link(siege.certificates, kPatienceMs);
  HonestRing ring(siege.certificates);
  const BulkInputs bulk_inputs;
  FirstWords words{LinkInputs().greeting_without_hello(),
                   [&] { return bulk_inputs.hello(HonestRing::session(0, ring.rounds()).ballot.number); }};
  if (encrypted) words = {siege.at_links->hello, [&] { return siege.at_bulk->hello; }};
  outlast_once(siege, link, ring, words);  // buffers and tables reach their size
  const uint64_t resident = resident_bytes();
  const Wave wave = outlast_once(siege, link, ring, words);
  const int64_t growth = int64_t(resident_bytes()) - int64_t(resident);
  if (!kSanitized) CHECK(growth < int64_t(kGrowthMax));
  CHECK(wave.ring_seconds < kRingSecondsMax);
  MESSAGE("five rings in ", wave.ring_seconds, " s beside ", 2 * kIdle,
          " idle connections, all put out after ", wave.seconds, " s; grown by ", growth / 1024,
          " KiB; longest ring ", ring.longest_round_seconds(), " s");
  CHECK(link.finish() == 0);
  CHECK(ring.finish() == 0);
  CHECK(ring.what_went_wrong() == "");
}

}  // namespace

TEST_CASE("sixty strangers who stop in the middle of their handshakes keep no member waiting") {
  using namespace troupe::test;
  const BulkInputs bulk_inputs;
  for (const bool encrypted : {false, true}) {
    const Siege siege(encrypted);
    const RingTestOptions options{.certificates = siege.certificates};
    BulkListener listener({"127.0.0.1:0", test_context(options, member_name(1), End::listen)});
    const std::string hello =
        encrypted ? siege.at_bulk->hello.substr(0, 1) : bulk_inputs.hello(test_session(1).ballot.number);
    Idlers strangers;
    for (size_t i = 0; i < 60; ++i) strangers.add(listener.address(), hello);
    const BulkPeer acceptor{1, member_name(1), listener.address(), ""}, dialler{0, member_name(0), "", ""};
    const auto begin = Clock::now();
    auto dialled = std::async(std::launch::async, [&] {
      return bulk_connect(test_session(0), acceptor, test_context(options, member_name(0), End::dial),
                          soon());
    });
    CHECK(listener.accept(test_session(1), {&dialler, 1}, soon()).peer().rank == 0);
    dialled.get();
    CHECK(std::chrono::duration<double>(Clock::now() - begin).count() < kRingSecondsMax);
  }
}

TEST_CASE("a thousand idle connections at each port in plain text keep nobody waiting and are put out") {
  outlast(false);
}

TEST_CASE("a thousand idle connections at each port with certificates keep nobody waiting and are put out") {
  outlast(true);
}

}  // namespace troupe::comm::test
