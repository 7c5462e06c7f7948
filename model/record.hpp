// The Cereal record inside checkpoints and exported models: settings and counters, all but the large arrays.
#pragma once

#include <string>

#include "model/checkpoint.hpp"
#include "model/section_file.hpp"

namespace troupe::model {

// The format of the files that hold such a record. Format 2 added the kind of norm, format 3 how products are
// made, format 4 the form of the text, format 5 the dataset; files of before have layer norm, products in the
// compute type, NFC, and do not know.
inline constexpr uint32_t kRecordFormat = 5;

std::string encode_record(const CheckpointInfo& info, const TrainState& state);

// Reads the section "record"; fills `info` and the counters of `state` (arrays stay as they are), checked
// against each other. Errors: corrupt, naming the file.
void read_record(SectionReader& reader, CheckpointInfo& info, TrainState& state);

}  // namespace troupe::model
