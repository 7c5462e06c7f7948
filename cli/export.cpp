#include <filesystem>
#include <system_error>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/inference/exported_model.hpp"
#include "actors/inference/translator.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/generate_options.hpp"
#include "kernels/base/error.hpp"
#include "kernels/cpu/backend.hpp"

namespace troupe::cli {

namespace {

struct ExportOptions {
  std::string checkpoint, out;
  inference::Precision precision;
};

// Throws for what the export would replace, unless that is one itself.
void check_target(const std::string& out) {
  std::error_code none;
  const std::filesystem::file_status there = std::filesystem::status(out, none);
  if (!std::filesystem::exists(there)) return;  // or it cannot be looked at, which writing it will tell
  if (std::filesystem::is_directory(there))
    throw error(ErrorKind::usage, "--out {} is a folder; name a file in it", out);
  if (!std::filesystem::is_regular_file(there) || !inference::is_exported(out))
    throw error(
        ErrorKind::usage,
        "--out {} is there already and is no exported model, which alone is replaced; name another file",
        out);
}

// The same of the name that it is written under: what a killed export left there may go.
void check_partial(const std::string& partial) {
  std::error_code none;
  const std::filesystem::file_status there = std::filesystem::symlink_status(partial, none);
  if (!std::filesystem::exists(there)) return;
  if (std::filesystem::is_regular_file(there) &&
      (std::filesystem::file_size(partial, none) == 0 || inference::is_exported(partial)))
    return;
  throw error(
      ErrorKind::usage,
      "{} is there, and a model is written under that name until it is whole; move it away, or give --out "
      "another file",
      partial);
}

void run_export(const ExportOptions& options) {
  check_target(options.out);
  check_partial(options.out + ".partial");
  const std::string path = inference::find_checkpoint(options.checkpoint, warn);
  if (inference::is_exported(path))
    throw error(ErrorKind::usage, "{} is exported already; give the checkpoint that it was made from", path);
  const auto backend = kernels::make_cpu_backend();
  model::SavedWeights saved = model::load_weights_only(path, *backend);
  if (saved.info.model.family != model::Family::encoder_decoder)
    throw error(ErrorKind::usage, "{} is a language model; what is exported is for translation", path);
  saved.info.model = inference::in_precision(saved.info.model, options.precision);
  const kernels::DType type = options.precision.int8 ? kernels::DType::i8 : saved.info.model.compute;
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
      ->required()
      ->check(not_empty());
  command->add_option("--out", options->out, "The file to write")->required()->check(not_empty());
  add_precision_options(*command, options->precision);
  command->callback([options] { run_export(*options); });
}

}  // namespace troupe::cli
