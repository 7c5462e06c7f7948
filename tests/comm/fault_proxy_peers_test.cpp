// Bulk connections and rings over paths that alter bytes: what comes damaged is asked for again until it is
// intact, the results are exact, and only a path on which nothing gets through any more is given up.
#include <algorithm>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include <doctest/doctest.h>

#include "comm/fault_proxy.hpp"
#include "kernels/base/random.hpp"
#include "tests/comm/ring_harness.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;
using kernels::BlockLayout;
using kernels::RoundedTotal;

namespace {

// A proxy before each rank's listener.
class Paths {
 public:
  explicit Paths(size_t piece_bytes = FaultProxyOptions().piece_bytes) : piece_bytes_(piece_bytes) {}
  RingTestOptions options(int silence_ms_max = RingTestOptions().silence_ms_max) {
    RingTestOptions options;
    options.silence_ms_max = silence_ms_max;
    options.way = [this](uint32_t rank, const std::string& address) {
      FaultProxyOptions proxy;
      proxy.target = address;
      proxy.seed = rank + 1;
      proxy.piece_bytes = piece_bytes_;
      return proxies_.emplace(rank, std::make_unique<FaultProxy>(proxy)).first->second->address();
    };
    return options;
  }
  // Whoever has dialled may do this: the last word of a handshake is the other end's.
  void corrupt(uint32_t rank, Direction direction, double probability) {
    Faults faults;
    faults.corruption = probability;
    to(rank).set(direction, faults);
  }
  FaultProxy& to(uint32_t rank) { return *proxies_.at(rank); }
  uint64_t corrupted() const {
    uint64_t pieces = 0;
    for (const auto& [rank, proxy] : proxies_) {
      const FaultStats stats = proxy->stats();
      pieces += stats.to_target.pieces_corrupted + stats.to_dialler.pieces_corrupted;
    }
    return pieces;
  }

 private:
  size_t piece_bytes_;
  std::map<uint32_t, std::unique_ptr<FaultProxy>> proxies_;
};

std::vector<std::byte> payload_of(uint32_t index) {
  constexpr size_t kSizes[] = {0, 1, 65, 4096, 100'000, 500'000, kFrameBytesMax};
  const Philox philox = philox_from(index);
  std::vector<std::byte> out(kSizes[index % std::size(kSizes)]);
  for (size_t i = 0; i < out.size(); ++i) out[i] = std::byte(philox(i)[0]);
  return out;
}

void send_frames(BulkConnection& connection, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) connection.send({5, 7, i, 2 * i, {1}}, payload_of(i), soon());
  connection.flush(soon());
}

// How many came as they were sent.
uint32_t receive_frames(BulkConnection& connection, uint32_t count) {
  uint32_t good = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Frame frame = connection.receive(soon());
    const auto wanted = payload_of(i);
    good += frame.head.bucket == i && frame.head.chunk == 2 * i &&
            std::equal(frame.payload.begin(), frame.payload.end(), wanted.begin(), wanted.end());
  }
  connection.acknowledge(soon());
  return good;
}

// Tends a connection whose user has nothing to do, until the other end needs it no more.
void tend_until(BulkConnection& connection, const std::future<void>& done) {
  while (done.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) connection.tend();
}

template <typename Action>
std::optional<PeerError> error_of(Action action) {
  try {
    action();
  } catch (const PeerError& error) {
    return error;
  }
  return std::nullopt;
}

