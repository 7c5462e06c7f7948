#include "actors/client/train_client.hpp"

#include <algorithm>
#include <filesystem>
#include <thread>

#include "actors/client/cluster_client.hpp"
#include "actors/client/local_cluster.hpp"
#include "actors/client/stop_signals.hpp"
#include "actors/client/train_run.hpp"
#include "actors/engines/devices.hpp"
#include "actors/engines/engine_setup.hpp"
#include "actors/node_lock.hpp"
#include "actors/wire.hpp"
#include "kernels/base/cores.hpp"
#include "kernels/base/say.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kSurvivorsPatience{700};  // for local nodes to end after a failed job
constexpr std::chrono::seconds kLastJobPatience{2};  // clients hear of its end before its roles are gone
constexpr std::chrono::milliseconds kLookAgain{20};

// Nodes that have outlived their client may be at work there still.
void check_idle(const std::string& out) {
  const auto deadline = std::chrono::steady_clock::now() + kLastJobPatience;
  while (const auto node = find_locking_node(out)) {
    if (std::chrono::steady_clock::now() >= deadline)
      throw error(
          ErrorKind::usage,
          "another troupe is at work in {}: node {} has a job there; wait for its end, or choose another "
          "--out",
          out, *node);
    std::this_thread::sleep_for(kLookAgain);
  }
}

// What the nodes would refuse too, but before anything in the folder is touched.
void check_out_folder(const TrainOptions& options) {
  std::error_code none;  // what cannot be looked at cannot be made either, and is refused then
  if (std::filesystem::exists(options.out, none) && !std::filesystem::is_directory(options.out, none))
    throw error(ErrorKind::usage, "--out {} is no folder; name the folder of a run", options.out);
  check_idle(options.out);
  const Beginning beginning = find_beginning(options.out, options.resume);
  if (!beginning.broken.empty()) throw Error(ErrorKind::corrupt, beginning.broken);
  if (!beginning.checkpoint && options.resume)
    say(fmt::format("troupe: {} holds no checkpoint to resume from; starting at step 0", options.out));
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
