#include "actors/drill/drill.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "actors/client/cluster_client.hpp"
#include "actors/client/local_cluster.hpp"
#include "actors/client/stop_signals.hpp"
#include "actors/drill/network.hpp"
#include "actors/drill/process_faults.hpp"
#include "actors/engines/engine_setup.hpp"
#include "actors/ledger.hpp"
#include "actors/wire.hpp"
#include "comm/messages.pb.h"
#include "data/dataset.hpp"
#include "kernels/base/say.hpp"

namespace troupe::drill {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPoll{5};
constexpr std::chrono::seconds kStallMax{60};  // without a committed step
constexpr std::chrono::seconds kPauseMin{1};   // between two looks: whoever looks was paused itself

int64_t unix_us() {
  return std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1);
}

int signal_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kill:
      return SIGKILL;
    case FaultKind::terminate:
      return SIGTERM;
    case FaultKind::stop:
      return SIGSTOP;
    default:
      return SIGUSR2;  // a jump of the clock
  }
}

wire::Envelope start_order(const DrillOptions& options, const config::JobConfig& job,
                           const std::string& out) {
  wire::Envelope message;
  wire::StartJob& order = *message.mutable_start_job();
  order.set_job_toml(config::canonical_text(job));
  if (!options.data.empty()) order.set_data_folder(std::filesystem::absolute(options.data));
  order.set_out_folder(std::filesystem::absolute(out));
  order.set_threads(uint32_t(options.threads));
  order.add_orders(actors::new_order());
  return message;
}

class Drill {
 public:
  Drill(const DrillOptions& options, const actors::StopSignals& signals)
      : options_(options),
        signals_(signals),
        random_(options.seed),
        cluster_(config::local_cluster(options.nodes, options.threads, options.devices), options.out,
                 options.program, {"--drill"}),
        client_(started().config()) {}

  ~Drill() { cluster_.stop(std::chrono::milliseconds(0)); }
  Drill(const Drill&) = delete;
  Drill& operator=(const Drill&) = delete;

  DrillResult run() {
    start();
    while (!verdict_) {
      if (const auto event = client_.next(kPoll)) handle(*event);
      end_what_is_over();
      next_fault();
      stop_when_done();
      watch();
      if (signals_.arrived()) throw Error(ErrorKind::cancelled, "the drill was interrupted");
    }
    result_.seconds = seconds_since(began_);
    if (!verdict_->error().empty() || verdict_->digest().empty()) fail();
    result_.steps = verdict_->step();
    result_.faults_missed = options_.plan.faults.size() - next_;
    for (const Outcome& outcome : result_.outcomes) result_.faults_missed += outcome.injected ? 0 : 1;
    result_.digest = verdict_->digest();
    if (network_) result_.pieces_corrupted = network_->pieces_corrupted();
    heal_everything();
    client_.close();
    cluster_.stop(std::chrono::seconds(5));
    return std::move(result_);
  }

