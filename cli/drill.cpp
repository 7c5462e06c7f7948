#include "actors/drill/drill.hpp"

#include <algorithm>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/config/cluster.hpp"
#include "actors/config/device.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/job_arguments.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

namespace {

struct DrillArguments {
  drill::DrillOptions options;
  JobArguments job;
  std::string plan;
  std::vector<std::string> kinds;
  uint64_t faults = 20;
  int64_t steps = 0;
  bool json = false;
};

std::vector<std::string> node_names(int64_t nodes) {
  std::vector<std::string> names;
  for (const auto& node : config::local_cluster(nodes, 1).nodes) names.push_back(node.name);
  return names;
}

// Whether it costs a node, or its state, so that the job goes on only with others that have it.
bool needs_others(drill::FaultKind kind) {
  return kind == drill::FaultKind::kill || kind == drill::FaultKind::terminate ||
         kind == drill::FaultKind::flip;
}

// Of faults that are drawn: the kinds asked for, or all that the nodes allow.
std::vector<drill::FaultKind> kinds_of(const DrillArguments& a, bool gpus) {
  std::vector<drill::FaultKind> kinds;
  for (const std::string& kind : a.kinds) kinds.push_back(drill::kind_of(kind));
  if (!kinds.empty()) return kinds;
  kinds = drill::all_kinds();
  if (gpus) std::erase(kinds, drill::FaultKind::flip);
  if (a.options.nodes == 1) std::erase_if(kinds, needs_others);
  return kinds;
}

bool on_gpus(const std::vector<std::string>& devices) {
  const auto names = config::split_devices(devices);
  return std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return config::parse_devices("--device", name).kind == config::DeviceKind::cuda;
  });
}

void check_kinds(const drill::Plan& plan, bool gpus, int64_t nodes) {
  const auto flips = [](const drill::Fault& fault) { return fault.kind == drill::FaultKind::flip; };
  if (gpus && std::any_of(plan.faults.begin(), plan.faults.end(), flips))
    throw error(ErrorKind::usage,
                "the memory of a GPU cannot be reached to flip a bit in it: leave out the kind flip");
  const auto lost = std::find_if(plan.faults.begin(), plan.faults.end(),
                                 [](const drill::Fault& fault) { return needs_others(fault.kind); });
  if (nodes == 1 && lost != plan.faults.end())
    throw error(ErrorKind::usage,
                "after a {} a job goes on with its other nodes, and this one has none: leave out the kinds "
                "kill, terminate and flip, or drill with more --nodes",
                name_of(lost->kind));
}

void run(DrillArguments& a, int& code) {
  // The time line is made of reports: one a step, unless the job is told otherwise on the command line.
  std::vector<std::string>& overrides = a.job.overrides;
  overrides.insert(overrides.begin(), "report.every=1");
  a.options.whole_job = a.steps > 0;
  overrides.push_back("training.steps=" + std::to_string(a.steps > 0 ? a.steps : 10'000'000));
  a.options.job = a.job.read();
  if (a.options.job.sum != config::SumKind::exact)
    throw error(ErrorKind::usage, "a drill needs training.sum = \"exact\": a float sum depends on who adds");
  check_data_option(a.options.job, a.options.data, true);
  std::error_code none;
  if (std::filesystem::exists(a.options.out, none) && !std::filesystem::is_empty(a.options.out, none))
    throw error(ErrorKind::usage, "--out {} is there already and not empty; a drill needs a new folder",
                a.options.out);
  const bool gpus = on_gpus(a.options.devices);
  const std::vector<std::string> names = node_names(a.options.nodes);
  if (!a.plan.empty()) {
    a.options.plan = drill::read_plan(a.plan, {names.begin(), names.end()});
  } else {
    a.options.plan = drill::random_plan(a.options.seed, a.faults, kinds_of(a, gpus), names);
  }
  check_kinds(a.options.plan, gpus, a.options.nodes);
  if (a.options.program.empty()) a.options.program = own_program();
  const drill::DrillResult result = drill::run_drill(a.options);
  fmt::print("{}", a.json ? to_json(result) + "\n" : to_text(result));
  code = result.passed() ? kDone : kFailed;
}

}  // namespace

void add_drill(CLI::App& app, int& code) {
  CLI::App* command = app.add_subcommand(
      "drill", "Train on a local cluster, inject faults, and compare the weights with an undisturbed run");
  auto a = std::make_shared<DrillArguments>();
  auto& o = a->options;
  a->job.add_to(*command, "Job file (TOML); examples/jobs/tiny.toml needs no data");
  command->add_option("--data", o.data, "Dataset folder, as troupe prepare makes it")->check(not_empty());
  command->add_option("--out", o.out, "Folder for logs, checkpoints and ledgers; must be new")
      ->required()
      ->check(not_empty());
  command->add_option("--nodes", o.nodes, "Node processes")->check(CLI::Range(1, 64))->capture_default_str();
  command->add_option("--threads", o.threads, "Workers a node")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--device", o.devices, "What they train on, as for train");
  command->add_option("--steps", a->steps, "Steps of the job; without it, it ends when the faults are over")
      ->check(CLI::Range(1, 1'000'000'000));
  auto* plan = command->add_option("--plan", a->plan, "Faults from this file (TOML)")->check(not_empty());
  command->add_option("--seed", o.seed, "Faults from this seed")
      ->check(whole_number())
      ->excludes(plan)
      ->capture_default_str();
  command->add_option("--faults", a->faults, "How many")
      ->check(CLI::Range(0, 100'000))
      ->excludes(plan)
      ->capture_default_str();
  command->add_option("--kinds", a->kinds, "Which kinds, with commas; left out: all that these nodes allow")
      ->delimiter(',')
      ->excludes(plan);
  command->add_option("--node-program", o.program, "Start nodes with this program in place of troupe")
      ->check(not_empty())
      ->group("");
  command->add_flag("--json", a->json, "The result as JSON");
  command->callback([a, &code] { run(*a, code); });
}

}  // namespace troupe::cli
