// The behaviours of a node's roles. Each is spawned by job_actors.cpp with what it needs; those marked
// detached own a thread, because they compute or wait for disks and networks.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <vector>

#include "actors/handles.hpp"
#include "actors/job_context.hpp"
#include "actors/roles/ring_session.hpp"
#include "model/checkpoint.hpp"

namespace troupe::actors {

// What every role gets.
struct RoleSetup {
  JobContextPtr context;
  supervisor_actor supervisor;
};

// Stands for a role on another node: sends each Post over the link to it.
post_actor::behavior_type proxy(post_actor::pointer self, JobContextPtr context, std::string node);

// Detached. Opens the dataset and hands out slots' samples, a few of them ahead of time. Takes files that are
// missing or damaged here from `peers`, and gives them those that they lack.
loader_actor spawn_loader(caf::actor_system& system, RoleSetup setup,
                          std::map<scheduler::Rank, post_actor> peers);

// Detached, one a worker: a loader of documents for a client that prepares a dataset. `start` is its
// PrepareStart.
preparer_actor spawn_preparer(caf::actor_system& system, std::shared_ptr<comm::LinkHub> links,
                              EnvelopePtr start);

// Detached, one a worker: runs slots and its share of a commit.
trainer_actor spawn_trainer(caf::actor_system& system, RoleSetup setup, std::shared_ptr<TrainEngine> engine,
                            uint32_t worker);

// Detached. Builds the engine, runs the ring, drives the commit over the trainers, takes snapshots.
aggregator_actor spawn_aggregator(caf::actor_system& system, RoleSetup setup,
                                  std::shared_ptr<RingSession> ring);

// Detached. Writes snapshots to OUT/checkpoints (on the leader) and keeps the newest few.
checkpointer_actor spawn_checkpointer(caf::actor_system& system, RoleSetup setup,
                                      std::shared_ptr<const model::CheckpointInfo> info);

// Turns totals over held-out slots into losses, and passes every step on to the monitor behind them.
evaluator_actor spawn_evaluator(caf::actor_system& system, RoleSetup setup, monitor_actor monitor);

// Detached, because it writes files: progress for clients and one line a report in OUT/train.log, on the leader; the
// ledger.
monitor_actor spawn_monitor(caf::actor_system& system, RoleSetup setup,
                            std::shared_ptr<const data::Dataset> dataset);

// Drives MemberRole: claims slots, has them run, reduced and committed, from view to view.
struct MemberPeers {
  std::map<scheduler::Rank, post_actor> coordinators;  // of every node that could lead
  loader_actor loader;
  aggregator_actor aggregator;
  std::vector<trainer_actor> trainers;
};
// `step` and `digest` are of the state that the node begins with.
member_actor spawn_member(caf::actor_system& system, RoleSetup setup, MemberPeers peers,
                          std::shared_ptr<RingSession> ring, int64_t step, std::string digest);

// Grants and seals, in the views that this node leads.
coordinator_actor spawn_coordinator(caf::actor_system& system, RoleSetup setup);

// Detached, because it writes files. Writes states for nodes that follow to OUT/transfer; what it has written is
// gone when it ends.
state_writer_actor spawn_state_writer(caf::actor_system& system, RoleSetup setup,
                                      std::shared_ptr<const model::CheckpointInfo> info);
// Detached, because it writes files. Gives x(step) and every R after it to nodes that follow.
source_actor spawn_source(caf::actor_system& system, RoleSetup setup,
                          std::map<scheduler::Rank, post_actor> followers, aggregator_actor aggregator,
                          state_writer_actor writer);
// Where the writer writes and the source reads, and where the source keeps totals.
std::filesystem::path offered_state_path(const JobContext& context);
std::filesystem::path offered_totals_path(const JobContext& context);
// Detached, because it writes files. Takes them, until this node is a member, and the ledger of the steps
// before.
follower_actor spawn_follower(caf::actor_system& system, RoleSetup setup,
                              std::map<scheduler::Rank, post_actor> sources, member_actor member,
                              monitor_actor monitor);

// Drives Membership: who is in the job and who leads it.
struct MembershipPeers {
  std::map<scheduler::Rank, post_actor> members;  // their membership, by rank; own entry unused
  aggregator_actor aggregator;
  member_actor member;
  monitor_actor monitor;
  coordinator_actor coordinator;
  follower_actor follower;
};
membership_actor spawn_membership(caf::actor_system& system, RoleSetup setup, MembershipPeers peers);

}  // namespace troupe::actors
