#include "actors/node/node.hpp"

#include <algorithm>

#include <caf/actor_system.hpp>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node/node_state.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "kernels/base/cores.hpp"
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

// A question for a file of the dataset, or a piece of one.
bool is_data(const wire::Envelope& message) {
  return (message.has_fetch() && message.fetch().kind() == wire::BLOB_DATA) ||
         (message.has_piece() && message.piece().kind() == wire::BLOB_DATA);
}

EnvelopePtr status(const node_state& state) {
  wire::Envelope message = state.busy() ? envelope(state.context()) : wire::Envelope();
  wire::NodeStatus& out = *message.mutable_node_status();
  out.set_state(state.preparers.empty() ? text(state.phase) : "preparing");
  out.set_step(state.view ? state.view->step : -1);
  if (state.busy() && state.view) out.set_leader(state.name_of(state.view->ballot.leader));
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

void node_state::send_peers(const EnvelopePtr& message) const {
  for (const scheduler::Rank peer : linked) send(name_of(peer), message);
}

void node_state::publish_event(wire::Event::Kind kind, const std::vector<std::string>& nodes,
                               const std::string& why) const {
  publish(share(event(kind, nodes, why)));
}

scheduler::Fence node_state::fence() const {
  return view ? scheduler::Fence{view->ballot, view->step} : scheduler::Fence{};
}

wire::Envelope node_state::event(wire::Event::Kind kind, const std::vector<std::string>& nodes,
                                 const std::string& why) const {
  wire::Envelope message = envelope(context(), fence());
  wire::Event& event = *message.mutable_event();
  event.set_kind(kind);
  event.set_unix_us(std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1));
  for (const std::string& node : nodes) event.add_nodes(node);
  event.set_why(wire_text(why));
  return message;
}

EnvelopePtr node_state::view_event() const {
  wire::Envelope message = event(wire::Event::VIEW, {}, "");
  for (const scheduler::Member& member : view->members) {
    message.mutable_event()->add_nodes(member.name);
    message.mutable_event()->add_addresses(member.address);
  }
  return share(std::move(message));
}

void node_state::on_view(Self self, const scheduler::View& begins) {
  const bool first = !view;
  view = begins;
  if (first && leaving) self->send(job->member, LeaveWanted{});
  if (leaving) bound_leaving();
  if (stopping) tell_leader_to_stop();
  for (const scheduler::Member& member : begins.members) meet_guest(member.rank, member.address);
  tell_orders();
  publish(view_event());
}

void node_state::meet_guest(scheduler::Rank guest, const std::string& address) {
  const config::ClusterConfig& cluster = setup.services->cluster;
  if (guest >= cluster.nodes.size() || !cluster.nodes[guest].guest) return;
  if (!cluster.dials(setup.services->rank, guest)) return;
  try {
    setup.services->links->dial(name_of(guest), address);
  } catch (const Error& problem) {  // in what a peer has said
    spdlog::warn("cannot dial {}: {}", name_of(guest), problem.what());
  }
}

// To peers, for whom the link alone is no sign.
EnvelopePtr node_state::out_of_it() const {
  wire::Envelope message = envelope(context());
  message.mutable_node_status()->set_state("stopping");
  return share(std::move(message));
}

EnvelopePtr node_state::verdict(int code, const std::string& error) const {
  wire::Envelope message = envelope(context(), fence());
  wire::JobEnded& out = *message.mutable_job_ended();
  out.set_exit_code(code);
  out.set_error(wire_text(error));
  out.set_step(result.step);
  out.set_digest(result.weights_digest);
  out.set_checkpoint(result.path);
  for (const uint64_t one : order.orders()) out.add_orders(one);
  return share(std::move(message));
}

// Which of several machines something is wrong with. The nodes of a local cluster share one, and its folders.
std::string node_state::in_own_name(const std::string& problem) const {
  const std::string& own = setup.services->node;
  const bool said = problem.starts_with("node ") || problem.starts_with(own + " ") ||
                    problem.find("lost node ") != problem.npos;
  const bool one_of_several = setup.services->cluster.nodes.size() > 1 && !setup.one_job;
  return said || !one_of_several ? problem : fmt::format("node {}: {}", own, problem);
}

// What whoever wants to join has to know.
EnvelopePtr node_state::cluster_info() const {
  wire::Envelope message;
  wire::ClusterInfo& info = *message.mutable_cluster_info();
  info.set_cluster_toml(config::to_toml(busy() ? context().cluster : setup.services->cluster));
  info.add_linked(setup.services->node);
  for (const scheduler::Rank rank : linked) info.add_linked(name_of(rank));
  return share(std::move(message));
}

