#include "actors/ledger.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/engines/engine_setup.hpp"
#include "actors/inference/translator.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/job_arguments.hpp"
#include "kernels/base/hash.hpp"
#include "model/checkpoint.hpp"

namespace troupe::cli {

namespace {

struct LedgerOptions {
  std::string out, data;
  bool json = false;
};

void verify(const LedgerOptions& options) {
  const std::string newest = inference::find_checkpoint(options.out, warn);  // which verifies all of it
  const model::Checkpoint checkpoint = model::load_record(newest);
  const config::JobConfig job = config::parse_job(newest, checkpoint.info.job_text);
  check_data_option(job, options.data, true);
  const auto dataset = actors::open_dataset(job, options.data);
  if (const std::string& known = checkpoint.info.dataset; !known.empty() && known != dataset->digest())
    throw error(ErrorKind::usage, "{} was trained on other data than {}; give the --data it was made with",
                newest, dataset->folder());
  const actors::LedgerSummary found = actors::verify_ledger(options.out, job, *dataset);
  // The ledger may be ahead of the checkpoint, but not behind it.
  const model::TrainState& state = checkpoint.state;
  if (found.steps < state.step)
    throw error(ErrorKind::corrupt, "the ledger ends at step {}, but {} is of step {}", found.steps, newest,
                state.step);
  const std::string chain = to_hex(state.chain.data(), state.chain.size());
  if (found.steps == state.step && found.chain != chain)
    throw error(ErrorKind::corrupt, "the ledger leads to another state than the one in {}", newest);
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"steps", found.steps},
                                      {"skipped", found.skipped},
                                      {"views", found.views},
                                      {"samples", found.samples},
                                      {"epochs", found.epochs},
                                      {"slots", found.slots},
                                      {"chain", found.chain}}
                           .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  fmt::print(
      "{} steps, every slot counted once; {} samples over {:.3f} epochs, none twice in an epoch, none left "
      "out\n",
      found.steps, found.samples, found.epochs);
  if (found.skipped > 0)
    fmt::print("{} steps were skipped: their samples were counted, but not learned from\n", found.skipped);
  for (const auto& [node, slots] : found.slots) fmt::print("{} computed {} slots\n", node, slots);
  fmt::print("{} view{}; chain {}\n", found.views, found.views == 1 ? "" : "s", found.chain);
}

}  // namespace

void add_ledger(CLI::App& app, int&) {
  CLI::App* command = app.add_subcommand("ledger", "What a training run has counted");
  command->require_subcommand(1);
  CLI::App* check =
      command->add_subcommand("verify", "Prove that every sample of each epoch was counted once");
  auto options = std::make_shared<LedgerOptions>();
  check->add_option("out", options->out, "The --out folder of troupe train")->required()->check(not_empty());
  check->add_option("--data", options->data, "The dataset of the job")->check(not_empty());
  check->add_flag("--json", options->json, "One JSON object");
  check->callback([options] { verify(*options); });
}

}  // namespace troupe::cli
