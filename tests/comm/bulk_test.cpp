#include "comm/bulk.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <ctime>
#include <future>
#include <thread>

#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "comm/shared_memory.hpp"
#include "comm/socket.hpp"
#include "tests/comm/bulk_frames.hpp"
#include "tests/comm/flip_proxy.hpp"
#include "tests/comm/ring_harness.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;

namespace {

constexpr size_t kSizes[] = {0, 1, 63, 64, 65, 4096, 100'000, kFrameBytesMax};

void exchange_both_ways(ConnectedPair& pair, int rounds) {
  const auto talk = [&](BulkConnection& connection) {
    auto sender = std::async(std::launch::async, [&] {
      for (int round = 0; round < rounds; ++round)
        for (size_t i = 0; i < std::size(kSizes); ++i)
          connection.send(head_of(uint32_t(i)), random_payload(kSizes[i], i), soon());
      connection.flush(soon());
    });
    int good = 0;
    for (int round = 0; round < rounds; ++round)
      for (size_t i = 0; i < std::size(kSizes); ++i)
        good += same(connection.receive(soon()), head_of(uint32_t(i)), random_payload(kSizes[i], i));
    connection.acknowledge(soon());
    sender.get();
    return good;
  };
  auto other = std::async(std::launch::async, [&] { return talk(*pair.acceptor); });
  CHECK(talk(*pair.dialler) == rounds * int(std::size(kSizes)));
  CHECK(other.get() == rounds * int(std::size(kSizes)));
}

// Dials `session` against a listener that expects `expected`, and gives the error of the dial.
template <typename Change>
PeerError refused_dial(Change change, Deadline deadline = soon(), const RingTestOptions& options = {}) {
  BulkListener listener({});
  const BulkPeer acceptor{1, member_name(1), listener.address(), host_id()};
  const BulkPeer dialler{0, member_name(0), "", host_id()};
  auto accepting = std::async(std::launch::async, [&] {
    CHECK_THROWS_AS(listener.accept(test_session(1, options), {&dialler, 1}, soon()), Error);
  });
  BulkSession session = test_session(0, options);
  change(session);
  std::optional<PeerError> thrown;
  try {
    bulk_connect(session, acceptor, {}, deadline);
  } catch (const PeerError& error) {
    thrown = error;
  }
  listener.cancel();
  accepting.get();
  REQUIRE(thrown.has_value());
  return *thrown;
}

// This process opens no more files, or `spare` more, while this lives.
class NoMoreFiles {
 public:
  explicit NoMoreFiles(rlim_t spare = 0) {
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before_) == 0);
    const Descriptor lowest_free(eventfd(0, EFD_CLOEXEC));
    REQUIRE(lowest_free.valid());
    const rlimit limit{rlim_t(lowest_free.get()) + spare, before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  }
  ~NoMoreFiles() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

double processor_seconds_of_thread() {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return double(used.tv_sec) + 1e-9 * double(used.tv_nsec);
}

// No file of this process, nor shared memory, grows beyond so many bytes while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before_) == 0);
    const rlimit limit{bytes, before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  sighandler_t handler_;
  rlimit before_{};
};

}  // namespace

TEST_CASE("frames of all sizes pass in both directions at once, over tcp and shared memory") {
  for (const Transport transport : {Transport::tcp, Transport::shm, Transport::automatic}) {
    auto pair = connect_pair({transport});
    CHECK(pair.dialler->transport() == (transport == Transport::tcp ? Transport::tcp : Transport::shm));
    CHECK(pair.dialler->transport() == pair.acceptor->transport());
    CHECK(pair.dialler->peer().rank == 1);
    CHECK(pair.acceptor->peer().rank == 0);
    exchange_both_ways(pair, 5);
  }
}

TEST_CASE(
    "frames are taken without waiting until the way is full, and the rest goes out when the peer reads") {
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({transport});
    const auto payload = random_payload(kFrameBytesMax, 1);
    uint32_t taken = 0;
    auto sent = BulkConnection::Sent::wholly;
    for (; sent == BulkConnection::Sent::wholly; ++taken) {
      FrameBuffer buffer = pair.dialler->buffer();
      std::copy(payload.begin(), payload.end(), buffer.resize_payload(payload.size()).begin());
      sent = pair.dialler->try_send(head_of(taken), buffer);
      if (sent == BulkConnection::Sent::nothing) break;
    }
    REQUIRE(taken > 0);
    FrameBuffer more = pair.dialler->buffer();
    more.resize_payload(payload.size());
    CHECK(pair.dialler->try_send(head_of(taken), more) == BulkConnection::Sent::nothing);
    auto drained = std::async(std::launch::async, [&] { pair.dialler->drain(soon()); });
    for (uint32_t i = 0; i < taken; ++i) CHECK(same(pair.acceptor->receive(soon()), head_of(i), payload));
    drained.get();
    pair.acceptor->acknowledge(soon());
    pair.dialler->flush(soon());
  }
}

