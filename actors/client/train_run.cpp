#include "actors/client/train_run.hpp"

#include <algorithm>
#include <filesystem>

#include "actors/client/local_cluster.hpp"
#include "actors/client/stop_signals.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kPoll{20};
constexpr std::chrono::milliseconds kNowPatience{1500};  // after the second Ctrl-C
constexpr std::chrono::milliseconds kCheckpointPatience{
    60'000};  // for the node that wrote the last checkpoint
constexpr std::chrono::seconds kRestartPauseMin{1}, kRestartPauseMax{60};

}  // namespace

TrainRun::TrainRun(const TrainOptions& options, ClusterClient& client, const StopSignals& signals,
                   LocalCluster* local, const std::vector<std::string>& nodes)
    : options_(options),
      client_(client),
      signals_(signals),
      local_(local),
      progress_(Progress::form_for(options.json)),
      nodes_(nodes) {}

int TrainRun::follow() {
  start();
  while (true) {
    if (signals_.arrived()) stop();
    if (const auto event = client_.next(kPoll)) handle(*event);
    if (local_ != nullptr && options_.restart && expected_.digest().empty() && stops_ == 0) bring_back();
    if (local_ != nullptr && waits_ && !any_runs()) verdict_ = expected_;
    if (verdict_) return conclude(*verdict_);
    if (deadline_ && Clock::now() >= *deadline_) return conclude(expected_);
  }
}

// --- what it asks for ---

void TrainRun::start() {
  wire::Envelope message;
  wire::StartJob& order = *message.mutable_start_job();
  order.set_job_toml(config::canonical_text(options_.job));
  if (!options_.data.empty()) order.set_data_folder(std::filesystem::absolute(options_.data));
  order.set_out_folder(std::filesystem::absolute(options_.out));
  order.set_resume(options_.resume);
  order.set_stop_at(options_.stop_at);
  order.set_threads(uint32_t(options_.threads));
  order.set_transport(options_.transport);
  order.add_orders(new_order());
  for (const config::NodeConfig& node : client_.cluster().listed()) {
    if (!nodes_.takes_part(node.name)) continue;
    wire::NodeAddress& where = *order.add_nodes();
    where.set_name(node.name);
    where.set_address(node.address);
  }
  client_.send_all(message);
}

wire::Envelope TrainRun::stop_order() const {
  wire::Envelope message;
  message.mutable_stop_job()->set_why("Ctrl-C");
  message.mutable_stop_job()->set_now(stops_ > 1);
  return message;
}

void TrainRun::stop() {
  ++stops_;
  client_.send_all(stop_order());
  if (stops_ == 1) return progress_.say("stopping after this step; once more to leave at once");
  expected_.set_exit_code(130);
  expected_.set_error("stopped without a checkpoint");
  deadline_ = Clock::now() + kNowPatience;
}

// Who has taken the order is not to wait for who has refused it.
void TrainRun::take_back(const std::string& why) {
  wire::Envelope message;
  message.mutable_fence()->set_job(job_id_);
  message.mutable_stop_job()->set_why(wire_text(why));
  message.mutable_stop_job()->set_now(true);
  client_.send_all(message);
}

// A node that does not start is no reason to give up those that run.
void TrainRun::bring_back() {
  for (size_t i = 0; i < local_->config().nodes.size(); ++i) {
    if (local_->running(i)) continue;
    const std::string& name = local_->config().nodes[i].name;
    Restart& restart = restarts_[i];
    if (std::exchange(restart.runs, false)) {
      if (Clock::now() - restart.started > kRestartPauseMax)
        restart = {};
      else
        pause(restart, fmt::format("node {} has ended soon after its start", name), "");
    }
    if (Clock::now() < restart.at) continue;
    try {
      local_->restart(i, [this] { return signals_.waiting(); });
      restart.runs = true;
      restart.started = Clock::now();
    } catch (const Error& problem) {
      pause(restart, fmt::format("cannot start node {} again", name), fmt::format(": {}", problem.what()));
    }
  }
}

// What made it fail may still be so, and each of its parts costs the others two views.
void TrainRun::pause(Restart& restart, const std::string& what, const std::string& why) {
  restart.pause = std::clamp(2 * restart.pause, kRestartPauseMin, kRestartPauseMax);
  restart.at = Clock::now() + restart.pause;
  progress_.say(fmt::format("{}, next try in {} s{}", what, restart.pause.count(), why));
}

