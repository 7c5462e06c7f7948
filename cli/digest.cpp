#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/commands.hpp"
#include "kernels/base/error.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/checkpoint.hpp"

namespace troupe::cli {

namespace {

// A checkpoint file, a folder of checkpoints, or the output folder of a training run.
std::filesystem::path find_checkpoint(const std::string& given) {
  const auto warn = [](const std::string& message) { fmt::print(stderr, "troupe: {}\n", message); };
  for (const auto& folder : {std::filesystem::path(given), std::filesystem::path(given) / "checkpoints"})
    if (const auto found = model::latest_checkpoint(folder, warn)) return *found;
  throw error(ErrorKind::file, "{}: no checkpoint here; give a checkpoint file or the --out folder of troupe train",
              given);
}

}  // namespace

void add_digest(CLI::App& app, int&) {
  CLI::App* command = app.add_subcommand("digest", "Print the SHA-256 of a checkpoint's weights");
  auto path = std::make_shared<std::string>();
  command->add_option("path", *path, "A checkpoint, or the --out folder of troupe train")->required();
  command->callback([path] {
    auto backend = kernels::make_cpu_backend();
    const auto saved = model::load_weights_only(find_checkpoint(*path), *backend);
    const auto shape = model::make_model(saved.info.model);
    const auto* weights = static_cast<const float*>(saved.weights.data());
    fmt::print("{}\n", model::weights_digest(shape->parameters(), weights));
  });
}

}  // namespace troupe::cli