 private:
  struct End {  // of a fault that lasts
    Clock::time_point when;
    Fault fault;
  };

  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }
  size_t index_of(const std::string& node) const { return cluster_.find(node).value(); }

  // A job that was refused leaves nothing behind.
  [[noreturn]] void fail() {
    if (!begun_) {
      client_.close();
      cluster_.stop(std::chrono::seconds(5));
      cluster_.undo();
    }
    throw Error(verdict_->exit_code() == 2 ? ErrorKind::usage : ErrorKind::protocol,
                (begun_ ? "the job has failed: " : "") + verdict_->error());
  }

  const actors::LocalCluster& started() {
    if (options_.plan.needs_proxies()) network_.emplace(cluster_.config(), options_.seed);
    for (size_t i = 0; network_ && i < cluster_.config().nodes.size(); ++i)
      cluster_.give_map(i, network_->seen_by(cluster_.config().nodes[i].name));
    cluster_.start();
    return cluster_;
  }

  void start() {
    client_.wait_for_links(std::chrono::seconds(30));
    wire::Envelope order = start_order(options_, options_.job, options_.out);
    order.mutable_start_job()->set_transport("tcp");  // what is cut off must be cut off
    client_.send_all(order);
    began_ = watched_ = Clock::now();
  }

  void handle(const actors::ClusterEvent& event) {
    if (event.kind != actors::ClusterEvent::Kind::message) return;
    const wire::Envelope& message = event.envelope;
    if (message.has_report() && message.report().step() > step_) {
      step_ = message.report().step();
      without_step_ = {};
    }
    if (message.has_event()) on_event(event.node, message.event());
    if (message.has_job_ended()) {
      const wire::JobEnded& how = message.job_ended();
      // A node that was told to leave while it was cut off ends by itself; the others go on.
      const bool left = how.exit_code() == 130 && !stopping_ && how.error().empty();
      if (!left && (!how.error().empty() || (!verdict_ && !how.digest().empty()))) verdict_ = how;
    }
  }

  void on_event(const std::string& node, const wire::Event& event) {
    if (event.kind() == wire::Event::VIEW) {
      begun_ = true;
      members_ = {event.nodes().begin(), event.nodes().end()};
      if (members_.size() == cluster_.config().nodes.size()) ever_whole_ = true;
    }
    if (event.kind() == wire::Event::HEALING) say(fmt::format("  {}: {}", node, event.why()));
    if (event.kind() == wire::Event::FAILED)
      say(fmt::format("  {} takes part no more: {}", node, event.why()));
    for (Outcome& outcome : result_.outcomes) {
      if (!outcome.injected || outcome.noticed_ms >= 0) continue;
      const bool of_it =
          event.kind() == wire::Event::VIEW || node == outcome.fault.node ||
          std::find(event.nodes().begin(), event.nodes().end(), outcome.fault.node) != event.nodes().end();
      const double after_ms = double(event.unix_us() - outcome.unix_us) * 1e-3;
      if (of_it && after_ms >= 0) outcome.noticed_ms = after_ms;
    }
  }

  // --- faults ---

  // A node that is whole: in the newest view, and no fault has it.
  bool is_sound(const std::string& node) const {
    return members_.contains(node) && !afflicted_.contains(node);
  }
  bool others_remain(const std::string& node) const {
    for (const std::string& member : members_)
      if (member != node && is_sound(member)) return true;
    return false;
  }

  void next_fault() {
    if (next_ >= options_.plan.faults.size() || !ever_whole_) return;
    const Fault& fault = options_.plan.faults[next_];
    if (fault.at_step >= 0 && step_ < fault.at_step) return;
    if (fault.at_step < 0 && Clock::now() - last_fault_ < std::chrono::milliseconds(fault.after_ms)) return;
    // One fault at a time for a node, and never the last whole one: a cluster that is lost altogether is
    // another matter. The plan waits until that is so.
    const bool single = cluster_.config().nodes.size() == 1;
    if (!single && (!is_sound(fault.node) || !others_remain(fault.node))) return;
    ++next_;
    last_fault_ = Clock::now();
    Outcome outcome;
    outcome.fault = fault;
    outcome.step = step_;
    outcome.at_s = seconds_since(began_);
    outcome.unix_us = unix_us();
    try {
      outcome.detail = inject(fault);
      outcome.injected = true;
      if (lasts(fault.kind)) {
        afflicted_.insert(fault.node);
        ends_.push_back({Clock::now() + std::chrono::milliseconds(fault.lasts_ms), fault});
      }
    } catch (const Error& problem) {
      outcome.detail = problem.what();
    }
    say(fmt::format("[{:8.2f} s, step {}] {} {}{}{}", outcome.at_s, step_, name_of(fault.kind), fault.node,
                    outcome.detail.empty() ? "" : ": ", outcome.detail));
    result_.outcomes.push_back(std::move(outcome));
  }

  std::string inject(const Fault& fault) {
    const pid_t process = cluster_.process(index_of(fault.node));
    comm::Faults faults;
    switch (fault.kind) {
      case FaultKind::kill:
      case FaultKind::terminate:
      case FaultKind::stop:
      case FaultKind::clock_jump:
        send_signal(process, signal_of(fault.kind));
        break;
      case FaultKind::disk_full:
        fill_disk(process, true);
        break;
      case FaultKind::flip:
        return flip_bit(process, std::filesystem::path(options_.out) / "transfer" / (fault.node + ".memory"),
                        random_);
      case FaultKind::partition:
        faults.cut = true;
        break;
      case FaultKind::delay:
        faults.delay_ms = fault.delay_ms;
        break;
      case FaultKind::loss:
        faults.loss = 0.1;
        break;
      case FaultKind::corrupt:
        faults.corruption = 0.05;
        break;
    }
    if (is_of_the_network(fault.kind)) network_->afflict(fault.node, faults);
    return "";
  }

  void end_what_is_over() {
    for (size_t i = 0; i < ends_.size();) {
      if (Clock::now() < ends_[i].when || !end(ends_[i].fault)) {
        ++i;
        continue;
      }
      afflicted_.erase(ends_[i].fault.node);
      ends_.erase(ends_.begin() + std::ptrdiff_t(i));
    }
  }

  // False: not yet.
  bool end(const Fault& fault) {
    const size_t index = index_of(fault.node);
    switch (fault.kind) {
      case FaultKind::kill:
      case FaultKind::terminate:
        if (cluster_.running(index)) return false;
        members_.erase(fault.node);
        cluster_.restart(index);
        return true;
      case FaultKind::stop:
        send_signal(cluster_.process(index), SIGCONT);
        return true;
      case FaultKind::disk_full:
        fill_disk(cluster_.process(index), false);
        return true;
      default:
        network_->heal(fault.node);
        return true;
    }
  }

  void heal_everything() {
    for (const End& one : ends_)
      if (one.fault.kind != FaultKind::kill && one.fault.kind != FaultKind::terminate) end(one.fault);
  }

  // --- the end ---

  void stop_when_done() {
    const bool done = next_ >= options_.plan.faults.size() && ends_.empty() &&
                      members_.size() == cluster_.config().nodes.size();
    if (!done || stopping_ || options_.whole_job) return;
    stopping_ = true;
    wire::Envelope message;
    message.mutable_stop_job()->set_why("the drill is over");
    client_.send_all(message);
  }

  void watch() {
    for (size_t i = 0; i < cluster_.config().nodes.size(); ++i) {
      const std::string& node = cluster_.config().nodes[i].name;
      if (afflicted_.contains(node) || cluster_.running(i) || verdict_) continue;
      if (stopping_ || options_.whole_job) return;
      say(fmt::format("  {} has ended by itself: {}", node, cluster_.log_tail(node)));
      members_.erase(node);
      cluster_.restart(i);
    }
    // A pause of this process, and so most likely of the whole machine, is not the nodes' fault.
    const auto now = Clock::now();
    without_step_ += std::min<Clock::duration>(now - std::exchange(watched_, now), kPauseMin);
    if (without_step_ > kStallMax)
      throw error(ErrorKind::timeout, "no step was committed for {} s after step {}; see {}/logs",
                  kStallMax.count(), step_, options_.out);
  }

  const DrillOptions& options_;
  const actors::StopSignals& signals_;
  std::mt19937_64 random_;
  actors::LocalCluster cluster_;
  std::optional<Network> network_;
  actors::ClusterClient client_;
  DrillResult result_;
  std::set<std::string> members_, afflicted_;
  std::vector<End> ends_;
  size_t next_ = 0;
  int64_t step_ = 0;
  bool begun_ = false, ever_whole_ = false, stopping_ = false;
  Clock::time_point began_, watched_, last_fault_ = Clock::now();
  Clock::duration without_step_{};  // as long as no step has been committed
  std::optional<wire::JobEnded> verdict_;
};