TEST_CASE("a dialler in an older ballot, another job, without the key or unknown is refused and told why") {
  CHECK(refused_dial([](BulkSession& s) { s.ballot = {2, 9}; }).kind() == ErrorKind::protocol);
  CHECK(refused_dial([](BulkSession& s) { s.job.fill(1); }).kind() == ErrorKind::protocol);
  CHECK(refused_dial([](BulkSession& s) { s.key = std::string(32, 'x'); }).kind() == ErrorKind::security);
  CHECK(refused_dial([](BulkSession& s) { s.rank = 5; }).kind() == ErrorKind::security);
  // Only a later ballot may try again until its deadline.
  CHECK(refused_dial(
            [](BulkSession& s) {
              s.ballot = {4, 0};
            },
            deadline_in_ms(500))
            .kind() == ErrorKind::timeout);
}

TEST_CASE("a dialler in a later ballot gets through once the listener has arrived there") {
  BulkListener listener({});
  const BulkPeer acceptor{1, member_name(1), listener.address(), host_id()};
  const BulkPeer dialler{0, member_name(0), "", host_id()};
  BulkSession later = test_session(0), mine = test_session(1);
  later.ballot = {4, 1};
  auto dialled = std::async(std::launch::async, [&] { return bulk_connect(later, acceptor, {}, soon()); });
  auto early = std::async(std::launch::async, [&] {
    CHECK_THROWS_AS(listener.accept(mine, {&dialler, 1}, soon()), Error);
  });
  while (listener.refused() == 0) std::this_thread::yield();
  listener.cancel();
  early.get();
  mine.ballot = {4, 1};
  const auto connection = listener.accept(mine, {&dialler, 1}, soon());
  CHECK(dialled.get().peer().rank == 1);
}

TEST_CASE("a host without an address is dialled until the deadline; what is no address is an error at once") {
  const auto dial_error = [](const std::string& address) {
    try {
      bulk_connect(test_session(0), {1, member_name(1), address, ""}, {}, deadline_in_ms(100));
    } catch (const PeerError& error) {
      CHECK(error.peer_rank() == 1);
      return error;
    }
    throw std::runtime_error("connected to nobody");
  };
  // A label of more than 63 letters is no name to ask a server for.
  const PeerError unresolved = dial_error(std::string(64, 'n') + ".invalid:9100");
  CHECK(unresolved.kind() == ErrorKind::timeout);
  CHECK(std::string(unresolved.what()).find("cannot resolve") != std::string::npos);
  CHECK(dial_error("no address").kind() == ErrorKind::usage);
}

TEST_CASE("demanded shared memory that cannot be had is an error; automatic falls back to tcp") {
  const auto error = refused_dial([](BulkSession& s) {
    s.transport = Transport::shm;
    s.host_id = "elsewhere";
  });
  CHECK(error.kind() == ErrorKind::usage);
  BulkListener listener({});
  const BulkPeer acceptor{1, member_name(1), listener.address(), ""};
  const BulkPeer dialler{0, member_name(0), "", ""};
  BulkSession away = test_session(0, {Transport::automatic});
  away.host_id = "elsewhere";
  auto dialled = std::async(std::launch::async, [&] { return bulk_connect(away, acceptor, {}, soon()); });
  CHECK(listener.accept(test_session(1, {Transport::automatic}), {&dialler, 1}, soon()).transport() ==
        Transport::tcp);
  CHECK(dialled.get().transport() == Transport::tcp);
}

