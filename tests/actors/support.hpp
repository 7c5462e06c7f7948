// What the tests of actors/ share: a deterministic actor system without threads or clock, a job context that
// needs no network, and stand-ins for roles.
#pragma once

#include <memory>
#include <string>

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/engines/train_engine.hpp"
#include "actors/handles.hpp"
#include "actors/job_context.hpp"
#include "actors/roles/roles.hpp"
#include "comm/messages.pb.h"

namespace troupe::actors {

struct TestConfig : caf::actor_system_config {
  TestConfig() { set("scheduler.policy", caf::atom("testing")); }
};

struct TestSystem {
  TestConfig config;
  caf::actor_system system{config};
  caf::scheduler::test_coordinator& scheduler =
      dynamic_cast<caf::scheduler::test_coordinator&>(system.scheduler());
  void run() { scheduler.run(); }
  // One after the other.
  template <class... Handles>
  void end(const Handles&... handles) {
    ((caf::anon_send_exit(handles, caf::exit_reason::user_shutdown), run()), ...);
  }
};

inline JobContextPtr test_context(uint32_t nodes, scheduler::Rank rank, int64_t steps, int64_t slots) {
  auto services = std::make_shared<NodeServices>();
  services->cluster = config::local_cluster(nodes, 1);
  services->node = services->cluster.nodes.at(rank).name;
  services->rank = rank;
  services->incarnation = std::string(16, 'i');
  auto context = std::make_shared<JobContext>();
  context->cluster = services->cluster;
  context->job.steps = steps;
  context->job.slots = slots;
  context->job.evaluation_every = 0;
  context->job_id = std::string(32, 'j');
  context->services = std::move(services);
  return context;
}

// Keeps what a supervisor is told.
struct Heard {
  std::vector<JobFailed> failures;
  std::vector<StepsDone> done;
  std::vector<EnvelopePtr> published;
};
inline supervisor_actor spawn_supervisor(TestSystem& test, std::shared_ptr<Heard> heard) {
  return test.system.spawn([heard]() -> supervisor_actor::behavior_type {
    return {[heard](const JobFailed& failure) { heard->failures.push_back(failure); },
            [heard](const StepsDone& done) { heard->done.push_back(done); },
            [heard](const Publish& report) { heard->published.push_back(report.envelope); },
            [](const scheduler::BeginView&) {},
            [](scheduler::EveryoneLeft) {},
            [](ReadyToLeave) {},
            [](PartEnded) {}};
  });
}

// Keeps the envelopes it gets.
inline post_actor spawn_listener(TestSystem& test, std::shared_ptr<std::vector<EnvelopePtr>> got) {
  return test.system.spawn([got]() -> post_actor::behavior_type {
    return {[got](const Post& post) { got->push_back(post.envelope); }};
  });
}

}  // namespace troupe::actors
