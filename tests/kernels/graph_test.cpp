// Gathered calls as graphs: what runs when, what is set before a launch, which graphs are kept.
#include <array>
#include <numeric>

#include <doctest/doctest.h>

#include "tests/kernels/emulated_graphs.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

// to[block] = from[block] + value; fails where value is negative.
struct AddTo {
  int64_t* to;
  const int64_t* from;
  int64_t value;
};
void add_to(const void* kernel, int64_t blocks, ThreadOrder) {
  const AddTo& k = *static_cast<const AddTo*>(kernel);
  if (k.value < 0) throw error(ErrorKind::device, "cannot start add to with {} blocks", blocks);
  for (int64_t block = 0; block < blocks; ++block) k.to[block] = k.from[block] + k.value;
}
void add_to_again(const void* kernel, int64_t blocks, ThreadOrder order) {
  add_to(kernel, blocks, order);
}

constexpr GraphLimits kSmall{4, 2, 64, 1024};

struct Harness {
  GraphLog log;
  std::unique_ptr<GraphRuntime> runtime;
  std::vector<int64_t> input = std::vector<int64_t>(64), middle = input, output = input;

  explicit Harness(const GraphLimits& limits = kSmall) : runtime(make_graph_runtime(log, limits)) {}

  void launch(int64_t* to, const int64_t* from, int64_t value, int64_t blocks,
              void (*kernel)(const void*, int64_t, ThreadOrder) = add_to) {
    const AddTo arguments{to, from, value};
    runtime->launch({&arguments, sizeof arguments, blocks, "add to", kernel, nullptr});
  }
  // output[0, count) = first, first + 1, ... + value, by a copy and two kernels.
  void work(int64_t first, int64_t count, int64_t value) {
    std::vector<int64_t> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), first);
    runtime->copy_in(input.data(), values.data(), values.size() * sizeof(int64_t));
    std::ranges::fill(values, -7);  // the caller's again
    launch(middle.data(), input.data(), value, count);
    launch(output.data(), middle.data(), 0, count);
  }
  int64_t read(size_t index = 0) {
    int64_t value = 0;
    runtime->copy_out(&value, &output[index], sizeof value);
    return value;
  }
  // The same work in `form` different places, so of as many forms.
  void work_of_form(size_t form) {
    gathered(*runtime, [&] {
      runtime->zero_rows(&output[form], 8, 8, 1);
      launch(output.data() + form, input.data(), 1, 1);
    });
  }
  const GraphCache::Totals& totals() const { return runtime->cache().totals(); }
};

}  // namespace

TEST_CASE("gathered calls run when the host waits, and at once where nothing is gathered") {
  Harness h;
  h.work(5, 3, 10);
  CHECK(h.output[2] == 17);
  for (int time = 0; time < 3; ++time) {
    CAPTURE(time);
    gathered(*h.runtime, [&] {
      h.output.assign(64, 0);
      h.work(5, 3, 20);
      CHECK(h.output[2] == 0);
      h.runtime->start_copy_out(&h.output[2], 8);
      CHECK(h.output[2] == 27);
      h.work(6, 3, 20);
      CHECK(h.output[2] == 27);
      int64_t copied = 0;
      h.runtime->finish_copy_out(&copied);
      CHECK(copied == 27);
      CHECK(h.output[2] == 28);
      h.work(7, 3, 20);
      CHECK(h.read(2) == 29);
      h.work(8, 3, 20);
      h.runtime->synchronize();
      CHECK(h.output[2] == 30);
      h.work(9, 3, 20);
    });
    CHECK(h.output[2] == 31);
  }
  CHECK(h.totals().direct == 1);  // all have one form
  CHECK(h.totals().launches == 14);
  CHECK(h.log.captures == 1);
}

