// The rings of two nodes as their aggregators drive them, each on a thread: sums that are fed while slots
// run, over the ring and in a group of devices, and views that end meanwhile.
#include "actors/roles/ring_session.hpp"

#include <functional>
#include <future>

#include "tests/actors/two_nodes.hpp"

using namespace troupe;
using namespace troupe::testing;

namespace {

void commit_both(TwoNodes& cluster, const comm::SumMeta (&sums)[2], TrainEngine& alone) {
  CHECK(sums[0] == sums[1]);
  for (TestNode& node : cluster.nodes) {
    commit(*node.engine, sums[0], true);
    CHECK(node.engine->chain() == alone.chain());
    CHECK(node.engine->total() == alone.total());
  }
}

void check_step(const Fixture& fixture, TwoNodes& cluster, TrainEngine& alone, int64_t step) {
  run_step(fixture, alone, step);
  comm::SumMeta sums[2];
  cluster.on_both([&](uint32_t i) {
    TestNode& node = cluster.nodes[i];
    auto slots = std::async(std::launch::async, [&] { run_slots(fixture, *node.engine, step, i, 2); });
    // One of them is asked to feed; the other has all its slots when the seal comes.
    if (step % 2 == int64_t(i)) node.session->feed(node.engine, cluster.seal(step));
    slots.get();
    sums[i] = node.session->reduce(*node.engine, cluster.seal(step));
  });
  commit_both(cluster, sums, alone);
}

// Of slots that have been run.
void check_reduction(TwoNodes& cluster, TrainEngine& alone, int64_t step) {
  comm::SumMeta sums[2];
  cluster.on_both([&](uint32_t i) {
    sums[i] = cluster.nodes[i].session->reduce(*cluster.nodes[i].engine, cluster.seal(step));
  });
  commit_both(cluster, sums, alone);
}

// Two nodes in their first view, beside one that trains alone, for each way.
void for_each_way(const Fixture& fixture, const std::function<void(TwoNodes&, TrainEngine&)>& run) {
  for (const Way way : {Way::cpu, Way::emulated, Way::group}) {
    CAPTURE(int(way));
    TwoNodes cluster(fixture, way);
    const auto alone = fixture.engine(way == Way::cpu ? DeviceKind::cpu : DeviceKind::emulated);
    cluster.begin_view(1);
    run(cluster, *alone);
  }
}

}  // namespace

TEST_CASE(
    "two nodes that feed their ring, or a group of their devices, while slots run have the sums of one") {
  Fixture fixture;
  fixture.job.model.decoder_layers = 3;
  for_each_way(fixture, [&](TwoNodes& cluster, TrainEngine& alone) {
    for (int64_t step = 0; step < 3; ++step) check_step(fixture, cluster, alone, step);
  });
}

TEST_CASE("a view that ends while its sums are fed leaves the slots' own sums, and the next one adds them") {
  const Fixture fixture;
  for_each_way(fixture, [&](TwoNodes& cluster, TrainEngine& alone) {
    check_step(fixture, cluster, alone, 0);
    // No slot runs, so both wait for the first bucket until the view is over.
    std::promise<void> waiting[2];
    auto ending = std::async(std::launch::async, [&] {
      for (std::promise<void>& one : waiting) one.get_future().get();
      for (TestNode& node : cluster.nodes) node.session->supersede({2, 0});
    });
    cluster.on_both([&](uint32_t i) {
      TestNode& node = cluster.nodes[i];
      waiting[i].set_value();
      try {
        node.session->feed(node.engine, cluster.seal(1));
        FAIL_CHECK("a view that is over was fed to its end");
      } catch (const Error& over) {
        CHECK(over.kind() == ErrorKind::cancelled);
      }
    });
    ending.get();
    cluster.begin_view(2);
    for (int64_t step = 1; step < 3; ++step) check_step(fixture, cluster, alone, step);
  });
}

TEST_CASE("what was fed and is given up before it is reduced is reduced anew in the next view") {
  const Fixture fixture;
  for_each_way(fixture, [&](TwoNodes& cluster, TrainEngine& alone) {
    run_step(fixture, alone, 0);
    cluster.run_and_feed(0);
    for (TestNode& node : cluster.nodes) {
      CHECK(node.session->adds_in_group() == (node.group != nullptr));
      node.session->supersede({2, 0});
      if (node.group != nullptr) CHECK(node.group->left == 0);
    }
    cluster.begin_view(2);
    for (TestNode& node : cluster.nodes)
      if (node.group != nullptr) CHECK(node.group->left == 1);
    check_reduction(cluster, alone, 0);
  });
}

TEST_CASE("a reduction that meets the end of its view has left its group when it says so") {
  const Fixture fixture;
  for_each_way(fixture, [&](TwoNodes& cluster, TrainEngine& alone) {
    run_step(fixture, alone, 0);
    cluster.run_and_feed(0);
    for (TestNode& node : cluster.nodes) {
      node.session->supersede({2, 0});
      try {
        node.session->reduce(*node.engine, cluster.seal(0));
        FAIL_CHECK("a view that is over was reduced");
      } catch (const Error& over) {
        CHECK(over.kind() == ErrorKind::cancelled);
      }
      if (node.group != nullptr) CHECK(node.group->left == 1);
      CHECK_FALSE(node.session->adds_in_group());
    }
    cluster.begin_view(2);
    check_reduction(cluster, alone, 0);
  });
}

TEST_CASE("where no group of the devices can be made, the ring adds, and it is not tried for ever") {
  const Fixture fixture;
  TwoNodes cluster(fixture, Way::group);
  const auto alone = fixture.engine(DeviceKind::emulated);
  cluster.nodes[0].group->has_ids = false;
  for (int64_t step = 0; step < 2; ++step) {
    cluster.begin_view(uint64_t(step) + 1);
    check_step(fixture, cluster, *alone, step);
  }
  cluster.nodes[0].group->has_ids = true;
  cluster.begin_view(3);
  check_step(fixture, cluster, *alone, 2);
  for (const TestNode& node : cluster.nodes) CHECK(node.group->joined == 0);
}
