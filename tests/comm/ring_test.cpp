#include "comm/ring.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include <doctest/doctest.h>

#include "comm/ring_plan.hpp"
#include "kernels/block_codec.hpp"
#include "tests/comm/ring_harness.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;
using kernels::BlockLayout;
using kernels::RoundedTotal;

namespace {

BlockLayout layout_of(std::initializer_list<std::pair<int64_t, int64_t>> segments) {
  BlockLayout layout;
  for (const auto& [count, row] : segments) layout.append(count, row);
  return layout;
}

ExactReduction exact_of(const BlockLayout& layout, const std::vector<int64_t>& values, RoundedTotal& total,
                        size_t ranks, std::vector<Bucket> buckets) {
  return {11, &layout, values, &total, {24, 5}, test_contributions(ranks), std::move(buckets)};
}

void check_exact(size_t ranks, const BlockLayout& layout, std::vector<Bucket> buckets,
                 const RingTestOptions& options, int bits = 24) {
  CAPTURE(ranks);
  CAPTURE(layout.elements());
  const RoundedTotal wanted = plain_total(layout, ranks, {bits, 5});
  SumMeta wanted_meta;
  for (size_t rank = 0; rank < ranks; ++rank) wanted_meta += test_meta(rank);
  std::mutex mutex;  // doctest's checks from several threads
  run_ranks_well(ranks, options, [&](Ring& ring) {
    const auto values = test_values(layout, ring.position());
    const auto before = values;
    RoundedTotal total;
    auto reduction = exact_of(layout, values, total, ranks, buckets);
    reduction.rounding.bits = bits;
    const SumMeta meta = ring.reduce(reduction, test_meta(ring.position()), soon());
    std::lock_guard lock(mutex);
    CHECK(total == wanted);
    CHECK(meta == wanted_meta);
    CHECK(values == before);
  });
}

// Of layouts that the waiting thread reduces itself, and that a ring's own threads do.
constexpr std::initializer_list<int64_t> kSmallAndLarge = {5000, 50'000};

RingOptions small_chunks() {
  return {700, 2};
}

// When `change` makes the reduction of position 1 differ, that member ends with an error that has this word,
// and so do the others, but for one that has had its whole sum by then, as may be when the parts go round
// whole.
void check_disagreement(size_t ranks, const std::function<void(ExactReduction&, size_t position)>& change,
                        const char* word) {
  for (const int64_t length : kSmallAndLarge) {
    CAPTURE(length);
    const BlockLayout layout = layout_of({{length, length}});
    const auto thrown = run_ranks(ranks, {}, [&](Ring& ring) {
      const auto values = test_values(layout, ring.position());
      RoundedTotal total;
      auto reduction = exact_of(layout, values, total, ranks, buckets_last_first(layout, 0));
      change(reduction, ring.position());
      ring.reduce(reduction, {}, soon());
    });
    for (size_t position = 0; position < ranks; ++position) {
      const bool may_end_well = length == *kSmallAndLarge.begin() && position != 1;
      if (may_end_well && thrown[position] == nullptr) continue;
      REQUIRE(thrown[position] != nullptr);
      CHECK_THROWS_WITH_AS(std::rethrow_exception(thrown[position]), doctest::Contains(word), PeerError);
    }
  }
}

}  // namespace

TEST_CASE("an exact reduction over 1 to 8 ranks is the plain sum, rounded, the same bits on every rank") {
  const BlockLayout layout = layout_of({{5000, 5000}, {300 * 7, 300}, {1, 1}, {40 * 90, 40}, {257, 257}});
  for (size_t ranks = 1; ranks <= 8; ++ranks)
    check_exact(ranks, layout, buckets_last_first(layout, 2000), {Transport::tcp, small_chunks()});
}

TEST_CASE("lengths of 0, 1 and others that ranks do not divide are reduced exactly") {
  for (const int64_t length : {0, 1, 2, 255, 256, 257, 1000, 4099})
    for (const size_t ranks : {1u, 2u, 3u, 5u}) {
      const BlockLayout layout = length == 0 ? BlockLayout() : layout_of({{length, length}});
      check_exact(ranks, layout, buckets_last_first(layout, 0), {Transport::tcp, small_chunks()});
    }
}

TEST_CASE("a reduction larger than every buffer keeps its bits over tcp and shared memory") {
  const BlockLayout layout = layout_of({{2'000'000, 2'000'000}, {500 * 1000, 500}, {13, 13}});
  for (const Transport transport : {Transport::tcp, Transport::shm})
    for (const size_t ranks : {2u, 3u})
      check_exact(ranks, layout, buckets_last_first(layout, 700'000), {transport, {}},
                  transport == Transport::tcp ? 24 : 8);
}

TEST_CASE("shared memory gives the same bits for 1 to 8 ranks") {
  const BlockLayout layout = layout_of({{5000, 5000}, {300 * 7, 300}, {1, 1}});
  for (size_t ranks = 1; ranks <= 8; ++ranks)
    check_exact(ranks, layout, buckets_last_first(layout, 0), {Transport::shm, small_chunks()});
}

TEST_CASE("narrow totals are rounded by the owner of a block alone, so all ranks agree") {
  const BlockLayout layout = layout_of({{5000, 5000}, {300 * 7, 300}});
  for (const int bits : {4, 8, 16})
    check_exact(3, layout, buckets_last_first(layout, 0), {Transport::tcp, small_chunks()}, bits);
}

TEST_CASE(
    "buckets that become ready one after the other, at different times on each rank, give the same bits") {
  const BlockLayout layout = layout_of({{20'000, 20'000}, {64 * 100, 64}});
  const auto buckets = buckets_last_first(layout, 3000);
  REQUIRE(buckets.size() > 5);
  const size_t ranks = 3;
  const RoundedTotal wanted = plain_total(layout, ranks, {24, 5});
  std::mutex mutex;
  run_ranks_well(ranks, {Transport::tcp, small_chunks()}, [&](Ring& ring) {
    const auto values = test_values(layout, ring.position());
    RoundedTotal total;
    for (int step = 0; step < 3; ++step) {
      auto reduction = exact_of(layout, values, total, ranks, buckets);
      reduction.step = step;
      total = {};
      ring.start(reduction);
      // Rank 0 in order, rank 1 backwards, rank 2 only at the end.
      for (size_t i = 0; i < buckets.size() && ring.position() < 2; ++i)
        ring.bucket_ready(ring.position() == 0 ? i : buckets.size() - 1 - i);
      ring.finish(test_meta(ring.position()));
      ring.wait(soon());
      std::lock_guard lock(mutex);
      CHECK(total == wanted);
      CHECK(ring.stats().bytes_sent > 0);
    }
  });
}

TEST_CASE("members whose last buckets wait for longer than the silence that ends a link lose nobody") {
  const BlockLayout layout = layout_of({{40'000, 40'000}});
  const auto buckets = buckets_last_first(layout, 10'000);
  const RoundedTotal wanted = plain_total(layout, 3, {24, 5});
  RingTestOptions options{Transport::tcp, small_chunks()};
  options.silence_ms_max = 1000;
  std::mutex mutex;
  std::condition_variable changed;
  bool lost = false;
  run_ranks_well(3, options, [&](Ring& ring) {
    const auto values = test_values(layout, ring.position());
    RoundedTotal total;
    ring.start(exact_of(layout, values, total, 3, buckets));
    ring.bucket_ready(0);
    if (ring.position() == 1) {  // as while a slot runs
      std::unique_lock lock(mutex);
      CHECK_FALSE(changed.wait_for(lock, std::chrono::milliseconds(2500), [&] { return lost; }));
    }
    try {
      ring.check();
      ring.finish(test_meta(ring.position()));
      ring.wait(soon());
    } catch (const PeerError&) {
      const std::lock_guard lock(mutex);
      lost = true;
      changed.notify_all();
      throw;
    }
    const std::lock_guard lock(mutex);
    CHECK(total == wanted);
  });
}

TEST_CASE("a member whose buckets are not ready hears that the reduction is over") {
  const BlockLayout layout = layout_of({{40'000, 40'000}});
  const auto buckets = buckets_last_first(layout, 10'000);
  const auto thrown = run_ranks(2, {Transport::tcp, small_chunks()}, [&](Ring& ring) {
    const auto values = test_values(layout, ring.position());
    RoundedTotal total;
    ring.start(exact_of(layout, values, total, 2, buckets));
    if (ring.position() == 0) ring.cancel("enough");
    try {
      ring.wait(soon());  // then its threads have done with the values
    } catch (const PeerError&) {
      ring.check();
    }
  });
  for (const auto& error : thrown) {
    REQUIRE(error != nullptr);
    CHECK_THROWS_WITH_AS(std::rethrow_exception(error), doctest::Contains("enough"), PeerError);
  }
}

TEST_CASE("a reduction that was stopped leaves sum and total alone, also when somebody else cancels it") {
  const BlockLayout layout = layout_of({{400'000, 400'000}});
  const auto buckets = buckets_last_first(layout, 10'000);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> changed = 0;
    run_ranks(2, {Transport::tcp, small_chunks()}, [&](Ring& ring) {
      auto values = test_values(layout, ring.position());
      RoundedTotal total;
      ring.start(exact_of(layout, values, total, 2, buckets));
      for (size_t i = 0; i < buckets.size(); ++i) ring.bucket_ready(i);
      std::thread other([&] { ring.cancel("a new view"); });
      ring.stop("given up");
      const RoundedTotal left = total;
      values.assign(values.size(), 0);
      other.join();
      changed += total != left;
    });
    CHECK(changed == 0);
  }
}

TEST_CASE("a float reduction is the sum, the same bits on every rank") {
  for (const Transport transport : {Transport::tcp, Transport::shm})
    for (const size_t ranks : {1u, 2u, 3u, 8u})
      for (const size_t length : {0u, 1u, 5u, 100'003u}) {
        std::vector<std::vector<float>> results(ranks);
        run_ranks_well(ranks, {transport, {10'000, 2}}, [&](Ring& ring) {
          std::vector<float> values(length);
          for (size_t i = 0; i < length; ++i) values[i] = 1.0f / float(1 + i + ring.position() * 3);
          const int64_t half = int64_t(length / 2), end = int64_t(length);
          ring.reduce(FloatReduction{1, values, test_contributions(ranks), {{half, end}, {0, half}}}, {},
                      soon());
          results[ring.position()] = values;
        });
        for (size_t rank = 1; rank < ranks; ++rank) CHECK(results[rank] == results[0]);
        REQUIRE(results[0].size() == length);
        double worst = 0;
        for (size_t i = 0; i < length; ++i) {
          double sum = 0;
          for (size_t rank = 0; rank < ranks; ++rank) sum += 1.0 / double(1 + i + rank * 3);
          worst = std::max(worst, std::abs(double(results[0][i]) - sum) / sum);
        }
        CHECK(worst < 1e-6);
      }
}

TEST_CASE("a broadcast gives everyone the bytes of its root") {
  for (const size_t ranks : {1u, 2u, 5u})
    for (const size_t bytes : {0u, 1u, 1'000'000u})
      run_ranks_well(ranks, {}, [&](Ring& ring) {
        for (size_t root = 0; root < ranks; ++root) {
          std::vector<std::byte> wanted(bytes, std::byte(root + 1)), state;
          if (bytes > 1) wanted[bytes / 2] = std::byte(77);
          if (ring.position() == root) state = wanted;
          ring.broadcast(root, state, 1'000'000, soon());
          if (state != wanted) throw std::runtime_error("other bytes than the root's");
        }
      });
}

TEST_CASE("a state beyond what a member expects is refused, and all members hear of it") {
  const auto thrown = run_ranks(3, {}, [&](Ring& ring) {
    std::vector<std::byte> state(ring.position() == 0 ? 4'000'000 : 0);
    ring.broadcast(0, state, ring.position() == 1 ? 1000 : 5'000'000, soon());
  });
  CHECK(thrown[1] != nullptr);
  CHECK(thrown[2] != nullptr);
}

TEST_CASE("contributions that share a slot are refused before anything is sent") {
  Ring ring(
      {
          {0, "a", "", ""},
      },
      0, {});
  const BlockLayout layout = layout_of({{10, 10}});
  const std::vector<int64_t> values(10, 1);
  RoundedTotal total;
  CHECK_THROWS_AS(check_contributions(std::vector<SlotWords>{{1, 2}, {4, 2}}, 0), Error);
  CHECK(check_contributions(std::vector<SlotWords>{{1, 0}, {2}}, 0).all == SlotWords{3});
  CHECK_NOTHROW(ring.reduce(exact_of(layout, values, total, 1, {{0, 1}}), {}, soon()));
}

TEST_CASE("members that do not agree on the seal end with an error that says so") {
  check_disagreement(
      3,
      [](ExactReduction& reduction, size_t position) {
        if (position == 1) std::swap(reduction.contributions[0], reduction.contributions[2]);
      },
      "slots");
}

TEST_CASE("members in different steps end with an error that says so") {
  check_disagreement(
      2, [](ExactReduction& reduction, size_t position) { reduction.step = int64_t(position); }, "step");
}

TEST_CASE("cancel ends a reduction that waits for others, everywhere and with the reason") {
  for (const int64_t length : kSmallAndLarge) {
    CAPTURE(length);
    const BlockLayout layout = layout_of({{length, length}});
    const auto thrown = run_ranks(4, {}, [&](Ring& ring) {
      const auto values = test_values(layout, ring.position());
      RoundedTotal total;
      ring.start(exact_of(layout, values, total, 4, buckets_last_first(layout, 0)));
      if (ring.position() == 2)
        ring.cancel("a higher ballot");  // instead of finish()
      else
        ring.finish({});
      ring.wait(soon());
    });
    for (const auto& error : thrown) {
      REQUIRE(error != nullptr);
      try {
        std::rethrow_exception(error);
      } catch (const PeerError& why) {
        CHECK(why.kind() == ErrorKind::cancelled);
        CHECK(why.peer_rank() == 2);
        CHECK(std::string(why.what()).find("a higher ballot") != std::string::npos);
      }
    }
  }
}

TEST_CASE("a reduction that others do not join ends at its deadline") {
  for (const int64_t length : kSmallAndLarge) {
    CAPTURE(length);
    const BlockLayout layout = layout_of({{length, length}});
    const auto thrown = run_ranks(2, {}, [&](Ring& ring) {
      const auto values = test_values(layout, ring.position());
      RoundedTotal total;
      ring.start(exact_of(layout, values, total, 2, buckets_last_first(layout, 0)));
      if (ring.position() == 0) ring.finish({});
      ring.wait(ring.position() == 0 ? deadline_in_ms(200) : soon());
    });
    REQUIRE(thrown[0] != nullptr);
    REQUIRE(thrown[1] != nullptr);
    CHECK_THROWS_WITH_AS(std::rethrow_exception(thrown[0]), doctest::Contains("not done in time"), PeerError);
    CHECK_THROWS_WITH_AS(std::rethrow_exception(thrown[1]), doctest::Contains("node-0"), PeerError);
  }
}

TEST_CASE("chunks of short rows fit in frames, whatever their values are") {
  for (const int64_t most : {65'536, 100'000})
    for (const int64_t row : {1, 2, 3, 4, 5, 6, 7, 9, 10, 17, 255, 257}) {
      CAPTURE(most);
      CAPTURE(row);
      const int64_t rows = 2 * most / row;  // as many as make whole chunks
      for (const BlockLayout& layout :
           {layout_of({{rows * row, row}}), layout_of({{1000, 1000}, {rows * row, row}, {513, 513}})}) {
        const RingPlan plan = plan_blocks(layout, buckets_last_first(layout, 0), 2, 0, most);
        for (const Bucket& chunk : plan.chunks)
          CHECK(kernels::encoded_bytes_max(layout, chunk.begin, chunk.end) <= kFrameBytesMax);
      }
    }
  check_exact(2, layout_of({{131'072, 4}}), {{0, 131'072 / 4}}, {});  // and they are reduced
}

TEST_CASE("a plan covers every block once, in chunks of bounded size") {
  const BlockLayout layout = layout_of({{100'000, 100'000}, {700 * 33, 700}, {3, 3}});
  for (const size_t members : {1u, 2u, 7u}) {
    const RingPlan plan = plan_blocks(layout, buckets_last_first(layout, 9000), members, 0, 1000);
    std::vector<int> seen(size_t(layout.blocks()), 0);
    for (const Bucket& chunk : plan.chunks) {
      CHECK(layout.elements_in(chunk.begin, chunk.end) <= 1000 + kernels::kBlockMax);
      for (int64_t block = chunk.begin; block < chunk.end; ++block) ++seen[size_t(block)];
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
    CHECK(plan.chunks.size() == plan.groups() * members);
  }
}
