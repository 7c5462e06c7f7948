#include "actors/train_client.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "actors/cluster_client.hpp"
#include "actors/devices.hpp"
#include "actors/engine_setup.hpp"
#include "actors/job_start.hpp"
#include "actors/local_cluster.hpp"
#include "actors/progress.hpp"
#include "actors/stop_signals.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPoll{20};
constexpr std::chrono::milliseconds kNowPatience{1500};  // after the second Ctrl-C
constexpr std::chrono::milliseconds kCheckpointPatience{
    60'000};  // for the node that wrote the last checkpoint
constexpr std::chrono::seconds kRestartPauseMin{1}, kRestartPauseMax{60};
constexpr std::chrono::milliseconds kSurvivorsPatience{700};  // for local nodes to end after a failed job

// What a node has said of a job that therefore ends.
struct Verdict : Error {
  Verdict(const Error& error, bool job_has_begun) : Error(error), begun(job_has_begun) {}
  bool begun;
};

class TrainRun {
 public:
  // `local`: whose nodes these are; null where they were started by others. `nodes`: those that are linked.
  TrainRun(const TrainOptions& options, ClusterClient& client, const StopSignals& signals,
           LocalCluster* local, const std::vector<std::string>& nodes)
      : options_(options),
        client_(client),
        signals_(signals),
        local_(local),
        progress_(Progress::form_for(options.json)),
        taking_part_(nodes.begin(), nodes.end()) {}

  // Throws Verdict, or an Error for what no node has said.
  int follow() {
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

  bool begun() const { return view_.first != 0; }

 private:
  void start() {
    wire::Envelope message;
    wire::StartJob& order = *message.mutable_start_job();
    order.set_job_toml(config::canonical_text(options_.job));
    if (!options_.data.empty()) order.set_data_folder(std::filesystem::absolute(options_.data));
    order.set_out_folder(std::filesystem::absolute(options_.out));
    order.set_resume(options_.resume);
    order.set_stop_at(options_.stop_at);
    order.set_threads(uint32_t(options_.threads));
    order.set_transport(options_.transport);
    for (const config::NodeConfig& node : client_.cluster().listed()) {
      if (!taking_part_.contains(node.name)) continue;
      wire::NodeAddress& where = *order.add_nodes();
      where.set_name(node.name);
      where.set_address(node.address);
    }
    client_.send_all(message);
  }

  wire::Envelope stop_order() const {
    wire::Envelope message;
    message.mutable_stop_job()->set_why("Ctrl-C");
    message.mutable_stop_job()->set_now(stops_ > 1);
    return message;
  }

  void stop() {
    ++stops_;
    client_.send_all(stop_order());
    if (stops_ == 1) return progress_.say("stopping after this step; once more to leave at once");
    expected_.set_exit_code(130);
    expected_.set_error("stopped without a checkpoint");
    deadline_ = Clock::now() + kNowPatience;
  }

  void handle(const ClusterEvent& event) {
    if (event.kind == ClusterEvent::Kind::up) return found(event.node);
    if (event.kind == ClusterEvent::Kind::down) return lost(event);
    const wire::Envelope& message = event.envelope;
    const std::string& job = message.fence().job();
    if (!job.empty() && job != job_id_) return;  // of one that a node was or is busy with
    if (message.has_report() && message.report().step() > shown_step_) {
      shown_step_ = message.report().step();
      progress_.show(message.report());
    }
    if (message.has_event()) on_event(event.node, message);
    if (message.has_job_ended()) ended(event.node, message);
    if (message.has_node_status() && message.node_status().state() != "idle" &&
        std::exchange(waits_, false)) {
      deadline_.reset();
      expected_.Clear();
    }
  }

  void on_event(const std::string& node, const wire::Envelope& message) {
    const wire::Event& event = message.event();
    switch (event.kind()) {
      case wire::Event::VIEW:
        return on_view(node, message);
      case wire::Event::LEFT:
        taking_part_.erase(node);
        return progress_.say(fmt::format("node {} has left the job", node));
      case wire::Event::HEALING:
        return progress_.say(fmt::format("node {} takes the state from another: {}", node, event.why()));
      case wire::Event::FAILED:
        progress_.say(fmt::format("node {} takes part no more: {}", node, event.why()));
        return without(node, event.why(), false);
      default:
        return;
    }
  }

  // All members say the same; the first word of each view counts.
  void on_view(const std::string& node, const wire::Envelope& message) {
    view_sizes_[node] = message.event().nodes_size();
    meet_guests(message.event());
    const wire::Ballot& ballot = message.fence().ballot();
    const std::pair<uint64_t, uint32_t> number(ballot.number(), ballot.leader());
    if (number <= view_) return;
    const bool first = view_.first == 0;
    view_ = number;
    const auto& nodes = message.event().nodes();
    if (!first || nodes.size() < int(client_.cluster().listed().size()))
      progress_.say(fmt::format("from step {} on: {}", message.fence().step(), fmt::join(nodes, ", ")));
  }

  // Should those of the cluster file all go away, the guests tell how the job goes on.
  void meet_guests(const wire::Event& view) {
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

  // Its newest view has no other node.
  bool alone(const std::string& node) const {
    const auto found = view_sizes_.find(node);
    return found != view_sizes_.end() && found->second == 1;
  }

  void ended(const std::string& node, const wire::Envelope& message) {
    const wire::JobEnded& how = message.job_ended();
    if (begun() && message.fence().ballot().number() == 0 && !how.error().empty()) {
      // It was in no view of this job, which goes on.
      progress_.say(fmt::format("node {} takes part no more: {}", node, how.error()));
      return without(node, how.error(), false);
    }
    taking_part_.erase(node);
    // Told to leave while it was cut off from the others, which go on.
    const bool left = how.exit_code() == 130 && how.error().empty() && stops_ == 0 && alone(node);
    if (left && !taking_part_.empty()) return progress_.say(fmt::format("node {} has left the job", node));
    if (!how.error().empty() || !how.checkpoint().empty()) {
      verdict_ = how;
      by_node_ = true;
      return;
    }
    // A member that has ended well; the node that writes the checkpoint still waits for others like it.
    if (!how.digest().empty()) expected_ = how;
    const auto now = Clock::now();
    if (!taking_part_.empty()) {
      deadline_ = deadline_.value_or(now + kCheckpointPatience);
    } else if (lost_.empty()) {
      verdict_ = expected_;
    } else {  // one of those may still say more
      deadline_ = std::min(deadline_.value_or(Clock::time_point::max()),
                           now + config::client_patience(client_.cluster()));
    }
  }

  // A node that does not start is no reason to give up those that run.
  void bring_back() {
    for (size_t i = 0; i < local_->config().nodes.size(); ++i) {
      Restart& next = restarts_[i];
      if (local_->running(i) || Clock::now() < next.at) continue;
      try {
        local_->restart(i, [this] { return signals_.waiting(); });
        next = {};
      } catch (const Error& problem) {
        next.pause = std::clamp(2 * next.pause, kRestartPauseMin, kRestartPauseMax);
        next.at = Clock::now() + next.pause;
        progress_.say(fmt::format("cannot start node {} again, next try in {} s: {}",
                                  local_->config().nodes[i].name, next.pause.count(), problem.what()));
      }
    }
  }

  void found(const std::string& node) {
    lost_.erase(node);
    if (!taking_part_.insert(node).second) return;
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

  void lost(const ClusterEvent& event) {
    if (!taking_part_.contains(event.node)) return;
    progress_.say(fmt::format("lost node {}: {}", event.node, event.why));
    lost_.insert(event.node);
    without(event.node, event.why, true);
  }

  // It may come back where only the link is lost: this process stood still, or guests are being dialled.
  void without(const std::string& node, const std::string& why, bool may_come_back) {
    if (taking_part_.erase(node) == 0 || !taking_part_.empty()) return;
    if (expected_.digest().empty()) {
      expected_.set_exit_code(1);
      expected_.set_error(fmt::format(
          "lost node {}: {}; no node is left{}", node, why,
          begun() ? ", go on from the newest checkpoint with --resume" : ", and the job had not begun"));
    }
    const bool anew = local_ != nullptr && options_.restart;  // and knows of no job
    if (!may_come_back || anew || deadline_) {
      verdict_ = expected_;
    } else {
      waits_ = true;
      deadline_ = Clock::now() + config::client_patience(client_.cluster());
    }
  }

  bool any_runs() {
    for (size_t i = 0; i < local_->config().nodes.size(); ++i)
      if (local_->running(i)) return true;
    return false;
  }

  // Who has taken the order is not to wait for who has refused it.
  void take_back(const std::string& why) {
    wire::Envelope message;
    message.mutable_fence()->set_job(job_id_);
    message.mutable_stop_job()->set_why(wire_text(why));
    message.mutable_stop_job()->set_now(true);
    client_.send_all(message);
  }

  int conclude(const wire::JobEnded& ended) {
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

  struct Restart {  // after one that has failed
    std::chrono::seconds pause{0};
    Clock::time_point at{};
  };

  const TrainOptions& options_;
  const std::string job_id_ = job_id_of(config::canonical_text(options_.job));
  ClusterClient& client_;
  const StopSignals& signals_;
  LocalCluster* local_;
  Progress progress_;
  int stops_ = 0;
  int64_t shown_step_ = -1;
  std::pair<uint64_t, uint32_t> view_;     // the newest that was shown
  std::map<std::string, int> view_sizes_;  // of each node's newest view
  std::set<std::string> taking_part_;      // nodes, as far as this client knows
  std::set<std::string> lost_;             // whose links were lost
  std::map<size_t, Restart> restarts_;     // of local nodes
  bool waits_ = false;                     // until deadline_, for one of those that are gone to come back
  std::optional<wire::JobEnded> verdict_;  // how the job has ended
  bool by_node_ = false;                   // a node has said so
  wire::JobEnded expected_;                // what is known of that before, for the deadline
  std::optional<Clock::time_point> deadline_;
};

// What the nodes would refuse too, but before anything in the folder is touched.
void check_out_folder(const TrainOptions& options) {
  if (std::filesystem::exists(options.out) && !std::filesystem::is_directory(options.out))
    throw error(ErrorKind::usage, "--out {} is no folder; name the folder of a run", options.out);
  const Beginning beginning = find_beginning(options.out, options.resume);
  if (!beginning.broken.empty()) throw Error(ErrorKind::corrupt, beginning.broken);
  if (!beginning.checkpoint && options.resume)
    fmt::print(stderr, "troupe: {} holds no checkpoint to resume from; starting at step 0\n", options.out);
}

int run_local(const TrainOptions& options, const StopSignals& signals) {
  const int64_t threads =
      options.threads > 0 ? options.threads : std::max<int64_t>(1, int64_t(usable_cores()) / options.nodes);
  config::ClusterConfig nodes_here = config::local_cluster(options.nodes, threads, options.devices);
  for (const config::NodeConfig& node : nodes_here.nodes)
    find_devices(config::parse_devices(node.name, node.device));
  LocalCluster local(std::move(nodes_here), options.out, options.program);
  const auto give_up = [&] { return signals.arrived(); };
  try {
    local.start(give_up);
  } catch (const Error& failure) {
    if (failure.kind() == ErrorKind::cancelled) local.undo();
    throw;
  }
  try {
    ClusterClient client(local.config());
    const auto nodes = client.wait_for_links(std::chrono::seconds(30), 0, give_up);
    TrainRun run(options, client, signals, &local, nodes);
    const int code = run.follow();
    client.close();
    local.stop(std::chrono::seconds(5));
    if (code != 0 && !run.begun()) local.undo();
    return code;
  } catch (const Verdict& verdict) {
    local.stop(kSurvivorsPatience);
    if (!verdict.begun) local.undo();
    throw;
  } catch (const Error& failure) {
    if (failure.kind() == ErrorKind::cancelled) {  // before the nodes had an order
      local.stop(std::chrono::milliseconds(0));
      local.undo();
      throw;
    }
    local.stop(kSurvivorsPatience);
    throw error(failure.kind(), "{}; see what the nodes say in {}", failure.what(), local.logs());
  } catch (...) {
    local.stop(kSurvivorsPatience);
    throw;
  }
}

}  // namespace

int train(const TrainOptions& options) {
  if (options.out.empty())
    throw error(ErrorKind::usage, "say with --out where checkpoints and logs shall go");
  check_path("--out", options.out);
  check_path("--data", options.data);
  if (options.nodes < 1 || options.nodes > 1024)
    throw error(ErrorKind::usage, "--nodes is {}; it must be between 1 and 1024", options.nodes);
  if (options.job.source == config::DataSource::folder && options.data.empty())
    throw error(ErrorKind::usage,
                "say with --data which dataset to train on (troupe prepare makes one), or set "
                "data.source = \"tiny\"");
  const StopSignals signals;
  if (options.cluster_file.empty()) {
    check_out_folder(options);
    return run_local(options, signals);
  }
  if (options.min_nodes > 0 && options.job.sum == config::SumKind::floating)
    throw error(
        ErrorKind::usage,
        "--min-nodes lets nodes come later, but a sum of floats depends on who adds: leave it out, or set "
        "training.sum = \"exact\"");
  const config::ClusterConfig cluster = config::read_cluster_file(options.cluster_file);
  if (options.min_nodes > int64_t(cluster.listed().size()))
    throw error(ErrorKind::usage, "--min-nodes is {}, but {} lists only {}", options.min_nodes,
                options.cluster_file, cluster.listed().size());
  ClusterClient client(cluster);
  const auto nodes =
      client.wait_for_links(std::chrono::milliseconds(cluster.patience_ms) + std::chrono::seconds(3),
                            size_t(options.min_nodes), [&] { return signals.arrived(); });
  return TrainRun(options, client, signals, nullptr, nodes).follow();
}

}  // namespace troupe::actors
