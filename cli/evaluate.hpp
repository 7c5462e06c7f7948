// `troupe evaluate`: loss, perplexity, BLEU and chrF of a trained model on a held-out set of a dataset.
#pragma once

#include <cstdint>
#include <string>

#include "model/generate.hpp"

namespace troupe::cli {

struct EvaluateOptions {
  std::string checkpoint, data;
  std::string split = "test";  // or "valid"
  model::GenerateOptions generate;
  uint64_t show = 0;         // translations printed beside source and reference, spread over the set
  uint64_t samples_max = 0;  // translated; 0: all. The loss is over the whole set
  bool int8 = false;         // translate with 8-bit products; the loss is that of the weights as they are
  int threads = 0;           // 0: one a core
  std::string output;        // file for the translations; empty: none
  bool json = false;
};

// Prints a report on standard output; returns the exit code. Throws Error.
int evaluate(const EvaluateOptions& options);

}  // namespace troupe::cli
