#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/inference/exported_model.hpp"
#include "actors/inference/translator.hpp"
#include "cli/commands.hpp"
#include "kernels/base/error.hpp"
#include "kernels/cpu/backend.hpp"

namespace troupe::cli {

namespace {

struct ExportOptions {
  std::string checkpoint, out;
  bool int8 = false;
};

void run_export(const ExportOptions& options) {
  const auto warn = [](const std::string& message) { fmt::print(stderr, "troupe: {}\n", message); };
  const std::string path = inference::find_checkpoint(options.checkpoint, warn);
  if (inference::is_exported(path))
    throw error(ErrorKind::usage, "{} is exported already; give the checkpoint that it was made from", path);
  const auto backend = kernels::make_cpu_backend();
  const model::SavedWeights saved = model::load_weights_only(path, *backend);
  const kernels::DType type = options.int8 ? kernels::DType::i8 : saved.info.model.compute;
  const uint64_t bytes = inference::export_model(options.out, saved, type, *backend);
  fmt::print("{}: {} of {} weights, {} bytes\n", options.out, path, kernels::to_string(type), bytes);
}

}  // namespace

void add_export(CLI::App& app, int&) {
  CLI::App* command =
      app.add_subcommand("export", "Write a model for translation alone: packed, and mapped at its start");
  auto options = std::make_shared<ExportOptions>();
  command
      ->add_option("--checkpoint", options->checkpoint, "A checkpoint, or the --out folder of troupe train")
      ->required();
  command->add_option("--out", options->out, "The file to write")->required();
  command->add_flag("--int8", options->int8, "Round every matrix to 8 bits");
  command->callback([options] { run_export(*options); });
}

}  // namespace troupe::cli
