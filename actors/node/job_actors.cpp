#include "actors/node/job_actors.hpp"

#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/engines/engine_setup.hpp"
#include "actors/engines/train_engine.hpp"

namespace troupe::actors {

namespace {

// What each role of another node is reached by. The proxies carry all kinds of posts; the node at the other
// end hands them to the right role.
std::map<scheduler::Rank, post_actor> spawn_proxies(caf::actor_system& system, JobActors& job) {
  const JobContext& context = job.context();
  std::map<scheduler::Rank, post_actor> proxies;
  for (size_t i = 0; i < context.cluster.nodes.size(); ++i) {
    const auto rank = scheduler::Rank(i);
    if (rank == context.rank()) continue;
    proxies[rank] = system.spawn(proxy, job.setup.context, context.cluster.nodes[i].name);
    job.all.push_back(caf::actor_cast<caf::actor>(proxies[rank]));
  }
  return proxies;
}

template <class... Handles>
void remember(JobActors& job, const Handles&... handles) {
  (job.all.push_back(caf::actor_cast<caf::actor>(handles)), ...);
}

}  // namespace

JobActors begin_setup(caf::actor_system& system, RoleSetup setup) {
  JobActors job;
  job.setup = std::move(setup);
  job.ring = std::make_shared<RingSession>(job.setup.context);
  job.proxies = spawn_proxies(system, job);
  job.loader = spawn_loader(system, job.setup, job.proxies);
  job.aggregator = spawn_aggregator(system, job.setup, job.ring);
  remember(job, job.loader, job.aggregator);
  return job;
}

std::vector<caf::actor> begin_training(caf::actor_system& system, JobActors& job,
                                       const std::shared_ptr<const data::Dataset>& dataset,
                                       const EngineBuilt& built, const std::vector<scheduler::Rank>& linked) {
  const std::shared_ptr<TrainEngine>& engine = built.engine;
  const size_t before = job.all.size();
  const JobContext& context = job.context();
  const auto info =
      std::make_shared<const model::CheckpointInfo>(checkpoint_info(context, engine->job(), *dataset));
  for (uint32_t i = 0; i < context.workers; ++i) {
    job.trainers.push_back(spawn_trainer(system, job.setup, engine, i));
    remember(job, job.trainers.back());
  }
  job.monitor = spawn_monitor(system, job.setup, dataset);
  job.evaluator = spawn_evaluator(system, job.setup, job.monitor);
  job.checkpointer = spawn_checkpointer(system, job.setup, info);
  remember(job, job.monitor, job.evaluator, job.checkpointer);

  const std::map<scheduler::Rank, post_actor>& proxies = job.proxies;
  job.coordinator = spawn_coordinator(system, job.setup);
  std::map<scheduler::Rank, post_actor> coordinators = proxies, members = proxies;
  coordinators[context.rank()] = job.coordinator;
  job.member =
      spawn_member(system, job.setup, {std::move(coordinators), job.loader, job.aggregator, job.trainers},
                   job.ring, engine->state().step, engine->chain());
  members[context.rank()] = job.member;
  job.state_writer = spawn_state_writer(system, job.setup, info);
  job.source = spawn_source(system, job.setup, proxies, job.aggregator, job.state_writer);
  job.follower = spawn_follower(system, job.setup, proxies, job.member, job.monitor);
  job.membership = spawn_membership(
      system, job.setup, {proxies, job.aggregator, job.member, job.monitor, job.coordinator, job.follower});
  remember(job, job.coordinator, job.member, job.state_writer, job.source, job.follower, job.membership);

  // Those who need one another are introduced by messages.
  caf::anon_send(job.coordinator, MeetMembers{std::move(members)});
  caf::anon_send(job.coordinator, TellMembership{job.membership});
  caf::anon_send(job.member, TellMembership{job.membership});
  caf::anon_send(job.aggregator, TakePart{job.trainers, job.member, job.membership, job.evaluator,
                                          job.checkpointer, job.source});
  caf::anon_send(job.membership, JoinCluster{fingerprint_text(context, *dataset, *engine),
                                             engine->state().step, linked, built.broken});
  return {job.all.begin() + std::ptrdiff_t(before), job.all.end()};
}

}  // namespace troupe::actors
