// Frames that lie in memory which both ends see.
#include <cstring>
#include <fstream>
#include <future>
#include <string>

#include <doctest/doctest.h>

#include "comm/bulk.hpp"
#include "comm/frame.hpp"
#include "tests/comm/bulk_frames.hpp"
#include "tests/comm/flip_proxy.hpp"
#include "tests/comm/ring_harness.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;

namespace {

constexpr size_t kLarge = 100'000, kSmall = 100;

// What the two ends of this process share, as each end sees it.
std::vector<std::span<std::byte>> shared_memory() {
  std::vector<std::span<std::byte>> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:troupe-bulk") == line.npos) continue;
    const uintptr_t begin = std::stoull(line, nullptr, 16);
    const uintptr_t end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    found.emplace_back(reinterpret_cast<std::byte*>(begin), end - begin);
  }
  REQUIRE(!found.empty());
  return found;
}

size_t count_shared(std::vector<FrameBuffer>& buffers) {
  const auto memory = shared_memory();
  return size_t(std::count_if(buffers.begin(), buffers.end(), [&](FrameBuffer& buffer) {
    return std::any_of(memory.begin(), memory.end(), [&](std::span<std::byte> mapped) {
      const std::byte* at = buffer.payload().data();
      return at >= mapped.data() && at < mapped.data() + mapped.size();
    });
  }));
}

// The first place where these bytes lie.
std::byte* find(std::span<const std::byte> bytes) {
  const auto memory = shared_memory().front();
  const auto at = std::search(memory.begin(), memory.end(), bytes.begin(), bytes.end());
  REQUIRE(at != memory.end());
  return &*at;
}

// The number of its place behind the head of the only frame in the stream, which comes before all places.
std::byte* find_reference() {
  const uint32_t magic = kFrameMagic;
  return find(std::as_bytes(std::span(&magic, 1))) + sizeof(WireHead);
}

FrameBuffer filled(BulkConnection& connection, std::span<const std::byte> payload) {
  FrameBuffer buffer = connection.buffer();
  std::copy(payload.begin(), payload.end(), buffer.resize_payload(payload.size()).begin());
  return buffer;
}

}  // namespace

TEST_CASE("a large payload is read where it was written; a small one is copied") {
  auto pair = connect_pair({Transport::shm});
  for (const size_t bytes : {kSmall, kLarge}) {
    FrameBuffer buffer = filled(*pair.dialler, random_payload(bytes, 1));
    std::byte& written = buffer.payload()[0];
    pair.dialler->send(head_of(1), std::move(buffer), soon());
    const Frame frame = pair.acceptor->receive(soon());
    CHECK(same(frame, head_of(1), random_payload(bytes, 1)));
    written ^= std::byte{1};
    CHECK((frame.payload[0] != random_payload(bytes, 1)[0]) == (bytes == kLarge));
    pair.acceptor->acknowledge(soon());
    pair.dialler->flush(soon());
  }
}

TEST_CASE("a payload stays as it is until its receiver lets go of it, though the sender asks and goes on") {
  auto pair = connect_pair({Transport::shm});
  pair.dialler->send(head_of(0), filled(*pair.dialler, random_payload(kLarge, 0)), soon());
  const Frame held = pair.acceptor->receive(soon());
  auto flushed = std::async(std::launch::async, [&] { pair.dialler->flush(deadline_in_ms(200)); });
  while (flushed.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) pair.acceptor->tend();
  CHECK_THROWS_WITH_AS(flushed.get(), doctest::Contains("its acknowledgement"), PeerError);
  for (uint32_t i = 1; i < 10; ++i)
    pair.dialler->send(head_of(i), filled(*pair.dialler, random_payload(kLarge, i)), soon());
  CHECK(same(held, head_of(0), random_payload(kLarge, 0)));
  for (uint32_t i = 1; i < 10; ++i)
    CHECK(same(pair.acceptor->receive(soon()), head_of(i), random_payload(kLarge, i)));
  pair.acceptor->acknowledge(soon());
  CHECK_NOTHROW(pair.dialler->flush(soon()));
}

TEST_CASE("a receiver that lets go tells a sender who asked before") {
  RingTestOptions options{Transport::shm};
  options.silence_ms_max = 600'000;  // the sender asks once
  auto pair = connect_pair(options);
  pair.dialler->send(head_of(0), filled(*pair.dialler, random_payload(kLarge, 0)), soon());
  pair.acceptor->receive(soon());
  auto flushed = std::async(std::launch::async, [&] { pair.dialler->flush(soon()); });
  const auto until = deadline_in_ms(100);  // time to ask, and to be answered that this frame is in use
  while (Clock::now() < until) pair.acceptor->tend();
  auto next =
      std::async(std::launch::async, [&] { CHECK_THROWS_AS(pair.acceptor->receive(soon()), PeerError); });
  flushed.get();
  pair.dialler.reset();
  next.get();
}

