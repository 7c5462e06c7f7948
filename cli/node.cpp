#include <filesystem>

#include <CLI/CLI.hpp>

#include "actors/node/run_node.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

std::string own_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

void add_node(CLI::App& app, int& code) {
  CLI::App* command =
      app.add_subcommand("node", "Run one node of a cluster: what a machine, container or pod runs");
  auto options = std::make_shared<actors::NodeOptions>();
  auto* file = command->add_option("--cluster", options->cluster_file, "Cluster file (TOML)");
  auto* join = command->add_option(
      "--join", options->join,
      "HOST:PORT, or with certificates NAME@HOST:PORT, of a node that runs: take the cluster's description "
      "from there");
  command->add_option("--name", options->name,
                      "Which of its nodes this is; with --join a free guest's place");
  command->add_option("--listen", options->listen,
                      "HOST:PORT to listen on, for a node whose address is not known");
  command->add_option(
      "--device", options->device,
      "What it trains on, in place of what the cluster file says: cpu, or GPUs as cuda:0, cuda:0-3 "
      "or cuda:all");
  command->add_option("--certificates", options->certificates, "With --join: folder made by troupe certs")
      ->needs(join);
  file->excludes(join);
  command->add_option("--data", options->data,
                      "This machine's folder of the dataset, in place of the one that the job names");
  command->add_option(
      "--out", options->out,
      "This machine's folder for checkpoints and ledger, in place of the one that the job names");
  for (const char* name :
       {"--cluster", "--join", "--name", "--listen", "--device", "--certificates", "--data", "--out"})
    command->get_option(name)->check(not_empty());
  command->add_flag("--one-job", options->one_job, "End with the first job")->group("");
  command->add_option("--announce-fd", options->announce_fd, "Write the address to this descriptor")
      ->group("");
  command->add_flag("--drill", options->drill, "Be ready for faults that a drill injects")->group("");
  command->callback([options, &code] {
    if (options->cluster_file.empty() && options->join.empty())
      throw error(ErrorKind::usage,
                  "say with --cluster which cluster file to read, or with --join which node to ask");
    if (options->join.empty() && options->name.empty())
      throw error(ErrorKind::usage, "say with --name which node of {} this is", options->cluster_file);
    code = actors::run_node(*options);
  });
}

}  // namespace troupe::cli