TEST_CASE("shared memory that the system does not give is an error where demanded, and else does without") {
  const FileSizeLimit limit(rlim_t{16} << 20);
  CHECK(why_no_shared_memory().find("File too large") != std::string::npos);
  const auto unchanged = [](BulkSession&) {};
  CHECK(refused_dial(unchanged, soon(), {Transport::shm}).kind() == ErrorKind::usage);
  CHECK(connect_pair({Transport::automatic}).acceptor->transport() == Transport::tcp);
}

TEST_CASE("a listener without a free descriptor waits for one, at rest, and says so") {
  BulkListener listener({});
  const BulkPeer acceptor{1, member_name(1), listener.address(), ""}, dialler{0, member_name(0), "", ""};
  std::string why;
  const Descriptor waits = connect_to(listener.address(), soon(), why);
  REQUIRE(waits.valid());
  {
    const NoMoreFiles limit;
    const double before = processor_seconds_of_thread();
    CHECK_THROWS_WITH_AS(listener.accept(test_session(1), {&dialler, 1}, deadline_in_ms(500)),
                         doctest::Contains("Too many open files"), Error);
    CHECK(processor_seconds_of_thread() - before < 0.1);
  }
  auto dialled =
      std::async(std::launch::async, [&] { return bulk_connect(test_session(0), acceptor, {}, soon()); });
  CHECK(listener.accept(test_session(1), {&dialler, 1}, soon()).peer().rank == 0);
  dialled.get();
}

TEST_CASE(
    "a listener that has a descriptor for a connection, but not for its channel, waits for one as well") {
  BulkListener listener({});
  const BulkPeer acceptor{1, member_name(1), listener.address(), ""}, dialler{0, member_name(0), "", ""};
  std::string why;
  const Descriptor waits = connect_to(listener.address(), soon(), why);
  REQUIRE(waits.valid());
  {
    const NoMoreFiles limit(1);
    CHECK_THROWS_WITH_AS(listener.accept(test_session(1), {&dialler, 1}, deadline_in_ms(200)),
                         doctest::Contains("in time; the last one turned away: cannot make an event"), Error);
  }
  CHECK(listener.refused() == 1);
  auto dialled =
      std::async(std::launch::async, [&] { return bulk_connect(test_session(0), acceptor, {}, soon()); });
  CHECK(listener.accept(test_session(1), {&dialler, 1}, soon()).peer().rank == 0);
  dialled.get();
}

TEST_CASE("random bytes and silent connections at the listener do not keep a member from connecting") {
  BulkListener listener({});
  const BulkPeer acceptor{1, member_name(1), listener.address(), host_id()};
  const BulkPeer dialler{0, member_name(0), "", host_id()};
  std::vector<Descriptor> strangers;
  std::string why;
  for (size_t i = 0; i < 100; ++i) {
    strangers.push_back(connect_to(listener.address(), soon(), why));
    const auto noise = random_payload(i * 13, i);
    if (!noise.empty()) ::send(strangers.back().get(), noise.data(), noise.size(), MSG_NOSIGNAL);
  }
  auto dialled =
      std::async(std::launch::async, [&] { return bulk_connect(test_session(0), acceptor, {}, soon()); });
  CHECK(listener.accept(test_session(1), {&dialler, 1}, soon()).peer().rank == 0);
  CHECK(listener.refused() > 0);
  dialled.get();
}

TEST_CASE("a bit that flips in the handshake costs a dial more, wherever it lies") {
  // From the dialler: hello of 256 bytes, proof of 32. To it: challenge of 40, proof of 32.
  for (const bool answers : {false, true})
    for (uint64_t at = 0; at < (answers ? 72u : 288u); at += 3) {
      CAPTURE(answers);
      CAPTURE(at);
      BulkListener listener({});
      std::atomic<int> flipped = 0;
      const auto flip_once = [&](uint64_t offset, std::span<std::byte> bytes) {
        if (flipped > 0 || at < offset || at >= offset + bytes.size()) return;
        bytes[at - offset] ^= std::byte{16};
        ++flipped;
      };
      FlipProxy proxy(listener.address(), answers ? FlipProxy::Alter() : flip_once,
                      answers ? flip_once : FlipProxy::Alter());
      const BulkPeer acceptor{1, member_name(1), proxy.address(), ""}, dialler{0, member_name(0), "", ""};
      auto dialled =
          std::async(std::launch::async, [&] { return bulk_connect(test_session(0), acceptor, {}, soon()); });
      const auto connection = listener.accept(test_session(1), {&dialler, 1}, soon());
      CHECK(connection.peer().rank == 0);
      CHECK_NOTHROW(dialled.get());
      CHECK(flipped == 1);
    }
}