bool TrainRun::any_runs() const {
  for (size_t i = 0; i < local_->config().nodes.size(); ++i)
    if (local_->running(i)) return true;
  return false;
}

// --- what it hears ---

void TrainRun::handle(const ClusterEvent& event) {
  if (event.kind == ClusterEvent::Kind::up) return found(event.node);
  if (event.kind == ClusterEvent::Kind::down) return lost(event);
  const wire::Envelope& message = event.envelope;
  const std::string& job = message.fence().job();
  if (message.has_node_status()) return on_status(event.node, job == job_id_);
  if (!job.empty() && job != job_id_) return;  // of one that a node was or is busy with
  if (message.has_report() && message.report().step() > shown_step_) {
    shown_step_ = message.report().step();
    progress_.show(message.report());
  }
  if (message.has_event()) on_event(event.node, message);
  if (message.has_job_ended()) ended(event.node, message);
}

// The answer to our question.
void TrainRun::on_status(const std::string& node, bool has_the_job) {
  if (has_the_job) return wait_no_more();
  if (!last_gone_ || nodes_.any_in_view() || !nodes_.idle(node)) return;
  if (!nodes_.any_takes_part() && !waits_) none_is_left();
}

void TrainRun::on_event(const std::string& node, const wire::Envelope& message) {
  const wire::Event& event = message.event();
  switch (event.kind()) {
    case wire::Event::VIEW:
      return on_view(node, message);
    case wire::Event::LEFT:
      return left(node);
    case wire::Event::HEALING:
      return progress_.say(fmt::format("node {} takes the state from another: {}", node, event.why()));
    case wire::Event::FAILED:
      return takes_part_no_more(node, event.why(), false);
    case wire::Event::NOTICE:
      return on_notice(node, event.why());
    default:
      return;
  }
}

void TrainRun::left(const std::string& node) {
  const bool counted = nodes_.gone(node);
  progress_.say(fmt::format("node {} has left the job", node));
  if (counted) without({node, "it has left the job", false});
}

// Local nodes share a folder: what is wrong there is said once.
void TrainRun::on_notice(const std::string& node, const std::string& what) {
  if (what.empty() || (local_ != nullptr && what == last_notice_)) return;
  last_notice_ = what;
  progress_.say(fmt::format("node {}: {}", node, what));
}

// All members say the same; the first word of each view counts.
void TrainRun::on_view(const std::string& node, const wire::Envelope& message) {
  const auto& nodes = message.event().nodes();
  nodes_.saw_view(node, {nodes.begin(), nodes.end()});
  if (nodes_.takes_part(node)) wait_no_more();
  meet_guests(message.event());
  const wire::Ballot& ballot = message.fence().ballot();
  const std::pair<uint64_t, uint32_t> number(ballot.number(), ballot.leader());
  if (number <= view_) return;
  const bool first = view_.first == 0;
  view_ = number;
  const int64_t step = message.fence().step();
  const bool said = step == 0 && local_ != nullptr;  // before its nodes were started
  if (first && options_.resume && !said) progress_.say(fmt::format("goes on from step {}", step));
  if (!first || nodes.size() < int(client_.cluster().listed().size()))
    progress_.say(fmt::format("from step {} on: {}", step, fmt::join(nodes, ", ")));
}

// Should those of the cluster file all go away, the guests tell how the job goes on.
void TrainRun::meet_guests(const wire::Event& view) {
  for (int i = 0; i < std::min(view.nodes_size(), view.addresses_size()); ++i) {
    const config::NodeConfig* node = client_.cluster().find(view.nodes(i));
    if (node == nullptr || !node->guest || view.addresses(i).empty()) continue;
    try {
      client_.dial(node->name, view.addresses(i));
    } catch (const Error& problem) {  // in what a node has said: the job goes on
      progress_.say(fmt::format("cannot dial {}: {}", node->name, problem.what()));
    }
  }
}

void TrainRun::found(const std::string& node) {
  if (!nodes_.found(node)) return;
  if (waits_) {  // it may be a new process, which knows of no job
    wire::Envelope question;
    question.mutable_ask_status();
    client_.send(node, question);
  }
  if (stops_ > 0) client_.send(node, stop_order());
  const config::NodeConfig* known = client_.cluster().find(node);
  const bool guest = known != nullptr && known->guest;
  progress_.say(fmt::format("node {} {}", node, guest ? "has joined" : "is here again"));
}

