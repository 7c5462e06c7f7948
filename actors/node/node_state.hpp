// What the node actor remembers, and what it does with each event. Private to node*.cpp.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/node/job_actors.hpp"
#include "actors/node/node.hpp"
#include "actors/node/node_decisions.hpp"
#include "actors/node_lock.hpp"
#include "comm/messages.pb.h"

namespace troupe::actors {

struct node_state {
  node_state() = default;
  static inline const char* name = "node";
  using Self = node_actor::stateful_pointer<node_state>;
  using Clock = std::chrono::steady_clock;
  using Phase = JobPhase;

  // --- node.cpp: what arrives ---
  void on_message(Self self, const LinkMessage& message);
  void on_link_up(Self self, const LinkUp& up);
  void on_link_down(Self self, const LinkDown& down);
  void client_gone(const LinkDown& down);
  void on_actor_down(Self self, const caf::down_msg& down);
  void on_tick(Self self);
  void route(Self self, scheduler::Rank from, const EnvelopePtr& message);
  void ask_to_wait(scheduler::Rank peer, const wire::Fetch& wanted) const;
  void takes_part_no_more(Self self, scheduler::Rank peer);
  void needs_no_audit(Self self, scheduler::Rank peer);
  void begin_preparing(Self self, const LinkMessage& message);
  void end_preparing(Self self);

  // --- node_job.cpp: the life of a job ---
  // `from` is a client, or a node that takes part already, in a job that has begun or not.
  void start(Self self, const std::string& from, const wire::StartJob& order, bool has_begun = false);
  OrderFate fate_of_order(const std::string& from, const wire::StartJob& order) const;
  void begin_job(Self self, const std::string& from, const wire::StartJob& order,
                 const JobContextPtr& job_of_order, bool has_begun);
  void set_up(Self self, const JobContextPtr& job_of_order);
  std::function<void(const caf::error&)> report_silence_of(Self self, const char* whom) const;
  void refuse(const std::string& to, const JobFailed& why) const;
  void give_up_waiting(Self self);  // for the first view
  void learn_orders(const std::vector<uint64_t>& more);
  void tell_orders() const;
  void remember_stopped();
  bool was_stopped(const LinkMessage& offer) const;
  void stop_too(const LinkMessage& offer) const;
  void take_back(Self self, const LinkMessage& message);
  void train(Self self, EngineBuilt built);
  void stop(Self self, const StopWanted& wanted);
  void tell_leader_to_stop() const;
  void leave(Self self, const StopWanted& wanted);
  void leave_at_once(Self self);
  void bound_leaving();
  void ready_to_leave();
  void part_ended(Self self);
  void on_view(Self self, const scheduler::View& begins);
  void meet_guest(scheduler::Rank guest, const std::string& address);
  void fail(Self self, const JobFailed& failure);
  PartOfJob part_of_job(const JobFailed& failure) const;
  void end_own_part(Self self, int code, const std::string& why);
  void rest();
  void rejoin(Self self, const std::string& why);
  void steps_done(Self self, const StepsDone& done);
  void everyone_left(Self self);
  void save_final(Self self, int64_t step);
  void begin_finishing();
  void saved(Self self, const Saved& result);
  void on_verdict(Self self, scheduler::Rank from, const wire::Envelope& message);
  void confirm(const std::string& from, const Saved& own) const;
  void on_audit(Self self, scheduler::Rank from, const wire::Audit& audit);
  void end(Self self, int code, const std::string& error);
  void end_roles(Self self);
  void refuse_waiting(const JobFailed& why);
  void all_gone(Self self);

  // --- small things ---
  const JobContext& context() const { return job->context(); }
  bool busy() const { return phase != Phase::idle; }  // with a job
  std::optional<scheduler::Rank> rank_of(const std::string& node) const;
  const std::string& name_of(scheduler::Rank rank) const {
    return setup.services->cluster.nodes.at(rank).name;
  }
  bool others_take_part() const;  // members of the view that are linked now
  void send(const std::string& node, const EnvelopePtr& message) const;
  void send_peers(const EnvelopePtr& message) const;
  void publish(const EnvelopePtr& message) const;
  EnvelopePtr out_of_it() const;
  EnvelopePtr verdict(int code, const std::string& error) const;
  std::string in_own_name(const std::string& problem) const;
  void publish_event(wire::Event::Kind kind, const std::vector<std::string>& nodes,
                     const std::string& why) const;
  scheduler::Fence fence() const;  // of the newest view
  wire::Envelope event(wire::Event::Kind kind, const std::vector<std::string>& nodes,
                       const std::string& why) const;
  EnvelopePtr view_event() const;
  EnvelopePtr cluster_info() const;
  void set_deadline(std::chrono::milliseconds patience, JobFailed then);

  NodeSetup setup;
  std::set<std::string> clients;     // linked now
  std::set<scheduler::Rank> linked;  // nodes
  bool had_client = false;
  std::set<std::string> missed;  // clients that were lost before they had heard how the job ended
  EnvelopePtr last_verdict;      // of the job, for those of them that come back
  Clock::time_point verdict_at{};
  std::optional<Clock::time_point> lingers_until;  // for clients, before the process ends
  Phase phase = Phase::idle;
  uint64_t parts = 0;  // of jobs that have begun here: what one of before still answers counts for nothing
  std::string preparing_for;  // the client whose dataset is being prepared
  std::vector<preparer_actor> preparers;
  size_t next_preparer = 0;
  std::optional<JobActors> job;
  std::optional<NodeLock> lock;         // of the job's --out
  wire::StartJob order;                 // of the job; its `orders` are all by which it is known
  std::string ordered_by;               // the client that may take it back
  std::deque<uint64_t> stopped_orders;  // of jobs that were stopped, newest last
  std::optional<scheduler::View> view;  // the newest that this node knows
  std::shared_ptr<const data::Dataset> dataset;
  size_t alive = 0;           // actors of the job that have not ended
  bool joining = false;       // a job that others have begun, or will without this node's say
  bool others_began = false;  // when this node was offered it
  bool stopping = false;
  bool told = false;         // by a peer how the job ended
  bool leaving = false;      // asked by a signal to leave the job
  bool saving = false;       // the job's last state, which a leader may still have to come to
  bool rejoining = false;    // when the roles have ended, take part anew
  bool leave_after = false;  // told by a signal: end with the job
  int last_code = 0;
  Saved result;                                                   // of the job, when it ends well
  std::optional<std::pair<std::string, wire::StartJob>> waiting;  // a client's next order, while a job ends
  Clock::time_point waits_until{};
  std::set<scheduler::Rank> unaudited;  // members that have not confirmed the final weights yet
  std::optional<Clock::time_point> stops_without_view_at;  // asked to stop or to leave before the first view
  std::optional<Clock::time_point> deadline;
  JobFailed at_deadline;
  std::chrono::seconds pause{0};  // the last between a part that has failed and heed of peers' offers
  Clock::time_point rests_until{};
  Clock::time_point born = Clock::now();
};
static_assert(!std::is_aggregate_v<node_state>);

}  // namespace troupe::actors
