// The options that say what a job is, for the subcommands that begin one or look back at it.
#pragma once

#include <string>
#include <vector>

#include <CLI/App.hpp>

#include "actors/config/job.hpp"

namespace troupe::cli {

struct JobArguments {
  std::string file;
  std::vector<std::string> overrides;  // section.key=value

  void add_to(CLI::App& command, const std::string& file_text);  // --job and --set
  config::JobConfig read() const;                                // throws Error(usage) and others
};

// Throws Error(usage) when the job makes up its data and --data was given, or `needed` and neither.
void check_data_option(const config::JobConfig& job, const std::string& data, bool needed);

}  // namespace troupe::cli
