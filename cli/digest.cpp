#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/inference/translator.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/checkpoint.hpp"

namespace troupe::cli {

void add_digest(CLI::App& app, int&) {
  CLI::App* command = app.add_subcommand("digest", "Print the SHA-256 of a checkpoint's weights");
  auto path = std::make_shared<std::string>();
  command->add_option("path", *path, "A checkpoint, or the --out folder of troupe train")
      ->required()
      ->check(not_empty());
  command->callback([path] {
    auto backend = kernels::make_cpu_backend();
    const auto saved = model::load_weights_only(inference::find_checkpoint(*path, warn), *backend);
    const auto shape = model::make_model(saved.info.model);
    const auto* weights = static_cast<const float*>(saved.weights.data());
    fmt::print("{}\n", model::weights_digest(shape->parameters(), weights));
  });
}

}  // namespace troupe::cli
