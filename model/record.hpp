// The Cereal record inside a checkpoint: settings and counters, all but the large arrays. Pure functions.
#pragma once

#include <string>

#include "model/checkpoint.hpp"

namespace troupe::model {

std::string encode_record(const CheckpointInfo& info, const TrainState& state);

// Fills `info` and the counters of `state` (arrays stay as they are). Throws std::exception of some kind when
// `bytes` are not such a record; the caller names the file.
void decode_record(const std::string& bytes, CheckpointInfo& info, TrainState& state);

}  // namespace troupe::model
