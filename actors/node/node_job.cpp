// How a job begins on a node, and how the node is asked to stop it or to leave it.
#include <algorithm>

#include <caf/actor_system.hpp>
#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/job_start.hpp"
#include "actors/node/node_state.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::seconds kLastJobPatience{60};  // of the next order with them
constexpr std::chrono::seconds kLeavePatience{30};
constexpr std::chrono::seconds kFirstViewPatience{3};  // of a node that is to stop or to leave
constexpr size_t kStoppedMax = 64;  // orders of jobs that were stopped, which are remembered

}  // namespace

void node_state::refuse(const std::string& to, const JobFailed& why) const {
  spdlog::warn("refuses a job that {} has ordered: {}", to, why.message);
  wire::Envelope message;
  message.mutable_job_ended()->set_exit_code(exit_code_of(why.kind));
  message.mutable_job_ended()->set_error(wire_text(in_own_name(why.message)));
  send(to, share(std::move(message)));
}

OrderFate node_state::fate_of_order(const std::string& from, const wire::StartJob& start) const {
  OrderSeen seen;
  seen.phase = rejoining ? Phase::training : phase;
  seen.by_client = !rank_of(from).has_value();
  seen.same = start.job_toml() == order.job_toml() && start.out_folder() == order.out_folder();
  seen.prepares = !preparers.empty();
  seen.heeds_offers = !leave_after && Clock::now() >= rests_until;
  seen.may_wait = !setup.one_job && !leave_after && !waiting;
  return fate_of(seen);
}

void node_state::start(Self self, const std::string& from, const wire::StartJob& start, bool has_begun) {
  switch (fate_of_order(from, start)) {
    case OrderFate::ignored:
      return;
    case OrderFate::taken_over:
      ordered_by = from;
      joining = others_began;
      return learn_orders({start.orders().begin(), start.orders().end()});
    case OrderFate::followed:  // what the client was told before its order counts for nothing
      learn_orders({start.orders().begin(), start.orders().end()});
      if (view) send(from, view_event());
      return;
    case OrderFate::waits:
      spdlog::info("the job that {} has ordered waits until the last one has ended", from);
      waiting = {from, start};
      waits_until = Clock::now() + kLastJobPatience;
      return;
    case OrderFate::refused:
      return refuse(
          from, {ErrorKind::protocol, fmt::format("{} is busy with another job", setup.services->node), -1});
    case OrderFate::begins:
      break;
  }
  JobContextPtr job_of_order;
  try {
    job_of_order = job_context(setup.services, start);
    lock.emplace(job_of_order->out_folder, job_of_order->node());
  } catch (...) {
    if (rank_of(from)) rest();
    return refuse(from, current_failure());
  }
  begin_job(self, from, start, job_of_order, has_begun);
}

// Nothing of the job before it counts any more.
void node_state::begin_job(Self self, const std::string& from, const wire::StartJob& start,
                           const JobContextPtr& job_of_order, bool has_begun) {
  ++parts;
  const bool client = !rank_of(from).has_value();
  order = start;
  order.clear_orders();
  learn_orders({start.orders().begin(), start.orders().end()});
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
  set_up(self, job_of_order);
}

void node_state::set_up(Self self, const JobContextPtr& job_of_order) {
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
  const auto silence = report_silence_of(self, "setup");
  self->request(job->loader, kSetupPatience, OpenDataset{})
      .then(
          [this, self, silence, of = parts](const DatasetOpened& opened) {
            if (of != parts || phase != Phase::starting) return;
            dataset = opened.dataset;
            self->request(job->aggregator, kSetupPatience, BuildEngine{dataset})
                .then(
                    [this, self, of](const EngineBuilt& built) {
                      if (of == parts) train(self, built);
                    },
                    silence);
          },
          silence);
}

