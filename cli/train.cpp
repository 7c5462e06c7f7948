#include <CLI/CLI.hpp>

#include "actors/client/train_client.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/job_arguments.hpp"

namespace troupe::cli {

namespace {

struct TrainArguments {
  actors::TrainOptions options;
  JobArguments job;
  int64_t steps = 0;
};

void run(TrainArguments& a, int& code) {
  if (a.steps > 0) a.job.overrides.push_back("training.steps=" + std::to_string(a.steps));
  a.options.job = a.job.read();
  check_data_option(a.options.job, a.options.data, false);  // nodes may have folders of their own
  a.options.program = own_program();
  code = actors::train(a.options);
}

}  // namespace

void add_train(CLI::App& app, int& code) {
  CLI::App* command = app.add_subcommand("train", "Train a model on one or several nodes");
  auto a = std::make_shared<TrainArguments>();
  auto& o = a->options;
  a->job.add_to(*command, "Job file (TOML): model, optimizer, steps; see examples/jobs");
  command->add_option("--data", o.data, "Dataset folder, as troupe prepare makes it")->check(not_empty());
  command->add_option("--out", o.out, "Folder for checkpoints, logs and cluster.json")
      ->required()
      ->check(not_empty());
  auto* nodes = command->add_option("--nodes", o.nodes, "Node processes on this machine")
                    ->check(CLI::Range(1, 1024))
                    ->capture_default_str();
  auto* devices =
      command->add_option("--device", o.devices,
                          "What each trains on: cpu, or GPUs as cuda:0, cuda:0,1, cuda:0-3 or cuda:all; "
                          "cuda:0,1,cuda:2,3 gives them to the nodes in turn");
  auto* cluster =
      command->add_option("--cluster", o.cluster_file, "Use the running nodes of this cluster file");
  cluster->excludes(nodes)->excludes(devices)->check(not_empty());
  command
      ->add_option("--min-nodes", o.min_nodes,
                   "Begin with at least so many of them; the others may come later")
      ->check(CLI::Range(1, 1024))
      ->needs(cluster);
  command->add_option("--threads", o.threads, "Workers a node; 0: the cores, shared out")
      ->check(CLI::Range(0, 1024));
  command->add_option("--steps", a->steps, "How many steps, in place of the job's: --set training.steps")
      ->check(CLI::Range(1, 1'000'000'000));
  command
      ->add_option("--stop-at", o.stop_at,
                   "End after this step with a checkpoint; --resume goes on from there")
      ->check(CLI::Range(1, 1'000'000'000));
  command->add_option("--transport", o.transport, "How gradients travel: auto, tcp or shm")
      ->check(CLI::IsMember({"auto", "tcp", "shm"}))
      ->capture_default_str();
  command->add_flag("--resume", o.resume, "Go on from the newest checkpoint in --out");
  command->add_flag("--restart", o.restart, "Start local nodes again that die")->needs(nodes);
  command->add_flag("--json", o.json, "One JSON object a report, the last one with the digest");
  command->callback([a, &code] { run(*a, code); });
}

}  // namespace troupe::cli
