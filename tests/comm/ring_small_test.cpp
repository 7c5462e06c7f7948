// Small reductions: parts that go round whole, also when they come damaged or are of no use.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <memory>

#include <doctest/doctest.h>

#include "comm/frame.hpp"
#include "comm/ring.hpp"
#include "comm/sum_meta.hpp"
#include "tests/comm/flip_proxy.hpp"
#include "tests/comm/ring_harness.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;

namespace {

constexpr size_t kFloats = 1000;
constexpr size_t kMembers = 3;
// Of what a member sends, in bytes: the handshake, then a part of three words of slots after another.
constexpr uint64_t kHandshake = 288;
constexpr uint64_t kPart =
    sizeof(WireHead) + 3 * sizeof(uint64_t) + sizeof(MetaWords) + kFloats * sizeof(float);
constexpr uint64_t kInFirstPart = kHandshake + 600, kInSecondPart = kHandshake + kPart + 600;

std::vector<float> own_values(size_t position) {
  return std::vector<float>(kFloats, float(position + 1));
}

void reduce(Ring& ring) {
  const size_t ranks = ring.size();
  std::vector<float> values = own_values(ring.position());
  ring.reduce(FloatReduction{1, values, test_contributions(ranks), {{0, int64_t(kFloats)}}}, {}, soon());
  if (values != std::vector<float>(kFloats, float(ranks * (ranks + 1)) / 2))
    throw std::runtime_error("not the sum");
}

// --- members that are played ---

std::vector<std::byte> part_of(size_t position) {
  std::vector<std::byte> bytes(sizeof(MetaWords) + kFloats * sizeof(float));
  const std::vector<float> values = own_values(position);
  std::memcpy(bytes.data() + sizeof(MetaWords), values.data(), kFloats * sizeof(float));
  return bytes;
}

FrameHead head_of_part(size_t position) {
  constexpr uint8_t kWhole = 6;  // RingEngine::FrameType
  return {kWhole, 1, 0, uint32_t(position), test_contributions(kMembers)[position]};
}

void send_part(BulkConnection& link, size_t position) {
  link.send(head_of_part(position), part_of(position), soon());
}

void expect_part(BulkConnection& link, size_t position) {
  const Frame frame = link.receive(soon());
  if (frame.head.chunk != position || !std::ranges::equal(frame.payload, part_of(position)))
    throw std::runtime_error("not the part of " + member_name(uint32_t(position)));
}

void wait_for(const std::shared_future<void>& event) {
  event.wait_until(soon());
}

}  // namespace

TEST_CASE("small and large reductions by turns give the plain sums, over tcp and shared memory") {
  for (const Transport transport : {Transport::tcp, Transport::shm})
    for (const size_t ranks : {2u, 3u, 5u})
      run_ranks_well(ranks, {transport}, [&](Ring& ring) {
        for (int64_t step = 0; step < 60; ++step) {
          const int64_t length = step % 3 == 2 ? 50'000 : 1 + step * 100;
          std::vector<float> values(size_t(length), float(ring.position() + 1));
          SumMeta own;
          own.samples = step;
          const SumMeta sum = ring.reduce(
              FloatReduction{step, values, test_contributions(ranks), {{0, length}}}, own, soon());
          const float wanted = float(ranks * (ranks + 1)) / 2;
          if (sum.samples != step * int64_t(ranks) ||
              std::any_of(values.begin(), values.end(), [&](float value) { return value != wanted; }))
            throw std::runtime_error("not the sum");
        }
      });
}

namespace {

// The bytes on the way to position `damaged`, of which one, `at`, is damaged once.
class DamagedWay {
 public:
  DamagedWay(uint32_t damaged, uint64_t at, FlipProxy::Alter look = {})
      : damaged_(damaged), at_(at), look_(std::move(look)) {}

  RingTestOptions options() {
    RingTestOptions options{Transport::tcp};
    options.way = [this](uint32_t rank, const std::string& address) {
      if (rank != damaged_) return address;
      proxy_ = std::make_unique<FlipProxy>(address, [this](uint64_t offset, std::span<std::byte> bytes) {
        if (look_) look_(offset, bytes);
        if (times_ > 0 || at_ < offset || at_ >= offset + bytes.size()) return;
        bytes[at_ - offset] ^= std::byte{1};
        ++times_;
      });
      return proxy_->address();
    };
    return options;
  }
  int times() const { return times_; }

