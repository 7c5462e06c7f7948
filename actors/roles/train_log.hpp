// OUT/train.log, where the node that speaks for all writes what a user may look up later. Several roles have
// it open at once: each line is appended in one piece.
#pragma once

#include <filesystem>
#include <memory>

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include "actors/job_context.hpp"

namespace troupe::actors {

// Says nothing where the file cannot be opened. One thread.
inline std::shared_ptr<spdlog::logger> open_train_log(const JobContext& context) {
  const auto path = std::filesystem::path(context.out_folder) / "train.log";
  auto log = std::make_shared<spdlog::logger>("train");
  log->flush_on(spdlog::level::info);
  try {
    log->sinks().push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string()));
  } catch (const spdlog::spdlog_ex& problem) {
    spdlog::warn("trains without {}: {}", path.string(), problem.what());
  }
  return log;
}

}  // namespace troupe::actors
