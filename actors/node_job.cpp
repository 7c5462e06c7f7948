// How a job begins on a node, and how the node is asked to stop it or to leave it.
#include <caf/actor_system.hpp>
#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node_state.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::seconds kLastJobPatience{60};  // of the next order with them
constexpr std::chrono::seconds kLeavePatience{30};
constexpr std::chrono::seconds kFirstViewPatience{3};  // of a node that is to stop or to leave

}  // namespace

void node_state::refuse(const std::string& to, const JobFailed& why) const {
  spdlog::warn("refuses a job that {} has ordered: {}", to, why.message);
  wire::Envelope message;
  message.mutable_job_ended()->set_exit_code(exit_code_of(why.kind));
  message.mutable_job_ended()->set_error(wire_text(why.message));
  send(to, share(std::move(message)));
}

void node_state::start(Self self, const std::string& from, const wire::StartJob& start, bool has_begun) {
  const bool client = !rank_of(from);
  const bool rests = Clock::now() < rests_until;
  if (!client && (phase != Phase::idle || !preparers.empty() || leave_after || rests)) return;
  if (phase == Phase::starting || phase == Phase::training)
    if (start.job_toml() == order.job_toml() && start.out_folder() == order.out_folder()) {
      if (phase == Phase::starting) {  // a peer was faster than the client
        ordered_by = from;
        joining = others_began;
      } else if (view) {  // it follows a job, and what it was told before its order counts for nothing
        send(from, view_event());
      }
      return;
    }
  // Clients hear of a job's end a little before its roles are gone: the next order waits for that.
  if (phase == Phase::ending && !setup.one_job && !leave_after && !waiting) {
    waiting = {from, start};
    waits_until = Clock::now() + kLastJobPatience;
    return;
  }
  if (busy() || !preparers.empty())
    return refuse(
        from, {ErrorKind::protocol, fmt::format("{} is busy with another job", setup.services->node), -1});
  JobContextPtr job_of_order;
  try {
    job_of_order = job_context(setup.services, start);
  } catch (...) {
    if (!client) rest();
    return refuse(from, current_failure());
  }
  order = start;
  ordered_by = client ? from : "";
  phase = Phase::starting;
  joining = !client && start.resume();
  others_began = has_begun;
  stopping = told = leaving = rejoining = saving = false;
  view.reset();
  result = {};
  last_verdict.reset();
  if (client) {
    missed.clear();
    rests_until = {};
  }
  unaudited.clear();
  deadline.reset();
  stops_without_view_at.reset();
  spdlog::info("a job of {} steps, to begin with {} nodes", job_of_order->job.steps,
               job_of_order->awaited.size());
  const RoleSetup roles{job_of_order, supervisor_actor(self)};
  job = begin_setup(self->system(), roles);
  alive = job->all.size();
  for (const caf::actor& role : job->all) self->monitor(role);
  try {
    for (size_t i = 0; i < context().cluster.listed().size(); ++i)
      if (context().cluster.dials(context().rank(), i) && !linked.contains(scheduler::Rank(i)))
        setup.services->links->dial(context().cluster.nodes[i].name, context().cluster.nodes[i].address);
  } catch (const Error&) {  // an address of the client's that this node's own security forbids
    return fail(self, current_failure());
  }
  const auto silence = report_silence(self, roles.supervisor, "setup");
  self->request(job->loader, kSetupPatience, OpenDataset{})
      .then(
          [this, self, silence](const DatasetOpened& opened) {
            if (phase != Phase::starting) return;
            dataset = opened.dataset;
            self->request(job->aggregator, kSetupPatience, BuildEngine{dataset})
                .then([this, self](const EngineBuilt& built) { train(self, built); }, silence);
          },
          silence);
}

void node_state::train(Self self, EngineBuilt built) {
  if (phase != Phase::starting) return;
  phase = Phase::training;
  spdlog::info("is set up, and waits for the first view");
  if (joining) built.broken.clear();  // the others have begun, or will without its say
  for (const caf::actor& role :
       begin_training(self->system(), *job, dataset, built, {linked.begin(), linked.end()})) {
    self->monitor(role);
    ++alive;
  }
}

// Whoever leads ends the job after this step; all are told, because anyone may come to lead, and all pass it
// on, because the leader may be out of the client's reach.
void node_state::stop(Self self, const StopWanted& wanted) {
  if (phase == Phase::idle || phase == Phase::ending || (stopping && !wanted.now)) return;
  spdlog::info("asked to stop: {}", wanted.why);
  if (wanted.now) return end(self, 130, "stopped: " + wanted.why);
  if (phase == Phase::starting && joining) {  // the others end the job
    leaving = true;
    return part_ended(self);
  }
  stopping = true;
  if (phase == Phase::starting) return end(self, 130, "stopped before the first step: " + wanted.why);
  if (!view) stops_without_view_at = Clock::now() + kFirstViewPatience;
  self->send(job->coordinator, wanted);
  tell_leader_to_stop();
}

// The others that it waits for may never come.
void node_state::give_up_waiting(Self self) {
  if (phase != Phase::training || view) return;
  if (leaving) return part_ended(self);
  end(self, 130, "stopped before this node took part");
}

// Another node has refused the order: a job that this client did not order, though the same, goes on.
void node_state::take_back(Self self, const LinkMessage& message) {
  if (waiting && waiting->first == message.peer)
    waiting.reset();
  else if (busy() && ordered_by == message.peer && same_job(context(), *message.envelope))
    stop(self, {message.envelope->stop_job().why(), true});
}

void node_state::tell_leader_to_stop() const {
  if (!view || view->ballot.leader == context().rank()) return;
  wire::Envelope message = envelope(context());
  message.mutable_stop_job()->set_why("another node was asked to stop");
  send(name_of(view->ballot.leader), share(std::move(message)));
}

// This node's part ends at the next boundary of a step; the others go on.
void node_state::leave(Self self, const StopWanted& wanted) {
  if (phase == Phase::idle) return setup.ended(setup.one_job ? 130 : 0);
  if (phase == Phase::ending) {
    if (rejoining) publish_event(wire::Event::LEFT, {}, "");  // instead of taking part anew
    return;
  }
  if (wanted.now || (phase != Phase::training && !joining)) return stop(self, wanted);
  if (!context().elastic()) {
    wire::Envelope message = envelope(context());
    message.mutable_stop_job()->set_why(wanted.why);
    send_peers(share(std::move(message)));
    return stop(self, wanted);
  }
  spdlog::info("leaves the job: {}", wanted.why);
  leaving = true;
  if (joining && !view) return part_ended(self);  // nobody counts on it yet
  if (view) {
    self->send(job->member, LeaveWanted{});
    return bound_leaving();
  }
  stops_without_view_at = Clock::now() + kFirstViewPatience;
}

// Its own step takes as long as it takes, and so does one more that the others need it for: what is bounded
// is how long they take to go on without it.
void node_state::bound_leaving() {
  if (phase != Phase::training) return;
  deadline.reset();
  if (!view->position(context().rank())) ready_to_leave();
}

void node_state::ready_to_leave() {
  if (phase != Phase::training || !leaving || !others_take_part()) return;
  set_deadline(kLeavePatience,
               {ErrorKind::timeout, "the others have not gone on without this node in time", -1});
}

void node_state::part_ended(Self self) {
  if (!leaving || (phase != Phase::training && phase != Phase::starting)) return;
  publish_event(wire::Event::LEFT, {}, "");
  phase = Phase::ending;
  last_code = 0;
  end_roles(self);
}

}  // namespace troupe::actors