bool node_state::others_take_part() const {
  if (!view) return false;
  return std::any_of(view->members.begin(), view->members.end(), [&](const scheduler::Member& member) {
    return member.rank != context().rank() && linked.contains(member.rank);
  });
}

void node_state::publish(const EnvelopePtr& message) const {
  for (const std::string& client : clients) send(client, message);
}

void node_state::on_message(Self self, const LinkMessage& message) {
  const wire::Envelope& body = *message.envelope;
  if (lingers_until) return;
  if (body.has_ask_status()) return send(message.peer, status(*this));
  if (body.has_ask_cluster()) return send(message.peer, cluster_info());
  if (body.has_start_job() && was_stopped(message)) return stop_too(message);
  if (body.has_start_job())
    return start(self, message.peer, body.start_job(), body.fence().ballot().number() > 0);
  if (body.has_prepare_start() && message.client) return begin_preparing(self, message);
  if (body.has_prepare_chunk() && message.peer == preparing_for)
    return self->send(preparers[next_preparer++ % preparers.size()], message);
  const bool waits = waiting && waiting->first == message.peer;
  if (body.has_stop_job() && message.client && (waits || !body.fence().job().empty()))
    return take_back(self, message);
  if (body.has_stop_job() && busy() && (message.client || same_job(context(), body)))
    return stop(self, {body.stop_job().why(), body.stop_job().now()});
  const auto rank = rank_of(message.peer);
  if (!rank) return;
  // A peer whose job this node has no part in hears so, and may offer it one.
  if (phase == Phase::idle && body.has_introduction()) return send(message.peer, status(*this));
  const bool admits = phase == Phase::training && (context().elastic() || !view);
  if (body.has_node_status() && admits && body.node_status().state() == text(Phase::idle)) {
    wire::Envelope offer = envelope(context(), fence());
    *offer.mutable_start_job() = order;
    offer.mutable_start_job()->clear_nodes();  // it knows addresses of its own
    offer.mutable_start_job()->set_resume(order.resume() || view.has_value());
    return send(message.peer, share(std::move(offer)));
  }
  if (!busy() || !same_job(context(), body)) return;
  if (!body.has_node_status()) return route(self, *rank, message.envelope);
  learn_orders({body.node_status().orders().begin(), body.node_status().orders().end()});
  if (body.node_status().state() == "stopping") takes_part_no_more(self, *rank);
}

// A peer has given up its own part of the job; its link stays.
void node_state::takes_part_no_more(Self self, scheduler::Rank peer) {
  if (phase == Phase::training || (phase == Phase::finishing && saving)) {
    self->send(job->membership, PeerUnlinked{peer, fmt::format("{} takes part no more", name_of(peer))});
    return self->send(job->membership, PeerLinked{peer});
  }
  if (phase == Phase::finishing) needs_no_audit(self, peer);
}

// It is gone, or has confirmed the final weights.
void node_state::needs_no_audit(Self self, scheduler::Rank peer) {
  if (unaudited.erase(peer) > 0 && unaudited.empty()) end(self, last_code, "");
}

// The loader cannot answer while it reads this node's own files, which may take minutes.
void node_state::ask_to_wait(scheduler::Rank peer, const wire::Fetch& wanted) const {
  wire::Envelope message = envelope(context());
  message.mutable_piece()->set_kind(wanted.kind());
  message.mutable_piece()->set_index(wanted.index());
  message.mutable_piece()->set_name(wanted.name());
  send(name_of(peer), share(std::move(message)));
}

void node_state::route(Self self, scheduler::Rank from, const EnvelopePtr& message) {
  const Post post{from, message};
  switch (message->body_case()) {
    case wire::Envelope::kAudit:
      return on_audit(self, from, message->audit());
    case wire::Envelope::kJobEnded:
      return on_verdict(self, from, *message);
    default:
      break;
  }
  if (is_data(*message)) {
    if (message->has_fetch() && !dataset && phase == Phase::starting) ask_to_wait(from, message->fetch());
    return self->send(job->loader, post);
  }
  if (message->has_guest_address())
    return meet_guest(message->guest_address().rank(), message->guest_address().address());
  if (!job->membership) return;  // setting up: peers say it again
  switch (message->body_case()) {
    case wire::Envelope::kClaim:
      return self->send(job->coordinator, post);
    case wire::Envelope::kGrant:
    case wire::Envelope::kSeal:
      return self->send(job->member, post);
    case wire::Envelope::kFetch:
      return self->send(job->source, post);
    case wire::Envelope::kPiece:
      return self->send(job->follower, post);
    default:
      return self->send(job->membership, post);
  }
}