// One step of every rank; `begin` is called once a rank is connected.
std::vector<std::exception_ptr> reduce_over(size_t ranks, const RingTestOptions& options,
                                            const BlockLayout& layout,
                                            const std::function<void(Ring&)>& begin,
                                            const std::function<void(Ring&, const RoundedTotal&)>& end) {
  return run_ranks(ranks, options, [&](Ring& ring) {
    begin(ring);
    const auto values = test_values(layout, ring.position());
    RoundedTotal total;
    for (int64_t step = 0; step < 2; ++step)
      ring.reduce(ExactReduction{step,
                                 &layout,
                                 values,
                                 &total,
                                 {24, 5},
                                 test_contributions(ranks),
                                 buckets_last_first(layout, 700'000)},
                  test_meta(ring.position()), soon());
    end(ring, total);
  });
}

}  // namespace

TEST_CASE("frames of up to 64 pieces pass both ways intact where one piece in twenty comes damaged") {
  constexpr uint32_t kFrames = 28;
  Paths paths;
  ConnectedPair pair = connect_pair(paths.options());
  paths.corrupt(1, Direction::both, 0.05);
  std::promise<void> others_done[2];
  const auto talk = [&](BulkConnection& connection, size_t own) {
    auto sending = std::async(std::launch::async, [&] { send_frames(connection, kFrames); });
    const uint32_t good = receive_frames(connection, kFrames);
    sending.get();
    others_done[1 - own].set_value();
    tend_until(connection, others_done[own].get_future());
    return good;
  };
  auto acceptor = std::async(std::launch::async, [&] { return talk(*pair.acceptor, 1); });
  CHECK(talk(*pair.dialler, 0) == kFrames);
  CHECK(acceptor.get() == kFrames);
  CHECK(paths.corrupted() > 0);
  CHECK(pair.dialler->resends_asked() > 0);
  CHECK(pair.acceptor->resends_asked() > 0);
  MESSAGE(paths.corrupted(), " pieces damaged; resends asked for: ", pair.dialler->resends_asked(), " and ",
          pair.acceptor->resends_asked());
}

TEST_CASE("a path that lets nothing through for a while, and then does, costs time and nothing else") {
  Paths paths(1024);
  ConnectedPair pair = connect_pair(paths.options());
  paths.corrupt(1, Direction::to_target, 1);
  auto receiving = std::async(std::launch::async, [&] { return receive_frames(*pair.acceptor, 7); });
  auto sending = std::async(std::launch::async, [&] { send_frames(*pair.dialler, 7); });
  const Deadline deadline = soon();
  while (pair.acceptor->resends_asked() < 100 && Clock::now() < deadline) std::this_thread::yield();
  CHECK(pair.acceptor->resends_asked() >= 100);
  paths.to(1).heal();
  CHECK(receiving.get() == 7);
  tend_until(*pair.acceptor, sending);
  sending.get();
}

TEST_CASE("a path on which only damage comes is given up after the patience, whatever passes the other way") {
  constexpr int kPatienceMs = 1000;
  Paths paths(1024);
  ConnectedPair pair = connect_pair(paths.options(kPatienceMs));
  const auto began = Clock::now();
  paths.corrupt(1, Direction::to_target, 1);
  auto dialler = std::async(std::launch::async, [&] {
    auto receiving = std::async(std::launch::async, [&] {
      return error_of([&] {
        for (;;) pair.dialler->receive(soon());
      });
    });
    const auto error = error_of([&] {
      for (uint32_t i = 0;; ++i) pair.dialler->send({5, 7, i, i, {}}, payload_of(3), soon());
    });
    receiving.get();
    return error;
  });
  auto answering = std::async(std::launch::async, [&] {
    return error_of([&] {
      for (uint32_t i = 0;; ++i) pair.acceptor->send({5, 7, i, i, {}}, payload_of(3), soon());
    });
  });
  const auto error = error_of([&] {
    for (;;) pair.acceptor->receive(soon());
  });
  const auto took = Clock::now() - began;
  REQUIRE(error);
  CAPTURE(error->what());
  CHECK(error->kind() == ErrorKind::corrupt);
  CHECK(error->peer_rank() == 0);
  CHECK(std::string(error->what()).find("the path to it alters data") != std::string::npos);
  CHECK(took >= std::chrono::milliseconds(kPatienceMs));
  CHECK(answering.get().has_value());
  pair.acceptor->abort(*error, soon());
  CHECK(dialler.get().has_value());
}

TEST_CASE("damaged acknowledgements stop nobody, however long it goes on") {
  constexpr int kPatienceMs = 1000;
  Paths paths(64);
  ConnectedPair pair = connect_pair(paths.options(kPatienceMs));
  paths.corrupt(1, Direction::to_dialler, 0.2);
  auto receiving = std::async(std::launch::async, [&] {
    return error_of([&] {
      for (;;) pair.acceptor->receive(soon());
    });
  });
  const Deadline long_enough = deadline_in_ms(5 * kPatienceMs / 2);
  const auto failure = error_of([&] {
    for (uint32_t i = 0; Clock::now() < long_enough || pair.dialler->resends_asked() < 30; ++i) {
      pair.dialler->send({5, 7, i, i, {}}, payload_of(2), soon());
      pair.dialler->flush(soon());
    }
  });
  CHECK_MESSAGE(!failure, (failure ? failure->what() : ""));
  CHECK(pair.dialler->resends_asked() >= 30);
  pair.dialler.reset();
  CHECK(receiving.get()->kind() == ErrorKind::peer_lost);
}

TEST_CASE("a ring whose paths damage one piece in twenty gives the plain sum on every rank") {
  constexpr size_t kRanks = 3;
  BlockLayout layout;
  layout.append(600'000, 600'000);
  layout.append(500 * 100, 500);
  const RoundedTotal wanted = plain_total(layout, kRanks, {24, 5});
  Paths paths;
  std::mutex mutex;  // doctest's checks from several threads
  uint64_t resends = 0;
  const auto thrown = reduce_over(
      kRanks, paths.options(), layout,
      [&](Ring& ring) { paths.corrupt(uint32_t((ring.position() + 1) % kRanks), Direction::both, 0.05); },
      [&](Ring& ring, const RoundedTotal& total) {
        const std::lock_guard lock(mutex);
        CHECK(total == wanted);
        resends += ring.stats().resends_asked;
      });
  for (const auto& error : thrown) CHECK(error == nullptr);
  CHECK(resends > 0);
  CHECK(paths.corrupted() > 0);
  MESSAGE(paths.corrupted(), " pieces damaged; resends asked for: ", resends);
}

TEST_CASE("a ring with one hopeless path ends everywhere, and with that path's name") {
  BlockLayout layout;
  layout.append(100'000, 100'000);
  Paths paths(1024);
  const auto thrown = reduce_over(
      3, paths.options(1500), layout,
      [&](Ring& ring) {
        if (ring.position() == 0) paths.corrupt(1, Direction::to_target, 1);
      },
      [](Ring&, const RoundedTotal&) { throw std::runtime_error("reduced what never came"); });
  for (const auto& each : thrown) {
    REQUIRE(each);
    const auto error = error_of([&] { std::rethrow_exception(each); });
    REQUIRE(error);
    CAPTURE(error->what());
    CHECK(error->kind() == ErrorKind::corrupt);
    CHECK(error->peer_rank() == 0);
    CHECK(std::string(error->what()).find("alters data") != std::string::npos);
  }
}