TEST_CASE("a sequence runs directly, then as a graph of which only what differs is set") {
  Harness h;
  const auto run = [&](int64_t first, int64_t count, int64_t value) {
    gathered(*h.runtime, [&] { h.work(first, count, value); });
    for (int64_t i = 0; i < count; ++i) CHECK(h.output[size_t(i)] == first + i + value);
  };
  run(0, 8, 1);
  CHECK(h.log.captures == 0);
  run(0, 8, 2);
  CHECK(h.log.captures == 1);
  CHECK(h.totals().updates == 0);
  run(0, 8, 2);
  run(100, 8, 2);  // other bytes in the same place
  CHECK(h.totals().updates == 0);
  run(100, 8, 3);  // the first kernel
  CHECK(h.log.kernels_set == 1);
  CHECK(h.log.copies_set == 0);
  run(100, 5, 3);  // both kernels' grids, and the copy
  CHECK(h.log.kernels_set == 3);
  CHECK(h.log.copies_set == 1);
  run(100, 60, 3);  // more bytes than there was memory for
  CHECK(h.log.kernels_set == 5);
  CHECK(h.log.copies_set == 2);
  run(100, 60, 3);
  CHECK(h.totals().updates == 7);
  CHECK(h.totals().launches == 7);
  CHECK(h.totals().direct == 1);
  CHECK(h.log.captures == 1);
}

TEST_CASE("when a graph's inputs move, every copy is set to read from there") {
  Harness h;
  std::array<int64_t, 4> a{1, 2, 3, 4};
  std::vector<int64_t> b(40);
  for (const size_t count : {size_t{10}, size_t{10}, size_t{40}, size_t{40}}) {
    ++a[0];
    std::iota(b.begin(), b.end(), a[0]);
    gathered(*h.runtime, [&] {
      h.runtime->copy_in(h.output.data(), a.data(), sizeof a);
      h.runtime->copy_in(h.middle.data(), b.data(), count * 8);
    });
    CHECK(h.output[0] == a[0]);
    CHECK(h.middle[count - 1] == a[0] + int64_t(count) - 1);
  }
  CHECK(h.log.copies_set == 2);
}

TEST_CASE("other kernels, places of copies and zeroings, products and attention are other graphs") {
  Harness h({32, 2, 64, 1024});
  std::vector<float> factor(16, 2.0f), result(16);
  const auto product = [&](int64_t n, float* d) {
    Product p;
    p.m = p.k = 2;
    p.n = n;
    p.a = {factor.data(), 2, 2, 2};
    p.b = {factor.data(), 2, n, 2};
    p.d = d;
    p.leading = 2;
    return p;
  };
  std::vector<uint16_t> rows(8, 0x3f80), attended(8);
  std::vector<float> lse(2);
  const auto attention = [&](size_t first, bool causal) {
    FusedAttention a;
    a.batch = a.heads = 1;
    a.queries = a.keys = a.head_size = 2;
    a.q = a.k = {rows.data(), 2};
    a.v = {rows.data() + first, 2};
    a.out = {attended.data(), 2};
    a.lse = lse.data();
    a.causal = causal;
    return a;
  };
  rows[6] = 0x4000;
  const auto copy_rows = [&](int64_t* to) { h.runtime->copy_rows(to, 8, h.input.data(), 16, 8, 2); };
  const std::vector<std::function<void()>> calls{
      [&] { h.launch(h.output.data(), h.input.data(), 1, 1); },
      [&] { h.launch(h.output.data(), h.input.data(), 1, 1, add_to_again); },
      [&] { copy_rows(h.output.data()); },
      [&] { copy_rows(h.middle.data()); },
      [&] { h.runtime->zero_rows(h.output.data(), 8, 8, 2); },
      [&] { h.runtime->zero_rows(h.output.data(), 16, 8, 2); },
      [&] { h.runtime->multiply(product(2, result.data())); },
      [&] { h.runtime->multiply(product(2, result.data() + 4)); },
      [&] { h.runtime->multiply(product(1, result.data())); },
      [&] { h.runtime->attend(attention(0, false)); },
      [&] { h.runtime->attend(attention(4, false)); },
      [&] { h.runtime->attend(attention(4, true)); },
  };
  for (int time = 0; time < 3; ++time)
    for (const auto& call : calls) {
      h.output.assign(64, -1);
      h.input.assign(64, 4);
      std::ranges::fill(result, 0.0f);
      std::ranges::fill(attended, uint16_t{0});
      call();
      const auto output = h.output;
      const auto products = result;
      const auto contexts = attended;
      h.output.assign(64, -1);
      std::ranges::fill(result, 0.0f);
      std::ranges::fill(attended, uint16_t{0});
      gathered(*h.runtime, [&] {
        call();
        h.launch(h.middle.data() + 8, h.input.data(), 1, 1);
      });
      CHECK(h.output == output);
      CHECK(result == products);
      CHECK(attended == contexts);
    }
  CHECK(h.totals().captures == int64_t(calls.size()));
  CHECK(h.totals().launches == 2 * int64_t(calls.size()));
  CHECK(h.totals().updates == 0);
}

