// The rings of two nodes as their aggregators drive them, each on a thread: sums that are fed while slots
// run, over the ring and in a group of devices, and views that end meanwhile.
#include "actors/ring_session.hpp"

#include <functional>
#include <future>

#include "actors/device_engine.hpp"
#include "comm/shared_memory.hpp"
#include "kernels/cuda/emulated.hpp"
#include "tests/actors/engine_fixture.hpp"
#include "tests/actors/group_of_threads.hpp"

using namespace troupe;
using namespace troupe::testing;

namespace {

enum class Way : uint8_t { cpu, emulated, group };

struct TestNode {
  std::shared_ptr<NodeServices> services = std::make_shared<NodeServices>();
  JobContextPtr context;
  std::unique_ptr<RingSession> session;
  std::shared_ptr<TrainEngine> engine;
  GroupOfThreads* group = nullptr;
};

struct Cluster {
  Cluster(const Fixture& f, Way way) : fixture(f) {
    config::ClusterConfig cluster;
    cluster.nodes.resize(2);
    const auto meeting = std::make_shared<Meeting>(2);
    for (uint32_t i = 0; i < 2; ++i) {
      cluster.nodes[i].name = "node" + std::to_string(i);
      TestNode& node = nodes[i];
      node.services->node = cluster.nodes[i].name;
      node.services->rank = i;
      node.services->bulk = std::make_shared<comm::BulkListener>(comm::BulkListenerOptions{});
      node.services->host_id = comm::host_id();
      node.engine = make_engine(i, way, meeting);
    }
    for (TestNode& node : nodes) {
      auto context = std::make_shared<JobContext>();
      context->services = node.services;
      context->cluster = cluster;
      context->job = fixture.job;
      context->job_id = std::string(32, 'j');
      node.context = context;
      node.session = std::make_unique<RingSession>(context);
    }
  }

  std::shared_ptr<TrainEngine> make_engine(uint32_t i, Way way, const std::shared_ptr<Meeting>& meeting) {
    if (way != Way::group) return fixture.engine(way == Way::cpu ? DeviceKind::cpu : DeviceKind::emulated, 2);
    EngineDevices devices;
    devices.numerics = "a device";
    for (int d = 0; d < 2; ++d)
      devices.all.push_back({config::name_of(DeviceKind::emulated, d), open_stream(), open_stream()});
    auto group = std::make_unique<GroupOfThreads>(meeting, fmt::format("{}a,{}b THREADS", i, i));
    nodes[i].group = group.get();
    devices.group = std::move(group);
    auto model = model::make_model(fixture.job.model);
    const auto state = model::first_state(kernels::allocate_host, *model, uint64_t(fixture.job.seed));
    return std::make_shared<DeviceEngine>(std::move(devices), fixture.job, fixture.plan, std::move(model),
                                          state);
  }
  static std::unique_ptr<kernels::CudaStream> open_stream() {
    return kernels::make_emulated_stream(kernels::ThreadOrder::forward);
  }

  // Both at once, each on a thread of its own.
  void on_both(const std::function<void(uint32_t)>& run) {
    std::vector<std::future<void>> running;
    for (uint32_t i = 0; i < 2; ++i) running.push_back(std::async(std::launch::async, run, i));
    for (auto& one : running) one.get();
  }

  void begin_view(uint64_t number) {
    view.ballot = {number, 0};
    view.bulk_key = std::string(32, 'k');
    view.members.clear();
    for (const TestNode& node : nodes)
      view.members.push_back({node.services->rank, node.services->node, node.services->bulk->address(),
                              std::string(16, 'i'), node.services->host_id});
    on_both([&](uint32_t i) { nodes[i].session->connect(view); });
  }

  scheduler::Seal seal(int64_t step) const {
    scheduler::Seal seal;
    seal.fence = {view.ballot, step};
    for (uint32_t slot = 0; slot < fixture.plan.slots(step); ++slot)
      seal.contributions[slot % 2].insert(slot);
    return seal;
  }

  const Fixture& fixture;
  TestNode nodes[2];
  scheduler::View view;
};

void commit_both(Cluster& cluster, const comm::SumMeta (&sums)[2], TrainEngine& alone) {
  CHECK(sums[0] == sums[1]);
  for (TestNode& node : cluster.nodes) {
    commit(*node.engine, sums[0], true);
    CHECK(node.engine->chain() == alone.chain());
    CHECK(node.engine->total() == alone.total());
  }
}

void check_step(const Fixture& fixture, Cluster& cluster, TrainEngine& alone, int64_t step) {
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

// Two nodes in their first view, beside one that trains alone, for each way.
void for_each_way(const Fixture& fixture, const std::function<void(Cluster&, TrainEngine&)>& run) {
  for (const Way way : {Way::cpu, Way::emulated, Way::group}) {
    CAPTURE(int(way));
    Cluster cluster(fixture, way);
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
  for_each_way(fixture, [&](Cluster& cluster, TrainEngine& alone) {
    for (int64_t step = 0; step < 3; ++step) check_step(fixture, cluster, alone, step);
  });
}

TEST_CASE("a view that ends while its sums are fed leaves the slots' own sums, and the next one adds them") {
  const Fixture fixture;
  for_each_way(fixture, [&](Cluster& cluster, TrainEngine& alone) {
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
  for_each_way(fixture, [&](Cluster& cluster, TrainEngine& alone) {
    run_step(fixture, alone, 0);
    cluster.on_both([&](uint32_t i) {
      TestNode& node = cluster.nodes[i];
      run_slots(fixture, *node.engine, 0, i, 2);
      node.session->feed(node.engine, cluster.seal(0));
    });
    for (TestNode& node : cluster.nodes) {
      node.session->supersede({2, 0});
      if (node.group != nullptr) CHECK(node.group->left == 0);
    }
    cluster.begin_view(2);
    for (TestNode& node : cluster.nodes)
      if (node.group != nullptr) CHECK(node.group->left == 1);
    comm::SumMeta sums[2];
    cluster.on_both([&](uint32_t i) {
      sums[i] = cluster.nodes[i].session->reduce(*cluster.nodes[i].engine, cluster.seal(0));
    });
    commit_both(cluster, sums, alone);
  });
}

TEST_CASE("where no group of the devices can be made, the ring adds, and it is not tried for ever") {
  const Fixture fixture;
  Cluster cluster(fixture, Way::group);
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
