// Checkpoints on disk: a pure function of the state, so every node writes the same bytes. Written to a
// temporary name in the same folder, synced, renamed, the folder synced: a checkpoint under its own name is
// whole. A torn, truncated, corrupt or newer-version file is refused with one Error that names the file, what
// is wrong and what to do.
//
// Magic, format, then sections (tag, bytes, XXH3 checksum, payload): a portable binary Cereal record of the
// settings and counters (model/record.hpp), the weights, the two moments (f32, little-endian, flat); SHA-256
// of all of it last. Files of older formats are read as well.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/error.hpp"
#include "model/config.hpp"
#include "model/optimizer.hpp"
#include "model/state.hpp"

namespace troupe::model {

// What a checkpoint carries beside the state.
struct CheckpointInfo {
  ModelConfig model;
  OptimizerConfig optimizer;
  std::string job_text;              // the canonical job file
  std::string tokenizer;             // the bytes of its model file; may be empty
  bool compatibility_forms = false;  // its text was cleaned to NFKC
  std::string dataset;               // the digest of its dataset; empty in older files

  bool operator==(const CheckpointInfo&) const = default;
};

struct Checkpoint {
  CheckpointInfo info;
  TrainState state;  // not packed: pack_state() before training goes on
};

// For inference: weights alone.
struct SavedWeights {
  CheckpointInfo info;
  int64_t step = 0;
  kernels::Buffer weights;  // flat f32
};

// FOLDER/checkpoint-0000000200-NODE.troupe
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, int64_t step,
                                      const std::string& node);

// Replaces `path` at once or not at all. Errors: file (naming the bytes needed when the disk is full); leaves
// nothing behind. Any thread, while nobody writes the state.
void save_checkpoint(const std::filesystem::path& path, const CheckpointInfo& info, const TrainState& state);

// Reads and verifies everything. Errors: file, corrupt, version.
Checkpoint load_checkpoint(const std::filesystem::path& path, kernels::Backend& backend);

// Reads the settings and the weights and verifies their checksums; skips the moments.
SavedWeights load_weights_only(const std::filesystem::path& path, kernels::Backend& backend);

// Reads the settings and the counters, the state without its arrays, and verifies their checksum alone.
Checkpoint load_record(const std::filesystem::path& path);

// `path` itself if it is a file, else the newest checkpoint (highest step) in the folder that verifies.
// Broken ones are skipped with a call of `warn`. nullopt: none.
using Warn = std::function<void(const std::string& message)>;
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& path, const Warn& warn);

// The newest checkpoint of a folder that verifies, and why each that is newer does not (corrupt, file,
// version), newest first.
struct CheckpointsFound {
  std::optional<std::filesystem::path> newest;
  std::vector<Error> passed_over;
};
CheckpointsFound find_checkpoints(const std::filesystem::path& folder);

// Deletes all but the `keep` newest checkpoints of a folder (by step, those of one step count once) and
// temporary files that a crash left. Those of steps beyond `newest` neither count nor go: broken ones, before
// which a job has begun again. REQUIRES keep >= 1.
void prune_checkpoints(const std::filesystem::path& folder, int keep,
                       int64_t newest = std::numeric_limits<int64_t>::max());

}  // namespace troupe::model