TEST_CASE("graphs are bounded: the least used makes room for one that comes far more often") {
  Harness h;
  for (int time = 0; time < 20; ++time)  // six forms in turn, room for four
    for (size_t form = 0; form < 6; ++form) h.work_of_form(form);
  CHECK(h.runtime->cache().size() == 4);
  CHECK(h.log.alive == 4);
  CHECK(h.totals().captures == 4);
  CHECK(h.totals().evictions == 0);
  CHECK(h.totals().launches == 4 * 19);

  for (int time = 0; time < 30; ++time) h.work_of_form(7);  // 20 of each of the others
  CHECK(h.totals().evictions == 0);
  for (int time = 0; time < 30; ++time) h.work_of_form(7);
  CHECK(h.totals().evictions == 1);
  CHECK(h.log.alive == 4);
  CHECK(h.totals().launches == 4 * 19 + 20);  // from the 41st of the 60 on
}

TEST_CASE("what came often once gives way in time, and counts stay bounded") {
  RecentCounts counts;
  for (size_t i = 0; i < 100; ++i) counts.add(1);
  CHECK(counts.of(1) == 100);
  for (size_t i = 0; i < 7 * RecentCounts::kWindow; ++i) counts.add(2);
  CHECK(counts.of(1) == 0);
  CHECK(counts.of(2) > 900);
  for (uint64_t key = 3; key < 3 + 10 * RecentCounts::kWindow; ++key) counts.add(key);
  CHECK(counts.size() <= 2 * RecentCounts::kWindow);
}

TEST_CASE("where there is no memory for a graph its calls run as they are, and no more are made") {
  Harness h;
  h.log.room = 1;
  for (int time = 0; time < 5; ++time)
    for (size_t form = 0; form < 3; ++form) {
      h.output.assign(64, -1);
      h.work_of_form(form);
      CHECK(h.output[form] == h.input[0] + 1);
    }
  CHECK(h.totals().captures == 1);
  CHECK(h.totals().launches == 4);
  CHECK(h.totals().direct == 11);
}

TEST_CASE("a graph whose inputs no longer find memory gives way to its calls as they are") {
  Harness h;
  h.log.input_bytes_max = 80;
  const auto run = [&](int64_t count) {
    h.output.assign(64, -1);
    gathered(*h.runtime, [&] { h.work(5, count, 1); });
    CHECK(h.output[size_t(count) - 1] == count + 5);
  };
  for (const int64_t count : {10, 10, 11, 11, 10}) run(count);
  CHECK(h.totals().captures == 1);
  CHECK(h.totals().launches == 1);
  CHECK(h.totals().direct == 4);
  CHECK(h.log.alive == 0);
}

