// A made-up language pair that a small Transformer learns in seconds: number words of one language,
// translated word by word and reversed. Needs no corpus: for tests, drills and examples/jobs/tiny.toml. A
// pure function of its options.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/dataset.hpp"

namespace troupe::data {

struct TinyOptions {
  uint64_t seed = 1;
  uint32_t pairs = 10000;  // sentences of 1 to `words_max` words, before duplicates are removed
  uint32_t words_max = 8;
  int32_t pack_tokens = 256;
  uint32_t heldout = 200;       // sentences each of validation and test
  bool language_model = false;  // kind text: source and target behind one another
};

// Prepares it in `folder` like any corpus; `open` reads it back. Throws as prepare does.
void write_tiny_dataset(const std::string& folder, const TinyOptions& options = {});

// The same, kept in memory only (a temporary folder that is gone when this returns): every process of a job
// makes its own copy, with the same digest.
std::shared_ptr<const Dataset> make_tiny_dataset(const TinyOptions& options = {});

}  // namespace troupe::data
