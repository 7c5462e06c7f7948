// What the node actor remembers, and what it does with each event. Private to node*.cpp.
#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/job_actors.hpp"
#include "actors/node.hpp"
#include "comm/messages.pb.h"

namespace troupe::actors {

struct node_state {
  node_state() = default;
  static inline const char* name = "node";
  using Self = node_actor::stateful_pointer<node_state>;
  using Clock = std::chrono::steady_clock;
  enum class Phase : uint8_t { idle = 1, starting, training, finishing, ending };

  // --- node.cpp: what arrives ---
  void on_message(Self self, const LinkMessage& message);
  void on_link_up(const LinkUp& up);
  void on_link_down(Self self, const LinkDown& down);
  void on_actor_down(Self self, const caf::down_msg& down);
  void on_tick(Self self);
  void begin_preparing(Self self, const LinkMessage& message);
  void end_preparing(Self self);

  // --- node_job.cpp: the life of a job ---
  void start(Self self, const std::string& client, const wire::StartJob& order);
  void train(Self self, const std::shared_ptr<TrainEngine>& engine);
  void stop(Self self, const StopWanted& wanted);
  void fail(Self self, const JobFailed& failure);
  void steps_done(Self self, const StepsDone& done);
  void saved(Self self, const Saved& result);
  void on_leaders_verdict(Self self, const wire::JobEnded& verdict);
  void on_audit(Self self, scheduler::Rank from, const std::string& hash);
  void end(Self self, int code, const std::string& error);
  void all_gone();

  // --- small things ---
  const JobContext& context() const { return job->context(); }
  bool busy() const { return phase != Phase::idle; }  // with a job
  std::optional<scheduler::Rank> rank_of(const std::string& node) const;
  void send(const std::string& node, const EnvelopePtr& message) const;
  void send_members(const EnvelopePtr& message) const;
  void publish(const EnvelopePtr& message) const;
  EnvelopePtr verdict(int code, const std::string& error) const;
  void set_deadline(std::chrono::milliseconds patience, JobFailed then);

  NodeSetup setup;
  std::set<std::string> clients;  // linked now
  bool had_client = false;
  Phase phase = Phase::idle;
  std::string preparing_for;  // the client whose dataset is being prepared
  std::vector<preparer_actor> preparers;
  size_t next_preparer = 0;
  std::optional<JobActors> job;
  std::shared_ptr<const data::Dataset> dataset;
  size_t alive = 0;  // actors of the job that have not ended
  bool stopping = false, told_by_leader = false;
  bool leave_after = false;  // told by a signal: end with the job
  int last_code = 0;
  Saved result;                                                   // of the job, when it ends well
  std::optional<std::pair<std::string, wire::StartJob>> waiting;  // a client's next order, while a job ends
  std::set<scheduler::Rank> audited;  // members whose weights are those of the leader
  std::optional<Clock::time_point> deadline;
  JobFailed at_deadline;
  Clock::time_point born = Clock::now();
};
static_assert(!std::is_aggregate_v<node_state>);

}  // namespace troupe::actors
