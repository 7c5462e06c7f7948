#include "cli/job_arguments.hpp"

#include "cli/checks.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

void JobArguments::add_to(CLI::App& command, const std::string& file_text) {
  command.add_option("--job", file, file_text)->check(not_empty());
  command.add_option("--set", overrides, "Change a setting of the job: section.key=value")
      ->expected(1)
      ->take_all();
}

config::JobConfig JobArguments::read() const {
  return file.empty() ? config::parse_job("--set", "", overrides) : config::read_job_file(file, overrides);
}

void check_data_option(const config::JobConfig& job, const std::string& data, bool needed) {
  const bool made_up = job.source == config::DataSource::tiny;
  if (made_up && !data.empty())
    throw error(
        ErrorKind::usage,
        "--data {} would not be used: data.source = \"tiny\" makes the job's data up; leave one of the "
        "two out",
        data);
  if (needed && !made_up && data.empty())
    throw error(ErrorKind::usage,
                "say with --data which dataset the job trains on (examples/jobs/tiny.toml needs none)");
}

}  // namespace troupe::cli
