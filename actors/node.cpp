#include "actors/node.hpp"

#include <caf/actor_system.hpp>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node_state.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "kernels/base/version.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{100};
constexpr std::chrono::seconds kFirstClientPatience{60};  // of a node that lives for one job

const char* text(node_state::Phase phase) {
  switch (phase) {
    case node_state::Phase::idle:
      return "idle";
    case node_state::Phase::starting:
      return "starting";
    case node_state::Phase::training:
      return "training";
    case node_state::Phase::finishing:
    case node_state::Phase::ending:
      return "stopping";
  }
  return "idle";
}

EnvelopePtr status(const node_state& state) {
  wire::Envelope message;
  wire::NodeStatus& out = *message.mutable_node_status();
  out.set_state(state.preparers.empty() ? text(state.phase) : "preparing");
  out.set_step(-1);
  out.set_leader(state.setup.services->cluster.nodes.at(kLeader).name);
  out.set_version(std::string(kVersion));
  out.set_process_id(uint32_t(getpid()));
  return share(std::move(message));
}

}  // namespace

std::optional<scheduler::Rank> node_state::rank_of(const std::string& node) const {
  const auto& nodes = setup.services->cluster.nodes;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (nodes[i].name == node) return scheduler::Rank(i);
  return std::nullopt;
}

void node_state::send(const std::string& node, const EnvelopePtr& message) const {
  if (setup.services->links->send(node, *message) == comm::Sent::busy)
    spdlog::warn("the link to {} is full: dropped a {}", node, wire::kind_name(*message));
}

void node_state::send_members(const EnvelopePtr& message) const {
  for (size_t i = 0; i < context().cluster.nodes.size(); ++i)
    if (i != context().rank()) send(context().cluster.nodes[i].name, message);
}

void node_state::publish(const EnvelopePtr& message) const {
  for (const std::string& client : clients) send(client, message);
}

void node_state::on_message(Self self, const LinkMessage& message) {
  const wire::Envelope& body = *message.envelope;
  if (body.has_ask_status()) return send(message.peer, status(*this));
  if (body.has_start_job() && message.client) return start(self, message.peer, body.start_job());
  if (body.has_prepare_start() && message.client) return begin_preparing(self, message);
  if (body.has_prepare_chunk() && message.peer == preparing_for)
    return self->send(preparers[next_preparer++ % preparers.size()], message);
  if (body.has_stop_job() && busy()) return stop(self, {body.stop_job().why(), body.stop_job().now()});
  const auto rank = rank_of(message.peer);
  if (!busy() || !rank || !same_job(context(), body)) return;  // of an earlier job, or of nobody
  const Post post{*rank, message.envelope};
  if (body.has_claim() && job->coordinator) return self->send(job->coordinator, post);
  if ((body.has_grant() || body.has_seal()) && job->member) return self->send(job->member, post);
  if ((body.has_join() || body.has_view()) && job->membership) return self->send(job->membership, post);
  if (body.has_suspect() && context().leads()) {
    const scheduler::Rank peer = body.suspect().peer();
    return fail(self, {ErrorKind::peer_lost, body.suspect().why(), int64_t(peer)});
  }
  if (body.has_audit() && context().leads()) return on_audit(self, *rank, body.audit().hash());
  if (!body.has_job_ended()) return;
  if (*rank == kLeader) return on_leaders_verdict(self, body.job_ended());
  if (body.job_ended().exit_code() != 0)
    end(self, body.job_ended().exit_code(), fmt::format("{}: {}", message.peer, body.job_ended().error()));
}

void node_state::on_link_up(const LinkUp& up) {
  if (!up.client) return;
  clients.insert(up.peer);
  had_client = true;
}

void node_state::on_link_down(Self self, const LinkDown& down) {
  clients.erase(down.peer);
  if (down.peer == preparing_for) end_preparing(self);
  if (!busy() || !down.was_up || phase == Phase::ending) return;
  const auto rank = rank_of(down.peer);
  if (!rank || (!context().leads() && *rank != kLeader) || audited.contains(*rank)) return;
  const scheduler::Failure lost = scheduler::lost_node(down.peer, down.why);
  fail(self, {ErrorKind::peer_lost, lost.message, -1});
}

void node_state::on_actor_down(Self self, const caf::down_msg& down) {
  if (!busy()) return;
  --alive;
  if (phase != Phase::ending && down.reason)
    fail(self,
         {ErrorKind::protocol, fmt::format("a part of the node ended: {}", to_string(down.reason)), -1});
  if (phase == Phase::ending && alive == 0) all_gone();
}

void node_state::begin_preparing(Self self, const LinkMessage& message) {
  if (busy() || (!preparers.empty() && preparing_for != message.peer)) {
    wire::Envelope refusal;
    refusal.mutable_job_ended()->set_exit_code(1);
    refusal.mutable_job_ended()->set_error(fmt::format("{} is busy with other work", setup.services->node));
    return send(message.peer, share(std::move(refusal)));
  }
  end_preparing(self);
  preparing_for = message.peer;
  spdlog::info("prepares documents for {}", message.peer);
  const int64_t threads = setup.services->cluster.nodes.at(setup.services->rank).threads;
  const uint32_t workers = threads > 0 ? uint32_t(threads) : usable_cores();
  for (uint32_t i = 0; i < workers; ++i)
    preparers.push_back(spawn_preparer(self->system(), setup.services->links, message.envelope));
}

void node_state::end_preparing(Self self) {
  for (const preparer_actor& preparer : preparers) self->send_exit(preparer, caf::exit_reason::user_shutdown);
  preparers.clear();
  preparing_for.clear();
}

void node_state::set_deadline(std::chrono::milliseconds patience, JobFailed then) {
  deadline = Clock::now() + patience;
  at_deadline = std::move(then);
}

void node_state::on_tick(Self self) {
  if (deadline && Clock::now() >= *deadline) {
    deadline.reset();
    if (phase == Phase::ending)
      all_gone();  // some role is still in the middle of a slot; the process does not wait for it
    else
      fail(self, at_deadline);
  }
  if (phase == Phase::idle && waiting) {
    const auto [client, order] = *std::exchange(waiting, std::nullopt);
    start(self, client, order);
  }
  const bool orphan = setup.one_job && phase == Phase::idle && clients.empty() &&
                      (had_client || Clock::now() - born > kFirstClientPatience);
  if (orphan) setup.ended(1);
}

namespace {

node_actor::behavior_type node(node_state::Self self, NodeSetup setup) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->set_down_handler([self](const caf::down_msg& down) { self->state.on_actor_down(self, down); });
  self->delayed_send(self, kTick, Tick{});
  return {
      [self](const JobFailed& failure) { self->state.fail(self, failure); },
      [self](const StepsDone& done) { self->state.steps_done(self, done); },
      [self](const Publish& report) { self->state.publish(report.envelope); },
      [self](const LinkMessage& message) { self->state.on_message(self, message); },
      [self](const LinkUp& up) { self->state.on_link_up(up); },
      [self](const LinkDown& down) { self->state.on_link_down(self, down); },
      [self](const StopWanted& wanted) {  // from a signal to this process
        self->state.leave_after = true;
        self->state.stop(self, wanted);
      },
      [self](Tick) {
        self->state.on_tick(self);
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

node_actor spawn_node(caf::actor_system& system, NodeSetup setup) {
  return system.spawn(node, std::move(setup));
}

}  // namespace troupe::actors
