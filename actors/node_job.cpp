#include <caf/actor_system.hpp>
#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node_state.hpp"
#include "actors/train_engine.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kVerdictPatience{
    1000};                                               // a member's, for the leader to judge a suspicion
constexpr std::chrono::milliseconds kEndPatience{1500};  // for the roles of a job to end
constexpr std::chrono::seconds kAuditPatience{60};

std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(char(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

EnvelopePtr refusal(const JobFailed& failure) {
  wire::Envelope message;
  message.mutable_job_ended()->set_exit_code(exit_code_of(failure.kind));
  message.mutable_job_ended()->set_error(failure.message);
  return share(std::move(message));
}

}  // namespace

void node_state::start(Self self, const std::string& client, const wire::StartJob& order) {
  // Clients hear of a job's end a little before its roles are gone: the next order waits for that.
  if (phase == Phase::ending && !setup.one_job && !leave_after && !waiting) {
    waiting = {client, order};
    return;
  }
  if (busy() || !preparers.empty())
    return send(client, refusal({ErrorKind::protocol,
                                 fmt::format("{} is busy with another job", setup.services->node), -1}));
  JobContextPtr job_of_order;
  try {
    job_of_order = job_context(setup.services, order);
  } catch (...) {
    return send(client, refusal(current_failure()));
  }
  phase = Phase::starting;
  stopping = told_by_leader = false;
  result = {};
  audited.clear();
  deadline.reset();
  spdlog::info("a job of {} steps for {} nodes", job_of_order->job.steps, job_of_order->cluster.nodes.size());
  const RoleSetup roles{job_of_order, supervisor_actor(self)};
  job = begin_setup(self->system(), roles);
  alive = job->all.size();
  for (const caf::actor& role : job->all) self->monitor(role);
  if (context().leads())
    for (size_t i = 0; i < context().cluster.nodes.size(); ++i)
      if (i != kLeader)
        setup.services->links->dial(context().cluster.nodes[i].name, context().cluster.nodes[i].address);
  const auto silence = report_silence(self, roles.supervisor, "setup");
  self->request(job->loader, kSetupPatience, OpenDataset{})
      .then(
          [this, self, silence](const DatasetOpened& opened) {
            if (phase != Phase::starting) return;
            dataset = opened.dataset;
            self->request(job->aggregator, kSetupPatience, BuildEngine{dataset})
                .then([this, self](const EngineBuilt& built) { train(self, built.engine); }, silence);
          },
          silence);
}

void node_state::train(Self self, const std::shared_ptr<TrainEngine>& engine) {
  if (phase != Phase::starting) return;
  phase = Phase::training;
  for (const caf::actor& role : begin_training(self->system(), *job, dataset, engine)) {
    self->monitor(role);
    ++alive;
  }
}

void node_state::stop(Self self, const StopWanted& wanted) {
  if (phase == Phase::idle) return setup.ended(setup.one_job ? 130 : 0);
  if (phase == Phase::ending) return;
  spdlog::info("asked to stop: {}", wanted.why);
  if (wanted.now) return end(self, 130, "stopped: " + wanted.why);
  if (!context().leads()) {
    wire::Envelope message = envelope(context());
    message.mutable_stop_job()->set_why(wanted.why);
    return send(context().name_of(kLeader), share(std::move(message)));
  }
  stopping = true;
  if (phase == Phase::starting) return end(self, 130, "stopped before the first step: " + wanted.why);
  self->send(job->coordinator, wanted);
}

// A member tells the leader whom it suspects and leaves it to judge; the leader, and a member whose leader is
// suspected, end the job.
void node_state::fail(Self self, const JobFailed& failure) {
  if (!busy() || phase == Phase::ending) return;
  spdlog::error("{}", failure.message);
  std::string message = failure.message;
  const bool named = failure.suspect >= 0 && size_t(failure.suspect) < context().cluster.nodes.size();
  if (named && message.find("lost node") == std::string::npos)
    message = scheduler::lost_node(context().name_of(scheduler::Rank(failure.suspect)), message).message;
  // Being cancelled by a peer is a failure here: only a stop that was asked for ends with 130.
  const int code = failure.kind == ErrorKind::cancelled ? 1 : exit_code_of(failure.kind);
  if (!named || context().leads() || failure.suspect == int64_t(kLeader) || deadline)
    return end(self, code, message);
  wire::Envelope report = envelope(context());
  report.mutable_suspect()->set_peer(uint32_t(failure.suspect));
  report.mutable_suspect()->set_why(message);
  send(context().name_of(kLeader), share(std::move(report)));
  set_deadline(kVerdictPatience, {failure.kind, message, -1});
}

void node_state::steps_done(Self self, const StepsDone& done) {
  if (phase != Phase::training) return;
  phase = Phase::finishing;
  spdlog::info("every node has committed step {}", done.step);
  self->request(job->aggregator, kWorkPatience, SaveFinal{true})
      .then([this, self](const Saved& written) { saved(self, written); },
            report_silence(self, supervisor_actor(self), "checkpointer"));
}

// On the leader: the members compare their weights with ours before anyone hears that the job is done.
void node_state::saved(Self self, const Saved& written) {
  if (phase != Phase::finishing) return;
  result = written;
  const int code = stopping && written.step < context().job.steps ? 130 : 0;
  last_code = code;
  if (context().alone()) return end(self, code, "");
  send_members(verdict(code, ""));
  set_deadline(kAuditPatience, {ErrorKind::timeout, "not every node has confirmed the final weights", -1});
}

void node_state::on_leaders_verdict(Self self, const wire::JobEnded& told) {
  if (phase == Phase::ending) return;
  told_by_leader = true;
  if (!told.error().empty() || phase != Phase::training) return end(self, told.exit_code(), told.error());
  phase = Phase::finishing;
  last_code = told.exit_code();
  self->request(job->aggregator, kWorkPatience, SaveFinal{false})
      .then(
          [this, self](const Saved& own) {
            if (phase != Phase::finishing) return;
            wire::Envelope answer = envelope(context());
            answer.mutable_audit()->set_hash(bytes_of_hex(own.weights_digest));
            send(context().name_of(kLeader), share(std::move(answer)));
            result = own;
            end(self, last_code, "");
          },
          report_silence(self, supervisor_actor(self), "aggregator"));
}

void node_state::on_audit(Self self, scheduler::Rank from, const std::string& hash) {
  if (phase != Phase::finishing) return;
  if (hash != bytes_of_hex(result.weights_digest))
    return fail(self, {ErrorKind::numeric,
                       fmt::format("the final weights of {} differ from those of {}", context().name_of(from),
                                   context().node()),
                       -1});
  audited.insert(from);
  if (audited.size() + 1 == context().cluster.nodes.size()) end(self, last_code, "");
}

EnvelopePtr node_state::verdict(int code, const std::string& error) const {
  wire::Envelope message = envelope(context());
  wire::JobEnded& out = *message.mutable_job_ended();
  out.set_exit_code(code);
  out.set_error(error.substr(0, 4000));
  out.set_step(result.step);
  out.set_digest(result.weights_digest);
  out.set_checkpoint(result.path);
  return share(std::move(message));
}

void node_state::end(Self self, int code, const std::string& error) {
  if (!busy() || phase == Phase::ending) return;
  phase = Phase::ending;
  last_code = code;
  const EnvelopePtr message = verdict(code, error);
  if (!error.empty() && context().leads()) send_members(message);
  if (!error.empty() && !context().leads() && !told_by_leader) send(context().name_of(kLeader), message);
  publish(message);
  spdlog::info("the job has ended with code {}{}{}", code, error.empty() ? "" : ": ", error);
  if (!error.empty()) job->ring->cancel(error);
  for (const caf::actor& role : job->all) self->send_exit(role, caf::exit_reason::user_shutdown);
  set_deadline(kEndPatience, {});
  if (alive == 0) all_gone();
}

void node_state::all_gone() {
  const bool clean = alive == 0;
  if (!clean && !setup.one_job && !leave_after)
    return set_deadline(kEndPatience, {});  // a node that stays: wait on
  deadline.reset();
  dataset.reset();
  job.reset();
  phase = Phase::idle;
  if (setup.one_job || leave_after) setup.ended(last_code);
}

}  // namespace troupe::actors
