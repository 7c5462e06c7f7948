// `troupe translate`: lines on standard input to lines on standard output, in order, while the input goes on.
#pragma once

#include <string>

#include "actors/inference/translator.hpp"
#include "model/generate.hpp"

namespace troupe::cli {

struct TranslateOptions {
  std::string checkpoint;  // a file, a folder of them, or the output folder of a training run
  model::GenerateOptions generate;
  bool numbered = false;  // lines of "number<TAB>score<TAB>text", from 1; n_best of each number
  inference::Precision precision;
  int threads = 0;            // 0: one a core
  int input = 0, output = 1;  // file descriptors
};

// Returns the exit code. Throws Error; what was finished before is written.
int translate(const TranslateOptions& options);

}  // namespace troupe::cli
