#include <algorithm>

#include <caf/actor_system.hpp>
#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node_state.hpp"
#include "actors/train_engine.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kEndPatience{1500};  // for the roles of a job to end
constexpr std::chrono::seconds kLastJobPatience{60};     // of the next order with them
constexpr std::chrono::seconds kAuditPatience{60};
constexpr std::chrono::seconds kLeavePatience{30};
constexpr std::chrono::seconds kFirstViewPatience{3};  // of a node that is to stop or to leave
constexpr std::chrono::seconds kRestMin{1}, kRestMax{60};

std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(char(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

// What is wrong with the job, not with this node.
bool ends_the_job(ErrorKind kind) {
  return kind == ErrorKind::numeric || kind == ErrorKind::protocol || kind == ErrorKind::usage ||
         kind == ErrorKind::version;
}

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

// While the last state is waited for, anyone may go, but no other view mends that a peer refuses this node.
// After that, who has confirmed the final weights may go before the others have.
bool node_state::may_go(const JobFailed& failure) const {
  if (saving) return failure.kind != ErrorKind::usage && failure.kind != ErrorKind::security;
  return !unaudited.contains(scheduler::Rank(failure.suspect));
}

void node_state::fail(Self self, const JobFailed& failure) {
  if (!busy() || phase == Phase::ending) return;
  if (phase == Phase::finishing && failure.suspect >= 0 && may_go(failure)) return;
  spdlog::error("{}", failure.message);
  std::string message = failure.message;
  const bool named = failure.suspect >= 0 && size_t(failure.suspect) < context().cluster.nodes.size();
  if (named && message.find("lost node") == std::string::npos)
    message = fmt::format("lost node {}: {}", context().name_of(scheduler::Rank(failure.suspect)), message);
  // Being cancelled by a peer is a failure here: only a stop that was asked for ends with 130.
  const int code = failure.kind == ErrorKind::cancelled ? 1 : exit_code_of(failure.kind);
  const bool goes_on =
      !failure.of_all && (joining || (phase == Phase::training && context().elastic() && others_take_part()));
  if (goes_on && phase == Phase::training && failure.kind == ErrorKind::corrupt) return rejoin(self, message);
  const bool joined = !joining || view;
  if (!goes_on || (joined && ends_the_job(failure.kind))) return end(self, code, message);
  // Only this node's part ends here: its disk, its memory.
  publish_event(wire::Event::FAILED, {}, message);
  send_peers(out_of_it());
  rest();
  phase = Phase::ending;
  last_code = code;
  end_roles(self);
}

// Its disk may still be full, and each part that it takes costs the others two views: it pauses before it
// heeds their offers again, longer each time that it has failed soon after a pause.
void node_state::rest() {
  const auto now = Clock::now();
  pause = now - rests_until < kRestMax ? std::clamp(2 * pause, kRestMin, kRestMax) : kRestMin;
  rests_until = now + pause;
  spdlog::warn("takes no part for {} s, unless a client asks", pause.count());
}

// What is in this node's memory is not to be trusted: it takes part anew, with a state from a peer.
void node_state::rejoin(Self self, const std::string& why) {
  spdlog::warn("takes the state from another node: {}", why);
  publish_event(wire::Event::HEALING, {}, why);
  send_peers(out_of_it());
  rejoining = true;
  last_code = 0;
  phase = Phase::ending;
  end_roles(self);
}

void node_state::steps_done(Self self, const StepsDone& done) {
  if (phase != Phase::training) return;
  spdlog::info("every node has committed step {}", done.step);
  self->send(job->follower, done);
  save_final(self, done.step);
}

void node_state::everyone_left(Self self) {
  if (phase != Phase::training) return;
  spdlog::info("no node stays in the job");
  stopping = true;
  save_final(self, 0);
}

void node_state::save_final(Self self, int64_t step) {
  begin_finishing();
  saving = true;
  self->request(job->aggregator, kWorkPatience, SaveFinal{true, step})
      .then([this, self](const Saved& written) { saved(self, written); },
            report_silence(self, supervisor_actor(self), "aggregator or checkpointer"));
}

// The bound of leaving is none of writing what the job has come to.
void node_state::begin_finishing() {
  phase = Phase::finishing;
  deadline.reset();
}

// On the leader: the members compare their weights with ours before anyone hears that the job is done.
void node_state::saved(Self self, const Saved& written) {
  if (phase != Phase::finishing) return;
  saving = false;
  result = written;
  const bool stopped = stopping && written.step != context().stop_at;
  last_code = stopped && written.step < context().job.steps ? 130 : 0;
  if (view)
    for (const scheduler::Member& member : view->members)
      if (member.rank != context().rank() && linked.contains(member.rank)) unaudited.insert(member.rank);
  send_peers(verdict(last_code, ""));
  if (unaudited.empty()) return end(self, last_code, "");
  set_deadline(kAuditPatience, {ErrorKind::timeout, "not every node has confirmed the final weights", -1});
}

// How the job has ended. Who was in no view of it gives up its own part alone, whatever it says.
void node_state::on_verdict(Self self, const std::string& from, const wire::Envelope& message) {
  const wire::JobEnded& verdict = message.job_ended();
  if (phase == Phase::ending) return;
  if (view && message.fence().ballot().number() == 0 && !verdict.error().empty()) return;
  told = true;
  if (!verdict.error().empty()) return end(self, verdict.exit_code(), verdict.error());
  if (phase == Phase::finishing && !saving) return;
  if (phase == Phase::starting) return end(self, verdict.exit_code(), "");
  if (saving) {  // the others have ended the job, while this leader was still to come as far
    result = {verdict.step(), verdict.checkpoint(), verdict.digest()};
    return end(self, verdict.exit_code(), "");
  }
  begin_finishing();
  last_code = verdict.exit_code();
  self->request(job->aggregator, kWorkPatience, SaveFinal{false})
      .then(
          [this, self, from, theirs = verdict](const Saved& own) {
            if (phase != Phase::finishing) return;
            confirm(from, own);
            if (own.step == theirs.step()) result = own;
            end(self, last_code, "");
          },
          report_silence(self, supervisor_actor(self), "aggregator"));
}

// To who said that the job is done, and to the leader: it is the one who waits for it, and another member may
// have been faster to tell than it was.
void node_state::confirm(const std::string& from, const Saved& own) const {
  wire::Envelope message = envelope(context());
  message.mutable_audit()->set_step(own.step);
  message.mutable_audit()->set_hash(bytes_of_hex(own.weights_digest));
  const EnvelopePtr answer = share(std::move(message));
  send(from, answer);
  const std::string leader = view ? name_of(view->ballot.leader) : from;
  if (leader != from && leader != context().node()) send(leader, answer);
}

// Who was still catching up, or had gone on without a leader that ended the job, has other weights.
void node_state::on_audit(Self self, scheduler::Rank from, const wire::Audit& audit) {
  if (phase != Phase::finishing) return;
  if (audit.step() == result.step && audit.hash() != bytes_of_hex(result.weights_digest))
    return fail(self, {ErrorKind::numeric,
                       fmt::format("the final weights of {} differ from those of {}", context().name_of(from),
                                   context().node()),
                       -1});
  needs_no_audit(self, from);
}

void node_state::end(Self self, int code, const std::string& error) {
  if (!busy() || phase == Phase::ending) return;
  phase = Phase::ending;
  last_code = code;
  const EnvelopePtr message = verdict(code, error);
  last_verdict = message;
  // Also the good end: whoever heard it first may be gone before it has told all.
  if (!told || error.empty()) send_peers(message);
  publish(message);
  spdlog::info("the job has ended with code {}{}{}", code, error.empty() ? "" : ": ", error);
  if (!error.empty()) job->ring->cancel(error);
  end_roles(self);
}

void node_state::end_roles(Self self) {
  job->ring->cancel("the part of this node has ended");
  for (const caf::actor& role : job->all) self->send_exit(role, caf::exit_reason::user_shutdown);
  set_deadline(kEndPatience, {});
  if (alive == 0) all_gone(self);
}

void node_state::refuse_waiting() {
  refuse(waiting->first,
         {ErrorKind::timeout,
          fmt::format("a part of the last job of {} has not ended; see its log, or start it again",
                      setup.services->node),
          -1});
  waiting.reset();
}

void node_state::all_gone(Self self) {
  const bool clean = alive == 0;
  if (!clean && (rejoining || (!setup.one_job && !leave_after))) {  // a node that stays: wait on
    if (waiting && Clock::now() > waits_until) refuse_waiting();
    return set_deadline(kEndPatience, {});
  }
  deadline.reset();
  dataset.reset();
  job.reset();
  phase = Phase::idle;
  if (std::exchange(rejoining, false) && !leave_after) {
    wire::StartJob again = order;
    again.set_resume(true);
    return start(self, setup.services->node, again, true);
  }
  if (!setup.one_job && !leave_after) return;
  // A client that stood still, or lost its way here, is to hear how the job has ended.
  if (!leave_after && last_verdict && !missed.empty())
    lingers_until = Clock::now() + config::client_patience(setup.services->cluster);
  else
    setup.ended(last_code);
}

}  // namespace troupe::actors