TEST_CASE("random bytes after the handshake end the connection with an error and nothing worse") {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    BulkListener listener({});
    FlipProxy proxy(listener.address(), [&](uint64_t offset, std::span<std::byte> bytes) {
      const auto noise = random_payload(bytes.size(), mix64(seed, offset));
      for (size_t i = 0; i < bytes.size(); ++i)
        if (offset + i >= 288) bytes[i] = noise[i];  // behind hello and proof
    });
    const BulkPeer acceptor{1, member_name(1), proxy.address(), ""}, dialler{0, member_name(0), "", ""};
    auto sending = std::async(std::launch::async, [&] {
      BulkSession session = test_session(0);
      session.silence_ms_max = 300;
      auto connection = bulk_connect(session, acceptor, {}, soon());
      CHECK_THROWS_AS(([&] {
                        connection.send(head_of(1), random_payload(50'000, 2), soon());
                        connection.flush(soon());
                        connection.receive(soon());
                      }()),
                      PeerError);
    });
    BulkSession session = test_session(1);
    session.silence_ms_max = 300;
    {
      auto connection = listener.accept(session, {&dialler, 1}, soon());
      CHECK_THROWS_AS(connection.receive(deadline_in_ms(400)), PeerError);
    }
    sending.get();
  }
}

TEST_CASE("a frame that arrives damaged is asked for again, wherever the byte lies") {
  // Hello and proof take 288 bytes; then frames of 64 + 24 + 1,000 bytes.
  for (const uint64_t at : {288u + 3u, 288u + 20u, 288u + 60u, 288u + 70u, 288u + 500u, 288u + 1088u + 17u,
                            288u + 9u * 1088u + 5u}) {
    CAPTURE(at);
    BulkListener listener({});
    std::atomic<int> flipped = 0;
    FlipProxy proxy(listener.address(), [&](uint64_t offset, std::span<std::byte> bytes) {
      if (at < offset || at >= offset + bytes.size()) return;
      bytes[at - offset] ^= std::byte{16};
      ++flipped;
    });
    const BulkPeer acceptor{1, member_name(1), proxy.address(), ""}, dialler{0, member_name(0), "", ""};
    auto sending = std::async(std::launch::async, [&] {
      auto connection = bulk_connect(test_session(0), acceptor, {}, soon());
      for (uint32_t i = 0; i < 10; ++i) connection.send(head_of(i), random_payload(1000, i), soon());
      connection.flush(soon());
    });
    auto connection = listener.accept(test_session(1), {&dialler, 1}, soon());
    for (uint32_t i = 0; i < 10; ++i)
      CHECK(same(connection.receive(soon()), head_of(i), random_payload(1000, i)));
    connection.acknowledge(soon());
    auto tending = std::async(std::launch::async, [&] {
      CHECK_THROWS_AS(connection.receive(soon()),
                      PeerError);  // answers until the other side is content and leaves
    });
    sending.get();
    tending.get();
    CHECK(flipped == 1);
  }
}

TEST_CASE("a path that damages every frame is given up when the patience is over") {
  RingTestOptions options;
  options.silence_ms_max = 500;
  BulkListener listener({});
  FlipProxy proxy(listener.address(), [](uint64_t offset, std::span<std::byte> bytes) {
    for (size_t i = 0; i < bytes.size(); ++i)
      if (offset + i >= 288 && (offset + i) % 500 == 499) bytes[i] ^= std::byte{1};
  });
  const BulkPeer acceptor{1, member_name(1), proxy.address(), ""}, dialler{0, member_name(0), "", ""};
  auto sending = std::async(std::launch::async, [&] {
    auto connection = bulk_connect(test_session(0, options), acceptor, {}, soon());
    CHECK_THROWS_AS(([&] {
                      connection.send(head_of(1), random_payload(5000, 1), soon());
                      connection.flush(soon());
                    }()),
                    PeerError);
  });
  {
    auto connection = listener.accept(test_session(1, options), {&dialler, 1}, soon());
    CHECK_THROWS_WITH_AS(connection.receive(soon()), doctest::Contains("damaged"), PeerError);
  }
  sending.get();
}

TEST_CASE("cancel ends a wait at once") {
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({transport});
    auto waiting = std::async(std::launch::async, [&] {
      CHECK_THROWS_WITH_AS(pair.acceptor->receive(soon()), doctest::Contains("a new view"), PeerError);
    });
    pair.acceptor->cancel("a new view");
    waiting.get();
    CHECK_THROWS_AS(pair.acceptor->send(head_of(1), random_payload(10, 1), soon()), PeerError);
  }
}