TEST_CASE("more frames than there are places go as copies, and places come back") {
  auto pair = connect_pair({Transport::shm});
  constexpr uint32_t kFrames = 40;  // more than the places of a way
  constexpr size_t kBytes = 20'000;
  for (int round = 0; round < 3; ++round) {
    std::vector<FrameBuffer> buffers;
    for (uint32_t i = 0; i < kFrames; ++i)
      buffers.push_back(filled(*pair.dialler, random_payload(kBytes, i)));
    CHECK(count_shared(buffers) == 32);
    auto sent = std::async(std::launch::async, [&] {
      for (uint32_t i = 0; i < kFrames; ++i) pair.dialler->send(head_of(i), std::move(buffers[i]), soon());
      pair.dialler->flush(soon());
    });
    for (uint32_t i = 0; i < kFrames; ++i)
      CHECK(same(pair.acceptor->receive(soon()), head_of(i), random_payload(kBytes, i)));
    pair.acceptor->acknowledge(soon());
    sent.get();
  }
}

TEST_CASE("a frame that was damaged in its place is not taken, and one that stays so ends the connection") {
  RingTestOptions options{Transport::shm};
  for (const bool heals : {true, false}) {
    if (!heals) options.silence_ms_max = 2000;  // as long it is asked for again
    auto pair = connect_pair(options);
    const auto payload = random_payload(kLarge, 1);
    pair.dialler->send(head_of(1), filled(*pair.dialler, payload), soon());
    std::byte& damaged = find(payload)[kLarge / 2];
    damaged ^= std::byte{1};
    auto taken = std::async(std::launch::async,
                            [&] { return same(pair.acceptor->receive(soon()), head_of(1), payload); });
    if (heals) {
      while (pair.acceptor->resends_asked() == 0) pair.dialler->tend();
      damaged ^= std::byte{1};
    }
    while (taken.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) try {
        pair.dialler->tend();
      } catch (const PeerError&) {
        break;
      }
    if (heals)
      CHECK(taken.get());
    else
      CHECK_THROWS_WITH_AS(taken.get(), doctest::Contains("damaged"), PeerError);
  }
}

TEST_CASE("a reference to another place is asked for again, one to no place is refused") {
  for (const uint64_t place : {uint64_t{5}, uint64_t{32}, ~uint64_t{0}}) {
    CAPTURE(place);
    auto pair = connect_pair({Transport::shm});
    const auto payload = random_payload(kLarge, 1);
    pair.dialler->send(head_of(1), filled(*pair.dialler, payload), soon());
    std::memcpy(find_reference(), &place, sizeof place);
    auto taken = std::async(std::launch::async,
                            [&] { return same(pair.acceptor->receive(soon()), head_of(1), payload); });
    while (taken.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) pair.dialler->tend();
    if (place == 5)
      CHECK(taken.get());
    else
      CHECK_THROWS_WITH_AS(taken.get(), doctest::Contains("in shared memory"), PeerError);
  }
}

TEST_CASE("a frame that claims to lie in shared memory is refused where there is none") {
  constexpr uint64_t kFirstFrame = 288;  // after hello and proof
  BulkListener listener({});
  FlipProxy proxy(listener.address(), [&](uint64_t offset, std::span<std::byte> bytes) {
    if (offset != kFirstFrame) return;
    WireHead head;
    std::memcpy(&head, bytes.data(), sizeof head);
    head.flags |= kInPlace;
    seal(head, bytes.subspan(sizeof head, head.body_bytes()));
    std::memcpy(bytes.data(), &head, sizeof head);
  });
  const BulkPeer acceptor{1, member_name(1), proxy.address(), ""}, dialler{0, member_name(0), "", ""};
  auto sending = std::async(std::launch::async, [&] {
    auto connection = bulk_connect(test_session(0), acceptor, {}, soon());
    connection.send(head_of(1), random_payload(kSmall, 1), soon());
    CHECK_THROWS_AS(connection.flush(soon()), PeerError);
  });
  {
    auto connection = listener.accept(test_session(1), {&dialler, 1}, soon());
    CHECK_THROWS_WITH_AS(connection.receive(soon()), doctest::Contains("of 0 in shared memory"), PeerError);
  }
  sending.get();
}
