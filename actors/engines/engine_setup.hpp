// From a job and its data to an engine that is ready to train: the model's missing settings filled in from
// the dataset, the state from the newest checkpoint or from the seed, and what all nodes of a job must agree
// on.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/job_context.hpp"
#include "data/dataset.hpp"
#include "model/checkpoint.hpp"

namespace troupe::actors {

class TrainEngine;

// The folder that the job names, or the small made-up language. Throws what data/ throws.
std::shared_ptr<const data::Dataset> open_dataset(const config::JobConfig& job, const std::string& folder);

// Vocabulary and special ids from the tokenizer. Throws Error(usage) when model and data do not fit together.
model::ModelConfig complete_model(const config::JobConfig& job, const data::Dataset& dataset);

std::filesystem::path checkpoint_folder(const std::filesystem::path& out);

// What OUT has for a job to go on from.
struct Beginning {
  std::optional<std::filesystem::path> checkpoint;  // the newest whole one
  std::string broken;  // none is whole, but some are there: the error for a job that would begin at step 0
  std::vector<std::string> passed_over;  // why each newer one is of no use, newest first
};
// Throws Error(usage) when there is a checkpoint and `resume` was not asked for, and Error(version) when a
// newer troupe has written newer ones, over which a job that goes on from an older one would write.
Beginning find_beginning(const std::filesystem::path& out, bool resume);
// The same on a node, which warns in its log. Throws Error(corrupt) as well, where it is not to resume; where
// it is, others may have the state that it lacks.
Beginning find_beginning(const JobContext& context);

// What checkpoints of a job, whose model is complete, say of it.
model::CheckpointInfo checkpoint_info(const JobContext& context, const config::JobConfig& job,
                                      const data::Dataset& dataset);

// Throws Error(usage) when the checkpoint is another job's, or of other data. The engine has been probed with
// the weights of step 0, which all nodes can make.
std::shared_ptr<TrainEngine> build_engine(const JobContext& context, const data::Dataset& dataset,
                                          const Beginning& beginning);

// Reads a checkpoint that came from another node into the engine.
void load_into(const JobContext& context, const data::Dataset& dataset, TrainEngine& engine,
               const std::filesystem::path& path);

// Where the state lies in this process, for a drill that changes a bit of it: OUT/transfer/NODE.memory, one
// "what address bytes" a line.
void write_memory_map(const JobContext& context, const TrainEngine& engine);

// One "key=value" a line: everything that must be the same on all nodes for the same bits to come out, and
// for views of one kind.
std::string fingerprint_text(const JobContext& context, const data::Dataset& dataset,
                             const TrainEngine& engine);

}  // namespace troupe::actors