TEST_CASE("a peer that is silent is noticed after silence_ms_max; one that tends its connection is not") {
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({transport, {}, 1500});
    try {
      pair.acceptor->receive(soon());
      FAIL_CHECK("received what nobody sent");
    } catch (const PeerError& error) {
      CHECK(error.kind() == ErrorKind::timeout);
      CHECK(error.peer_rank() == 0);
      CHECK(std::string(error.what()).find("no sign of life") != std::string::npos);
    }
    std::atomic<bool> done = false;
    auto tending = std::async(std::launch::async, [&] {
      while (!done) pair.dialler->tend();
    });
    CHECK_THROWS_WITH_AS(pair.acceptor->receive(deadline_in_ms(2500)), doctest::Contains("in vain"),
                         PeerError);
    done = true;
    tending.get();
  }
}

TEST_CASE("a peer that goes away is lost at once, and one that aborts says whose fault it is") {
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({transport});
    auto waiting = std::async(std::launch::async, [&] {
      try {
        pair.acceptor->receive(soon());
      } catch (const PeerError& error) {
        return error;
      }
      throw std::runtime_error("received what nobody sent");
    });
    pair.dialler.reset();
    const PeerError lost = waiting.get();
    CHECK(lost.kind() == ErrorKind::peer_lost);
    CHECK(lost.peer_rank() == 0);

    pair = connect_pair({transport});
    pair.dialler->abort(PeerError(ErrorKind::timeout, 17, "rank 17 is silent"), soon());
    try {
      pair.acceptor->receive(soon());
      FAIL_CHECK("received what nobody sent");
    } catch (const PeerError& error) {
      CHECK(error.kind() == ErrorKind::timeout);
      CHECK(error.peer_rank() == 17);
      CHECK(std::string(error.what()).find("rank 17 is silent") != std::string::npos);
    }
  }
}

TEST_CASE("a peer that had its acknowledgement while we read, and left, does not miss another") {
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({transport});
    const auto payload = random_payload(1000, 1);
    auto flushed = std::async(std::launch::async, [&] {
      pair.dialler->send(head_of(0), payload, soon());
      pair.dialler->flush(soon());
    });
    CHECK(same(pair.acceptor->receive(soon()), head_of(0), payload));
    while (flushed.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) pair.acceptor->tend();
    flushed.get();
    pair.dialler->abort(PeerError(ErrorKind::cancelled, 0, "all is done"), soon());
    pair.dialler.reset();
    CHECK_NOTHROW(pair.acceptor->acknowledge(soon()));
    CHECK_THROWS_AS(pair.acceptor->receive(soon()), PeerError);
  }
}

TEST_CASE("a sender waits when the receiver does not take, so memory stays within the window") {
  for (const Transport transport : {Transport::tcp, Transport::shm}) {
    auto pair = connect_pair({transport, {}, 60'000});
    uint32_t sent = 0;
    const auto payload = random_payload(100'000, 1);
    try {
      for (; sent < 1000; ++sent) pair.dialler->send(head_of(sent), payload, deadline_in_ms(2000));
    } catch (const PeerError& error) {
      CHECK(error.kind() == ErrorKind::timeout);
    }
    CHECK(sent >= 2);
    CHECK(sent * payload.size() <= test_session(0).window_bytes);
  }
}