// The same job on one node, that nobody disturbs.
std::string undisturbed_digest(const DrillOptions& options, int64_t steps) {
  say(fmt::format("the same {} steps on one node, undisturbed", steps));
  config::JobConfig job = options.job;
  job.checkpoint_every = 0;
  const std::string out = options.out + "/undisturbed";
  std::filesystem::remove_all(out);
  actors::LocalCluster cluster(config::local_cluster(1, options.threads, options.devices), out,
                               options.program, {"--drill"});
  cluster.start();
  actors::ClusterClient client(cluster.config());
  client.wait_for_links(std::chrono::seconds(30));
  // A schedule depends on the job's steps: it is the same job, stopped at the same step.
  wire::Envelope order = start_order(options, job, out);
  order.mutable_start_job()->set_stop_at(steps);
  client.send_all(order);
  while (true) {
    const auto event = client.next(std::chrono::seconds(600));
    if (!event) throw Error(ErrorKind::timeout, "the undisturbed run has said nothing for ten minutes");
    if (event->kind == actors::ClusterEvent::Kind::down && !cluster.running(0))
      throw Error(ErrorKind::peer_lost, event->why);
    if (!event->envelope.has_job_ended()) continue;
    const wire::JobEnded how = event->envelope.job_ended();
    if (!how.error().empty()) throw Error(ErrorKind::protocol, how.error());
    client.close();
    cluster.stop(std::chrono::seconds(5));
    return how.digest();
  }
}

}  // namespace

DrillResult run_drill(const DrillOptions& options) {
  actors::check_path("--out", options.out);
  actors::check_path("--data", options.data);
  const actors::StopSignals signals;
  DrillResult result = Drill(options, signals).run();
  read_times(options.out, result);
  try {
    const auto dataset = actors::open_dataset(options.job, options.data);
    result.samples = actors::verify_ledger(options.out, options.job, *dataset).samples;
  } catch (const Error& problem) {
    result.ledger_problem = problem.what();
  }
  result.expected_digest = undisturbed_digest(options, result.steps);
  return result;
}

}  // namespace troupe::drill