// A role that ends with a question unanswered says nothing: the one who asked hears of it when its patience
// is over, which may be in the middle of the next job.
std::function<void(const caf::error&)> node_state::report_silence_of(Self self, const char* whom) const {
  return [this, of = parts,
          report = report_silence(self, supervisor_actor(self), whom)](const caf::error& problem) {
    if (of == parts) report(problem);
  };
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
  remember_stopped();
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

// A client's order that has not begun here; or another node has refused it: then a job that this client did
// not order, though the same, goes on.
void node_state::take_back(Self self, const LinkMessage& message) {
  const std::string& why = message.envelope->stop_job().why();
  if (waiting && waiting->first == message.peer)
    return refuse_waiting({ErrorKind::cancelled, "stopped before the job began: " + why, -1});
  if (!busy() || ordered_by != message.peer || !same_job(context(), *message.envelope)) return;
  spdlog::info("asked to stop: {}", why);
  end(self, 130, "stopped: " + why);
}

void node_state::tell_leader_to_stop() const {
  if (!view || view->ballot.leader == context().rank()) return;
  wire::Envelope message = envelope(context());
  message.mutable_stop_job()->set_why("another node was asked to stop");
  send(name_of(view->ballot.leader), share(std::move(message)));
}

// --- by which orders a job is known ---

// Each client gives its order a number. A node may be given a job by two of them, or by one while its peers
// have it from another.
void node_state::learn_orders(const std::vector<uint64_t>& more) {
  for (const uint64_t one : more) {
    const auto& known = order.orders();
    if (std::find(known.begin(), known.end(), one) != known.end()) continue;
    if (known.size() < wire::kOrdersMax) order.add_orders(one);
  }
}

// So that whoever has been in a view with others knows their job by the same orders as they do.
void node_state::tell_orders() const {
  wire::Envelope message = envelope(context());
  message.mutable_node_status()->set_state("training");
  for (const uint64_t one : order.orders()) message.mutable_node_status()->add_orders(one);
  const EnvelopePtr shared = share(std::move(message));
  for (const scheduler::Member& member : view->members)
    if (member.rank != context().rank()) send(name_of(member.rank), shared);
}

void node_state::remember_stopped() {
  for (const uint64_t one : order.orders()) {
    if (std::find(stopped_orders.begin(), stopped_orders.end(), one) != stopped_orders.end()) continue;
    stopped_orders.push_back(one);
    if (stopped_orders.size() > kStoppedMax) stopped_orders.pop_front();
  }
}

// A peer that was away while its job was stopped offers it again. The same job that a client has ordered
// since then has an order that was not stopped.
bool node_state::was_stopped(const LinkMessage& offer) const {
  const auto& orders = offer.envelope->start_job().orders();
  const auto stopped = [&](uint64_t one) {
    return std::find(stopped_orders.begin(), stopped_orders.end(), one) != stopped_orders.end();
  };
  return phase == Phase::idle && rank_of(offer.peer) && !orders.empty() &&
         std::all_of(orders.begin(), orders.end(), stopped);
}

// It saves what it has come to, and tells those that it went on with.
void node_state::stop_too(const LinkMessage& offer) const {
  wire::Envelope message;
  message.mutable_fence()->set_job(offer.envelope->fence().job());
  message.mutable_stop_job()->set_why(fmt::format("the job was stopped while {} was away", offer.peer));
  send(offer.peer, share(std::move(message)));
}

// --- leaving ---

// This node's part ends at the next boundary of a step; the others go on.
void node_state::leave(Self self, const StopWanted& wanted) {
  if (phase == Phase::idle) return setup.ended(setup.one_job ? 130 : 0);
  if (phase == Phase::ending) {
    if (rejoining) publish_event(wire::Event::LEFT, {}, "");  // instead of taking part anew
    return;
  }
  if (wanted.now && phase == Phase::training && context().elastic() && others_take_part())
    return leave_at_once(self);
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

// Asked a second time. The others lose no more than by its death.
void node_state::leave_at_once(Self self) {
  spdlog::info("leaves the job at once");
  publish_event(wire::Event::LEFT, {}, "");
  send_peers(out_of_it());
  phase = Phase::ending;
  last_code = 130;
  end_roles(self);
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
  deadline.reset();
  if (!job->evaluator) return end_roles(self);
  // What it has committed is to be in its ledger.
  const auto go_on = [this, self, of = parts] {
    if (of == parts && phase == Phase::ending) end_roles(self);
  };
  self->request(job->evaluator, kReportPatience, FlushReports{})
      .then([go_on](const ReportsFlushed&) { go_on(); },
            [go_on](const caf::error& problem) {
              spdlog::warn("leaves without its last reports: {}", to_string(problem));
              go_on();
            });
}

}  // namespace troupe::actors
