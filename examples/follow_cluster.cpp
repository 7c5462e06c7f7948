// Starts the nodes of a cluster file on this machine, gives them the tiny job, and follows it through the
// messages that the nodes send: what a program does that wants to watch or script a cluster instead of
// running `troupe train`.
//
//   follow_cluster cluster.toml OUT [TROUPE]     (TROUPE: the program that runs a node; default: beside this
//   one)
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include "actors/client/cluster_client.hpp"
#include "actors/config/job.hpp"
#include "kernels/base/error.hpp"

extern char** environ;

namespace {

using namespace troupe;

// Node processes that end with this object.
class Nodes {
 public:
  Nodes(const config::ClusterConfig& cluster, const std::string& file, const std::string& program) {
    for (const config::NodeConfig& node : cluster.listed())
      start({program, "node", "--cluster", file, "--name", node.name});
  }
  ~Nodes() {
    for (const pid_t process : processes_) kill(process, SIGTERM);
    for (const pid_t process : processes_) waitpid(process, nullptr, 0);
  }
  Nodes(const Nodes&) = delete;
  Nodes& operator=(const Nodes&) = delete;

 private:
  void start(std::vector<std::string> words) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t process = 0;
    if (posix_spawn(&process, words[0].c_str(), nullptr, nullptr, arguments.data(), environ) != 0)
      throw error(ErrorKind::file, "cannot start {}", words[0]);
    processes_.push_back(process);
  }
  std::vector<pid_t> processes_;
};

wire::Envelope order(const std::string& out) {
  const std::vector<std::string> tiny = {
      "data.source=\"tiny\"",  "model.width=32",         "model.inner=64",
      "model.heads=2",         "model.encoder_layers=1", "model.decoder_layers=1",
      "model.compute=\"f32\"", "training.steps=100",     "report.every=10"};
  wire::Envelope message;
  message.mutable_start_job()->set_job_toml(
      config::canonical_text(config::parse_job("follow_cluster", "", tiny)));
  message.mutable_start_job()->set_out_folder(std::filesystem::absolute(out));
  message.mutable_start_job()->add_orders(actors::new_order());  // a later one of the same job has another
  return message;
}

// Prints what arrives until a node says how the job has ended.
int follow(actors::ClusterClient& client) {
  wire::Envelope ask;
  ask.mutable_ask_status();
  client.send_all(ask);
  while (true) {
    const auto event = client.next(std::chrono::seconds(60));
    if (!event) throw Error(ErrorKind::timeout, "the nodes have said nothing for a minute");
    const wire::Envelope& said = event->envelope;
    if (event->kind == actors::ClusterEvent::Kind::up) fmt::print("{} is linked\n", event->node);
    if (event->kind == actors::ClusterEvent::Kind::down)
      fmt::print("{} is gone: {}\n", event->node, event->why);
    if (said.has_node_status()) fmt::print("{} is {}\n", event->node, said.node_status().state());
    if (said.has_report())
      fmt::print("step {:3}  loss {:.3f}  validation {:.3f}  {:.0f} tokens/s on {} nodes\n",
                 said.report().step(), said.report().loss(), said.report().validation_loss(),
                 said.report().tokens_per_second(), said.report().nodes());
    if (!said.has_job_ended()) continue;
    if (said.job_ended().exit_code() != 0) throw Error(ErrorKind::protocol, said.job_ended().error());
    fmt::print("weights {}\n", said.job_ended().digest());
    return 0;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "follow_cluster CLUSTER OUT [TROUPE]\n");
    return 2;
  }
  try {
    const std::string file = argv[1];
    const std::filesystem::path beside =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "troupe";
    const config::ClusterConfig cluster = config::read_cluster_file(file);
    const Nodes nodes(cluster, file, argc > 3 ? argv[3] : beside.string());
    actors::ClusterClient client(cluster);
    client.wait_for_links(std::chrono::seconds(20));
    client.send_all(order(argv[2]));
    return follow(client);
  } catch (const std::exception& problem) {
    fmt::print(stderr, "follow_cluster: {}\n", problem.what());
    return 1;
  }
}
