#include "actors/train_client.hpp"

#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "actors/cluster_client.hpp"
#include "actors/job_start.hpp"
#include "actors/local_cluster.hpp"
#include "actors/progress.hpp"

namespace troupe::actors {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPoll{20};
constexpr std::chrono::milliseconds kNowPatience{1500};  // after the second Ctrl-C
constexpr std::chrono::milliseconds kLeaderPatience{
    1000};  // for the leader's own word on what another node said
constexpr std::chrono::milliseconds kSurvivorsPatience{700};  // for local nodes to end after a failed job

// SIGINT and SIGTERM as something to ask for, not something that strikes. Made before any thread is.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  bool arrived() const {
    const timespec at_once{0, 0};
    return sigtimedwait(&set_, nullptr, &at_once) > 0;
  }

 private:
  sigset_t set_{}, before_{};
};

class TrainRun {
 public:
  TrainRun(const TrainOptions& options, ClusterClient& client, const StopSignals& signals)
      : options_(options), client_(client), signals_(signals), progress_(Progress::form_for(options.json)) {}

  int follow() {
    start();
    while (true) {
      if (signals_.arrived()) stop();
      if (const auto event = client_.next(kPoll)) handle(*event);
      if (verdict_) return conclude(*verdict_);
      if (deadline_ && Clock::now() >= *deadline_) return conclude(second_hand_);
    }
  }

 private:
  void start() {
    wire::Envelope message;
    wire::StartJob& order = *message.mutable_start_job();
    order.set_job_toml(config::canonical_text(options_.job));
    if (!options_.data.empty()) order.set_data_folder(std::filesystem::absolute(options_.data));
    order.set_out_folder(std::filesystem::absolute(options_.out));
    order.set_resume(options_.resume);
    order.set_threads(uint32_t(options_.threads));
    order.set_transport(options_.transport);
    for (const config::NodeConfig& node : client_.cluster().nodes) {
      wire::NodeAddress& where = *order.add_nodes();
      where.set_name(node.name);
      where.set_address(node.address);
    }
    client_.send_all(message);
  }

  void stop() {
    ++stops_;
    wire::Envelope message;
    message.mutable_stop_job()->set_why("Ctrl-C");
    message.mutable_stop_job()->set_now(stops_ > 1);
    if (stops_ == 1) {
      progress_.say("stopping after this step; once more to leave at once");
      client_.send(client_.leader(), message);
      return;
    }
    client_.send_all(message);
    second_hand_.set_exit_code(130);
    second_hand_.set_error("stopped without a checkpoint");
    deadline_ = Clock::now() + kNowPatience;
  }

  void handle(const ClusterEvent& event) {
    const bool leader = event.node == client_.leader();
    if (event.kind == ClusterEvent::Kind::down) return lost(event);
    if (event.kind != ClusterEvent::Kind::message) return;
    if (leader && event.envelope.has_report()) progress_.show(event.envelope.report());
    if (!event.envelope.has_job_ended()) return;
    const wire::JobEnded& ended = event.envelope.job_ended();
    if (leader) verdict_ = ended;
    // A member that has ended well leaves before the leader has heard from all: that is no loss.
    if (!leader && ended.error().empty()) ended_well_.insert(event.node);
    // Another node's error counts when the leader stays silent.
    if (!leader && !ended.error().empty()) hear(ended.exit_code(), ended.error());
  }

  void lost(const ClusterEvent& event) {
    if (!ended_well_.contains(event.node)) hear(1, "lost node " + event.node + ": " + event.why);
  }

  void hear(int code, const std::string& error) {
    if (deadline_) return;
    second_hand_.set_exit_code(code);
    second_hand_.set_error(error);
    // When it is the leader that is lost, nobody else is to be waited for.
    const bool orphaned = error.find("lost node " + client_.leader()) != std::string::npos;
    deadline_ = Clock::now() + (orphaned ? std::chrono::milliseconds(0) : kLeaderPatience);
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
    throw Error(ended.exit_code() == 2 ? ErrorKind::usage : ErrorKind::peer_lost, ended.error());
  }

  const TrainOptions& options_;
  ClusterClient& client_;
  const StopSignals& signals_;
  Progress progress_;
  int stops_ = 0;
  std::set<std::string> ended_well_;       // members
  std::optional<wire::JobEnded> verdict_;  // the leader's
  wire::JobEnded second_hand_;             // what others said, for when the leader says nothing
  std::optional<Clock::time_point> deadline_;
};

int run_local(const TrainOptions& options, const StopSignals& signals) {
  const int64_t threads =
      options.threads > 0 ? options.threads : std::max<int64_t>(1, int64_t(usable_cores()) / options.nodes);
  LocalCluster local(options.nodes, threads, options.out, options.program);
  try {
    ClusterClient client(local.config());
    client.wait_for_links(std::chrono::seconds(30));
    const int code = TrainRun(options, client, signals).follow();
    client.close();
    local.stop(std::chrono::seconds(5));
    return code;
  } catch (...) {
    local.stop(kSurvivorsPatience);
    throw;
  }
}

}  // namespace

int train(const TrainOptions& options) {
  if (options.out.empty())
    throw error(ErrorKind::usage, "say with --out where checkpoints and logs shall go");
  if (options.nodes < 1 || options.nodes > 1024)
    throw error(ErrorKind::usage, "--nodes is {}; it must be between 1 and 1024", options.nodes);
  if (options.job.source == config::DataSource::folder && options.data.empty())
    throw error(ErrorKind::usage,
                "say with --data which dataset to train on (troupe prepare makes one), or set "
                "data.source = \"tiny\"");
  std::error_code none;
  if (options.resume && options.cluster_file.empty() &&
      (!std::filesystem::exists(std::filesystem::path(options.out) / "checkpoints", none) ||
       std::filesystem::is_empty(std::filesystem::path(options.out) / "checkpoints", none)))
    fmt::print(stderr, "troupe: {} holds no checkpoint to resume from; starting at step 0\n", options.out);
  const StopSignals signals;
  if (options.cluster_file.empty()) return run_local(options, signals);
  const config::ClusterConfig cluster = config::read_cluster_file(options.cluster_file);
  ClusterClient client(cluster);
  client.wait_for_links(std::chrono::milliseconds(cluster.patience_ms) + std::chrono::seconds(3));
  return TrainRun(options, client, signals).follow();
}

}  // namespace troupe::actors