void node_state::on_link_up(Self self, const LinkUp& up) {
  if (up.client) {
    clients.insert(up.peer);
    had_client = true;
    if (missed.erase(up.peer) > 0 && last_verdict) send(up.peer, last_verdict);
    if (phase == Phase::training && view) send(up.peer, view_event());  // it may have begun before the link
  } else if (const auto rank = rank_of(up.peer)) {
    linked.insert(*rank);
    if (busy() && job->membership) self->send(job->membership, PeerLinked{*rank});
  }
}

void node_state::on_link_down(Self self, const LinkDown& down) {
  if (down.replaced) {  // nobody who knows the newer one will ever let this one in
    spdlog::error("{}", down.why);
    return setup.ended(1);
  }
  if (!down.was_up) return;  // it could not be reached
  if (clients.erase(down.peer) > 0) client_gone(down);
  if (down.peer == preparing_for) end_preparing(self);
  const auto rank = rank_of(down.peer);
  if (!rank || linked.erase(*rank) == 0 || !busy()) return;
  if (phase != Phase::ending) {
    spdlog::warn("lost {}: {}", down.peer, down.why);
    publish_event(wire::Event::LOST, {down.peer}, down.why);
  }
  if (job->membership)
    self->send(job->membership, PeerUnlinked{*rank, fmt::format("lost node {}: {}", down.peer, down.why)});
  if (phase == Phase::finishing) needs_no_audit(self, *rank);
}

// A client closes its link when it has heard how the job has ended. One that was silent for too long, or that
// links anew, has not: a link that is lost around the end of a job may have been of no use since before it.
void node_state::client_gone(const LinkDown& down) {
  const bool lately = Clock::now() - verdict_at < config::client_patience(setup.services->cluster);
  if (last_verdict ? lately && !down.closed : busy()) {
    spdlog::info("lost {}, which has not heard how the job ends: {}", down.peer, down.why);
    missed.insert(down.peer);
  }
  if (lingers_until && missed.empty() && clients.empty()) setup.ended(last_code);
}

void node_state::on_actor_down(Self self, const caf::down_msg& down) {
  if (!busy()) return;
  --alive;
  if (phase != Phase::ending && down.reason)
    fail(self,
         {ErrorKind::protocol, fmt::format("a part of the node ended: {}", to_string(down.reason)), -1});
  if (phase == Phase::ending && alive == 0) all_gone(self);
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
      all_gone(self);  // some role is still in the middle of a slot; the process does not wait for it
    else
      fail(self, at_deadline);
  }
  if (stops_without_view_at && Clock::now() >= *stops_without_view_at) {
    stops_without_view_at.reset();
    give_up_waiting(self);
  }
  if (lingers_until && Clock::now() >= *lingers_until) setup.ended(last_code);
  const bool orphan = setup.one_job && phase == Phase::idle && clients.empty() && !lingers_until &&
                      (had_client || Clock::now() - born > kFirstClientPatience);
  if (orphan) setup.ended(1);
}

namespace {

node_actor::behavior_type node(node_state::Self self, NodeSetup setup) {
  use_exception_handler(self);
  self->attach_functor([ended = setup.ended](const caf::error& reason) {
    spdlog::error("the actor of this node has ended: {}", to_string(reason));
    ended(1);
  });
  self->state.setup = std::move(setup);
  self->set_down_handler([self](const caf::down_msg& down) { self->state.on_actor_down(self, down); });
  self->delayed_send(self, kTick, Tick{});
  return {
      [self](const JobFailed& failure) { self->state.fail(self, failure); },
      [self](const StepsDone& done) { self->state.steps_done(self, done); },
      [self](const Publish& report) { self->state.publish(report.envelope); },
      [self](const scheduler::BeginView& begins) { self->state.on_view(self, begins.view); },
      [self](scheduler::EveryoneLeft) { self->state.everyone_left(self); },
      [self](ReadyToLeave) { self->state.ready_to_leave(); },
      [self](PartEnded) { self->state.part_ended(self); },
      [self](const LinkMessage& message) { self->state.on_message(self, message); },
      [self](const LinkUp& up) { self->state.on_link_up(self, up); },
      [self](const LinkDown& down) { self->state.on_link_down(self, down); },
      [self](const StopWanted& wanted) {  // from a signal to this process
        self->state.leave_after = true;
        self->state.leave(self, wanted);
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
