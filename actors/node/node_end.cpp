// How a job, or this node's part of it, ends: failures, the last state, what the others say of it, and what
// comes after.
#include <algorithm>
#include <filesystem>

#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node/node_state.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kEndPatience{1500};  // for the roles of a job to end
constexpr std::chrono::seconds kAuditPatience{60};
constexpr std::chrono::seconds kRestMin{1}, kRestMax{60};

std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(char(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

}  // namespace

PartOfJob node_state::part_of_job(const JobFailed& failure) const {
  PartOfJob part;
  part.phase = phase;
  part.joining = joining;
  part.in_view = view.has_value();
  part.elastic = context().elastic();
  part.others = others_take_part();
  part.saving = saving;
  part.awaits_suspect = failure.suspect >= 0 && unaudited.contains(scheduler::Rank(failure.suspect));
  return part;
}

void node_state::fail(Self self, const JobFailed& failure) {
  if (!busy() || phase == Phase::ending) return;
  const FailureEnds ends = what_ends(failure, part_of_job(failure));
  if (ends == FailureEnds::nothing) return;
  spdlog::error("{}", failure.message);
  std::string message = failure.message;
  const bool named = failure.suspect >= 0 && size_t(failure.suspect) < context().cluster.nodes.size();
  if (named && message.find("lost node") == std::string::npos)
    message = fmt::format("lost node {}: {}", context().name_of(scheduler::Rank(failure.suspect)), message);
  // Being cancelled by a peer is a failure here: only a stop that was asked for ends with 130.
  const int code = failure.kind == ErrorKind::cancelled ? 1 : exit_code_of(failure.kind);
  if (ends == FailureEnds::its_state) return rejoin(self, message);
  if (ends == FailureEnds::its_part) return end_own_part(self, code, message);
  end(self, code, in_own_name(message));
}

void node_state::end_own_part(Self self, int code, const std::string& why) {
  publish_event(wire::Event::FAILED, {}, why);
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
      .then(
          [this, self, of = parts](const Saved& written) {
            if (of == parts) saved(self, written);
          },
          report_silence_of(self, "aggregator or checkpointer"));
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

// How the job has ended. Who was in no view of it gives up its own part alone, whatever it says; so does who
// was away, and comes to the stop of an order before ours.
void node_state::on_verdict(Self self, scheduler::Rank from, const wire::Envelope& message) {
  const wire::JobEnded& verdict = message.job_ended();
  if (phase == Phase::ending) return;
  if (view && message.fence().ballot().number() == 0 && !verdict.error().empty()) return;
  if (verdict.exit_code() == 130 && are_other_orders(verdict.orders(), order.orders())) {
    send(name_of(from), out_of_it());  // it is not to wait for our weights
    return takes_part_no_more(self, from);
  }
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
          [this, self, from, theirs = verdict, of = parts](const Saved& own) {
            if (of != parts || phase != Phase::finishing) return;
            confirm(name_of(from), own);
            if (own.step == theirs.step()) result = own;
            end(self, last_code, "");
          },
          report_silence_of(self, "aggregator"));
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
  if (code == 130 && error.empty()) remember_stopped();
  const EnvelopePtr message = verdict(code, error);
  last_verdict = message;
  verdict_at = Clock::now();
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

void node_state::refuse_waiting(const JobFailed& why) {
  refuse(waiting->first, why);
  waiting.reset();
}

void node_state::all_gone(Self self) {
  const bool clean = alive == 0;
  if (!clean && !leave_after && (rejoining || !setup.one_job)) {  // a node that stays: wait on
    if (waiting && Clock::now() > waits_until)
      refuse_waiting(
          {ErrorKind::timeout,
           fmt::format("a part of the last job of {} has not ended; see its log, or start it again",
                       setup.services->node),
           -1});
    return set_deadline(kEndPatience, {});
  }
  deadline.reset();
  if (!clean) {  // who would remove these at its end is still in the middle of something
    std::error_code none;
    std::filesystem::remove(offered_state_path(context()), none);
    std::filesystem::remove_all(offered_totals_path(context()), none);
  }
  dataset.reset();
  job.reset();
  if (clean) lock.reset();  // a process with a role that may still write is about to end
  phase = Phase::idle;
  if (std::exchange(rejoining, false) && !leave_after) {
    wire::StartJob again = order;
    again.set_resume(true);
    return start(self, setup.services->node, again, true);
  }
  if (!setup.one_job && !leave_after) {
    if (!waiting) return;
    const auto [client, next] = *std::exchange(waiting, std::nullopt);
    return start(self, client, next);
  }
  // A client that stands still, or has lost its way here, is to hear how the job has ended. Who has heard it
  // closes its link.
  const bool heard_by_all = missed.empty() && clients.empty();
  if (!leave_after && last_verdict && !heard_by_all)
    lingers_until = Clock::now() + config::client_patience(setup.services->cluster);
  else
    setup.ended(last_code);
}

}  // namespace troupe::actors
