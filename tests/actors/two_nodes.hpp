// Two nodes whose rings, or groups of devices, are driven as their aggregators do it, each on a thread.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "actors/engines/device_engine.hpp"
#include "actors/roles/ring_session.hpp"
#include "comm/shared_memory.hpp"
#include "kernels/cuda/emulated.hpp"
#include "tests/actors/engines/engine_fixture.hpp"
#include "tests/actors/engines/group_of_threads.hpp"

namespace troupe::testing {

enum class Way : uint8_t { cpu, emulated, group };

struct TestNode {
  std::shared_ptr<NodeServices> services = std::make_shared<NodeServices>();
  JobContextPtr context;
  std::shared_ptr<RingSession> session;
  std::shared_ptr<TrainEngine> engine;
  GroupOfThreads* group = nullptr;
};

struct TwoNodes {
  TwoNodes(const Fixture& f, Way way) : fixture(f) {
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
      node.session = std::make_shared<RingSession>(context);
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

  // All slots of a step are run, and the sums fed that reduce() is to end.
  void run_and_feed(int64_t step) {
    on_both([&](uint32_t i) {
      run_slots(fixture, *nodes[i].engine, step, i, 2);
      nodes[i].session->feed(nodes[i].engine, seal(step));
    });
  }

  const Fixture& fixture;
  TestNode nodes[2];
  scheduler::View view;
};

}  // namespace troupe::testing
