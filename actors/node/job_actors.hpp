// The actors of one job on one node, in the order they come to life: first those that open the data and build
// the engine, then, when both are there, the rest. They end together.
#pragma once

#include <memory>
#include <vector>

#include <caf/actor.hpp>

#include "actors/roles/roles.hpp"

namespace troupe::actors {

struct JobActors {
  RoleSetup setup;
  std::shared_ptr<RingSession> ring;
  std::map<scheduler::Rank, post_actor> proxies;  // of the other nodes
  loader_actor loader;
  aggregator_actor aggregator;
  // Empty until begin_training():
  std::vector<trainer_actor> trainers;
  monitor_actor monitor;
  evaluator_actor evaluator;
  checkpointer_actor checkpointer;
  member_actor member;
  coordinator_actor coordinator;
  membership_actor membership;
  state_writer_actor state_writer;
  source_actor source;
  follower_actor follower;
  std::vector<caf::actor> all;  // every actor so far, for ends and monitoring

  const JobContext& context() const { return *setup.context; }
};

JobActors begin_setup(caf::actor_system& system, RoleSetup setup);
// Spawns the rest and lets this node join the cluster, of which `linked` can be reached now. Returns those
// that are new.
std::vector<caf::actor> begin_training(caf::actor_system& system, JobActors& job,
                                       const std::shared_ptr<const data::Dataset>& dataset,
                                       const EngineBuilt& built, const std::vector<scheduler::Rank>& linked);

}  // namespace troupe::actors
