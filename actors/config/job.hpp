// What a job is: everything that decides its final bits (model, data, optimizer, slots, seed, sum) and what it reports
// and keeps on the way. Read from a TOML file; every value has a default. A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.hpp"
#include "model/optimizer.hpp"

namespace troupe::config {

enum class SumKind : uint8_t { exact = 1, floating };
enum class DataSource : uint8_t { folder = 1, tiny };  // a prepared folder, or the small made-up language

struct JobConfig {
  // [model]; vocabulary 0 and the special ids are filled in from the dataset's tokenizer.
  model::ModelConfig model;
  // [optimizer] and [schedule]
  model::OptimizerConfig optimizer;
  // [data]
  DataSource source = DataSource::folder;
  // [training]
  int64_t steps = 1000;
  int64_t slots = 8;            // V: micro-batches a step
  int64_t seed = 1;
  SumKind sum = SumKind::exact;
  int64_t bits = 24;            // of a rounded gradient block, 2..24
  // [evaluation]
  int64_t evaluation_every = 200;  // steps; 0: never
  int64_t evaluation_slots = 8;    // held-out packs an evaluation
  // [checkpoint]
  int64_t checkpoint_every = 500;  // steps; 0: only at the end
  int64_t checkpoint_keep = 3;
  // [report]
  int64_t report_every = 10;       // steps
};

// Throws Error(usage) naming file, line and key, or the override, or Error(file). `overrides` are "section.key=value",
// each of --set.
JobConfig read_job_file(const std::string& path, const std::vector<std::string>& overrides = {});
JobConfig parse_job(std::string_view file, std::string_view text, const std::vector<std::string>& overrides = {});
// Every setting, one a line, in a fixed order; parse_job reads it back.
std::string canonical_text(const JobConfig& job);
// The optimizer with what depends on the job's length filled in: a total_steps of 0 means the job's steps, decay_steps
// of 0 a fifth of them.
model::OptimizerConfig resolved_optimizer(const JobConfig& job);
// SHA-256 (32 bytes) over the settings that decide the bits: all but steps, checkpoint and report, so that a job can
// go on for longer than it was first asked to.
std::string job_hash(const JobConfig& job);
// The first setting in which two jobs of unequal hash differ: "optimizer.beta1 = 0.9 here, 0.8 there".
std::string first_difference(const JobConfig& here, const JobConfig& there);

}  // namespace troupe::config