TEST_CASE("a graph that finds no memory when it is launched gives way to its calls as they are") {
  Harness h;
  h.log.no_room_at_launch = 1;
  for (int time = 0; time < 5; ++time) {
    h.output.assign(64, -1);
    h.work_of_form(0);
    CHECK(h.output[0] == h.input[0] + 1);
  }
  CHECK(h.totals().captures == 1);
  CHECK(h.totals().launches == 1);
  CHECK(h.totals().direct == 4);
  CHECK(h.log.alive == 0);
}

TEST_CASE("a copy that was never finished is forgotten when the next begins") {
  Harness h;
  h.output = {7, 8};
  int64_t copied = 0;
  h.runtime->start_copy_out(&h.output[0], 8);
  h.runtime->start_copy_out(&h.output[1], 8);
  h.runtime->finish_copy_out(&copied);
  CHECK(copied == 8);
}

TEST_CASE("a call that fails is named, and what was gathered with it is dropped") {
  Harness h;
  const auto run = [&](int64_t value) {
    gathered(*h.runtime, [&] {
      h.work(1, 2, 1);
      h.launch(h.output.data(), h.output.data(), value, 3);
      h.launch(h.output.data(), h.output.data(), 100, 1);
    });
  };
  for (int time = 0; time < 4; ++time) {  // directly, and as a graph
    CAPTURE(time);
    CHECK_THROWS_WITH_AS(run(-1), "cannot start add to with 3 blocks", Error);
    CHECK(h.read() == 2);  // and not 102, now or later
    run(5);
    CHECK(h.read() == 107);
  }
  CHECK(h.log.alive == 1);

  h.log.fails_at_launch = h.log.launches;
  CHECK_THROWS_WITH_AS(run(6), "cannot launch a graph", Error);
  CHECK(h.log.alive == 0);
  h.output.assign(64, 0);
  run(6);
  CHECK(h.read() == 108);

  // The host's own work fails: nothing of what it gathered runs.
  CHECK_THROWS_AS(gathered(*h.runtime,
                           [&] {
                             h.work(1000, 2, 1);
                             throw std::runtime_error("elsewhere");
                           }),
                  std::runtime_error);
  CHECK(h.read() == 108);
  h.launch(h.output.data(), h.output.data(), 1, 1);  // at once: nothing is gathered any more
  CHECK(h.output[0] == 109);
}

TEST_CASE("allocating runs what was gathered, and the rest of the gathering at once") {
  Harness h;
  for (int time = 0; time < 3; ++time) {
    h.output.assign(64, 0);
    gathered(*h.runtime, [&] {
      h.work(1, 2, 1);
      CHECK(h.output[0] == 0);
      const Buffer buffer = h.runtime->allocate(64);
      CHECK(h.output[0] == 2);
      h.work(2, 2, 1);
      CHECK(h.output[0] == 3);
    });
  }
}

TEST_CASE("a sequence is cut at its limits, and what is too large to keep is copied at once") {
  Harness h;
  for (int time = 0; time < 2; ++time)
    gathered(*h.runtime, [&] {
      h.output[0] = 0;
      for (int i = 0; i < 64; ++i) {
        CHECK(h.output[0] == 0);
        h.launch(h.output.data(), h.output.data(), 1, 1);
      }
      CHECK(h.output[0] == 64);
    });
  const std::vector<char> large(1025, 3);
  std::vector<char> to(1025);
  gathered(*h.runtime, [&] {
    h.launch(h.output.data(), h.output.data(), 1, 1);
    h.runtime->copy_in(to.data(), large.data(), 1025);
    CHECK(h.output[0] == 65);
    CHECK(to == large);
    h.runtime->copy_in(to.data(), large.data(), 0);
    h.runtime->copy_in(to.data(), large.data(), 1000);
    h.output[0] = 0;
    h.launch(h.output.data(), h.output.data(), 1, 1);
    CHECK(h.output[0] == 0);
    h.runtime->copy_in(to.data(), large.data(), 25);
    CHECK(h.output[0] == 1);
  });
  CHECK_THROWS_AS(gathered(*h.runtime, [&] { h.runtime->begin_gathering(); }), CheckFailure);
}
