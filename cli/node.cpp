#include <filesystem>

#include <CLI/CLI.hpp>

#include "actors/run_node.hpp"
#include "cli/commands.hpp"

namespace troupe::cli {

std::string own_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

void add_node(CLI::App& app, int& code) {
  CLI::App* command =
      app.add_subcommand("node", "Run one node of a cluster: what a machine, container or pod runs");
  auto options = std::make_shared<actors::NodeOptions>();
  command->add_option("--cluster", options->cluster_file, "Cluster file (TOML)")->required();
  command->add_option("--name", options->name, "Which of its nodes this is")->required();
  command->add_flag("--one-job", options->one_job, "End with the first job")->group("");
  command->add_option("--announce-fd", options->announce_fd, "Write the address to this descriptor")
      ->group("");
  command->add_flag("--drill", options->drill, "Be ready for faults that a drill injects")->group("");
  command->callback([options, &code] { code = actors::run_node(*options); });
}

}  // namespace troupe::cli