void TrainRun::lost(const ClusterEvent& event) {
  if (!nodes_.takes_part(event.node)) return;
  progress_.say(fmt::format("lost node {}: {}", event.node, event.why));
  nodes_.lost(event.node);
  nodes_.gone(event.node);
  without({event.node, event.why, true});
}

// --- the end ---

void TrainRun::ended(const std::string& node, const wire::Envelope& message) {
  const wire::JobEnded& how = message.job_ended();
  const bool goes_on = nodes_.others_go_on(node);
  // The job goes on where it was in no view of it, or was cut off from the others.
  const bool in_no_view = begun() && message.fence().ballot().number() == 0;
  // Whatever views it was told of: those are of the same job as another client has ordered it.
  const bool refused_by_all = message.fence().job().empty() && nodes_.is_last(node);
  if (!how.error().empty() && (in_no_view || goes_on) && !refused_by_all)
    return takes_part_no_more(node, how.error(), message.fence().job().empty());
  nodes_.gone(node);
  // Told to leave while it was cut off.
  const bool left = how.exit_code() == 130 && how.error().empty() && stops_ == 0;
  if (left && goes_on) return progress_.say(fmt::format("node {} has left the job", node));
  if (!how.error().empty() || !how.checkpoint().empty()) {
    verdict_ = how;
    by_node_ = true;
    return;
  }
  // A member that has ended well; the node that writes the checkpoint still waits for others like it.
  if (!how.digest().empty()) expected_ = how;
  const auto now = Clock::now();
  if (nodes_.any_takes_part()) {
    deadline_ = deadline_.value_or(now + kCheckpointPatience);
  } else if (!nodes_.any_is_lost()) {
    verdict_ = expected_;
  } else {  // one of those may still say more
    deadline_ = std::min(deadline_.value_or(Clock::time_point::max()),
                         now + config::client_patience(client_.cluster()));
  }
}

// Who has `refused` the order has no part in the job. To whose part has failed the others offer it once more:
// it counts again when it tells of a view.
void TrainRun::takes_part_no_more(const std::string& node, std::string why, bool refused) {
  const bool counted = refused ? nodes_.gone(node) : nodes_.idle(node);
  const std::string own_name = fmt::format("node {}: ", node);
  if (why.starts_with(own_name)) why.erase(0, own_name.size());
  progress_.say(fmt::format("node {} takes part no more: {}", node, why));
  if (counted) without({node, why, false});
}

// Who is linked may have no part in the job: of those that are left, each is asked, unless one is known to be
// in a view.
void TrainRun::without(const Gone& gone) {
  last_gone_ = gone;
  if (!nodes_.any_takes_part()) return none_is_left();
  if (!begun() || nodes_.any_in_view()) return;
  wire::Envelope question;
  question.mutable_ask_status();
  client_.send_all(question);
}

// The job goes on where a node was found.
void TrainRun::wait_no_more() {
  if (!std::exchange(waits_, false)) return;
  deadline_.reset();
  expected_.Clear();
}

// The last may come back where only the link is lost: this process stood still, or guests are being dialled.
void TrainRun::none_is_left() {
  const Gone& last = *last_gone_;
  if (expected_.digest().empty()) {
    expected_.set_exit_code(1);
    expected_.set_error(fmt::format(
        "lost node {}: {}; no node is left{}", last.node, last.why,
        begun() ? ", go on from the newest checkpoint with --resume" : ", and the job had not begun"));
  }
  const bool anew = local_ != nullptr && options_.restart;  // and knows of no job
  const bool may_come_back = last.may_come_back || nodes_.any_is_lost();
  if (!may_come_back || anew || deadline_) {
    verdict_ = expected_;
  } else {
    waits_ = true;
    deadline_ = Clock::now() + config::client_patience(client_.cluster());
  }
}

int TrainRun::conclude(const wire::JobEnded& ended) {
  if (ended.error().empty() || (ended.exit_code() == 130 && stops_ > 0)) {
    if (ended.digest().empty())
      progress_.say("stopped; go on from the last checkpoint with --resume");
    else
      progress_.finish(ended);
    return ended.exit_code();
  }
  progress_.end_line();
  if (!begun()) take_back(ended.error());
  const Error failure(ended.exit_code() == 2 ? ErrorKind::usage : ErrorKind::peer_lost, ended.error());
  if (by_node_) throw Verdict(failure, begun());
  throw failure;
}

}  // namespace troupe::actors