 private:
  const uint32_t damaged_;
  const uint64_t at_;
  const FlipProxy::Alter look_;
  std::atomic<int> times_ = 0;
  std::unique_ptr<FlipProxy> proxy_;
};

}  // namespace

TEST_CASE("a part of a small sum that was damaged on the way arrives, though its sender closes at once") {
  const auto check = [](size_t ranks, uint32_t damaged, uint64_t at) {
    DamagedWay way(damaged, at);
    run_ranks_well(ranks, way.options(), reduce);
    CHECK(way.times() == 1);
  };
  for (const auto& [ranks, damaged] : {std::pair<size_t, uint32_t>{2, 1}, {3, 0}, {3, 1}, {3, 2}})
    check(ranks, damaged, kInFirstPart);
  for (const uint32_t damaged : {0u, 1u, 2u}) check(kMembers, damaged, kInSecondPart);
}

// The last member looks at what has come, and finds a part damaged, only when the one before it has noticed
// that the first is gone: it asks about its parts then, or ends.
TEST_CASE("a part of a small sum that was damaged on the way arrives, though the member before has closed") {
  std::promise<void> noticed, over;
  std::atomic<bool> spoke = false;
  DamagedWay way(2, kInSecondPart, [&](uint64_t offset, std::span<std::byte> bytes) {
    if (offset + bytes.size() > kHandshake + 2 * kPart && !spoke.exchange(true)) noticed.set_value();
  });
  const std::shared_future<void> has_noticed = noticed.get_future(), is_over = over.get_future();
  const auto thrown =
      run_linked(kMembers, way.options(), [&](const auto& members, size_t position, RingLinks links) {
        if (position == 0) {
          for (const size_t part : {0u, 2u}) send_part(*links.next, part);
          return links.next->flush(soon());
        }
        if (position == 1) {
          Ring ring(members, 1, std::move(links));
          reduce(ring);
          return wait_for(is_over);
        }
        const std::promise<void> over_then = std::move(over);  // however this ends
        wait_for(has_noticed);
        for (const size_t part : {1u, 0u}) expect_part(*links.previous, part);
        links.previous->acknowledge(soon());
      });
  check_all_well(thrown);
  CHECK(spoke);
  CHECK(way.times() == 1);
}

TEST_CASE("a part of a small sum that is of no use is blamed on who made it, not on who handed it on") {
  const auto check = [](size_t maker, const FrameHead& head, const std::vector<std::byte>& bytes,
                        const char* why) {
    CAPTURE(maker);
    std::promise<void> over;
    const std::shared_future<void> is_over = over.get_future();
    const auto thrown = run_linked(kMembers, {}, [&](const auto& members, size_t position, RingLinks links) {
      if (position == 0) return wait_for(is_over);
      if (position == 1) {
        if (maker == 0) send_part(*links.next, 1);
        links.next->send(head, bytes, soon());
        return wait_for(is_over);
      }
      const std::promise<void> over_then = std::move(over);
      Ring ring(members, 2, std::move(links));
      reduce(ring);
    });
    REQUIRE(thrown[2] != nullptr);
    try {
      std::rethrow_exception(thrown[2]);
    } catch (const PeerError& error) {
      const std::string text = error.what();
      CAPTURE(text);
      CHECK(error.peer_rank() == maker);
      CHECK(text.starts_with("rank " + std::to_string(maker) + " (node-" + std::to_string(maker)));
      CHECK(text.find(why) != std::string::npos);
    }
  };
  for (const size_t maker : {0u, 1u}) {
    std::vector<std::byte> cut = part_of(maker);
    cut.resize(cut.size() - 1);
    check(maker, head_of_part(maker), cut, "a chunk of 1000 floats has 3999 bytes");
    cut.resize(10);
    check(maker, head_of_part(maker), cut, "10 bytes");
    FrameHead head = head_of_part(maker);
    head.slots = {1};
    check(maker, head, part_of(maker), "other slots than the seal says");
  }
}

TEST_CASE("a small float sum is added in the order of positions") {
  const std::vector<float> parts = {1e8f, 1.0f, -1e8f, 1.0f};  // 1 in this order, 0 or 2 in others
  run_ranks_well(4, {}, [&](Ring& ring) {
    std::vector<float> values(3, parts[ring.position()]);
    ring.reduce(FloatReduction{1, values, test_contributions(4), {{0, 3}}}, {}, soon());
    if (values != std::vector<float>(3, 1.0f)) throw std::runtime_error("another order");
  });
}
